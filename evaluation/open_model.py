"""One way to open whatever gives embeddings and uncertainties, for every command and for Python.

A model is a run folder of network.py, a branch of a run (`RUN/BRANCH`), a packed model (`.pt`), an
exported model (`.onnx`), `demo`, a file with a score per image (`.csv`, `.tsv`, `.npz`,
`.parquet`), or an estimator by name (`embedding_norm`, `ser_fiq:passes=50`). The last two need a
backbone: one that is named, or that of another model beside them. An exported model and a file of
scores open without PyTorch.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from estimators.base import (
    DIRECTION,
    NEEDS_RUN,
    Estimator,
    EstimatorGroup,
    Explains,
    build_estimator,
    estimator_names,
    name_readers,
)
from evaluation.confidence.calibration import FILE_NAME, Calibration, Decision
from evaluation.sets.templates import Weights
from models.seeds import Group, seed_groups
from utils.config import parse_method, require
from utils.files import DAMAGE, file_sha256, naming
from utils.onnx_runtime import is_onnx
from utils.tables import SUFFIXES

if TYPE_CHECKING:
    from models.frozen import FrozenBackbone
    from models.heads.base import Head
    from models.run import Run
    from utils.config import Execution, Precision, TrainConfig

DEMO = Path(__file__).resolve().parents[1] / "demo" / "model.pt"
QUALITY = "quality: 0 to 100, 100 = best, 255 = could not be computed"
KINDS = (
    "a run folder of network.py, a packed model (.pt), an exported model (.onnx), demo; or, with "
    "backbone_name and backbone_weights, an estimator such as embedding_norm or a file of scores"
)
OVER_A_BACKBONE = ("estimator", "scores")  # kinds that have none of their own
# Weights that suit an uncertainty, by what a head's output is (docs/templates.md).
FUSION: dict[str, Weights] = {
    "variance": "inverse_variance",
    "probability": "quality",
    "embedding_norm": "norm",
}


class Where(TypedDict, total=False):
    """How a backbone runs; see `TrainConfig`."""

    device: str
    precision: Precision
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from; all values are plain, and "" where nobody said."""

    model: str = ""  # path of the run folder or file
    sha256: str = ""  # of the file of the head, of the packed or exported model, or of the scores
    license: str = ""  # of the weights, in words
    label: str = ""  # a warning or a remark that every output shows
    output: str = "other"  # or "probability", "variance", "embedding_norm"
    method: str = "trained_head"  # the estimator with its options
    backbone_sha256: str = ""  # of the backbone's original file
    exported_from: str = ""  # SHA-256 of what an exported model was made from
    name: str = ""  # of an exported model
    head_sha256: str = ""  # of an exported model: of the tensors of its head

    def to_dict(self) -> dict[str, str]:
        """Return what files of scores and exported models carry."""
        stored = dataclasses.asdict(self)
        names = ("backbone_sha256", "head_sha256", "exported_from", "name")
        optional = {name: stored.pop(name) for name in names}
        if stored.pop("method") != "trained_head":
            optional["method"] = self.method
        output = stored.pop("output")
        stored = {**stored, "direction": DIRECTION, "output": output}
        return {**stored, **{name: value for name, value in optional.items() if value}}


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with what its uncertainties mean; what is unknown, or not in PyTorch, is None."""

    name: str  # of the run or packed model, else of the file without its ending
    estimator: Estimator  # aligned faces to embeddings and uncertainties
    calibration: Calibration | None = None  # percentiles, qualities, P(false non-match)
    decision: Decision | None = None  # accept, ask again or refuse
    provenance: Provenance = field(default_factory=Provenance)
    frozen: FrozenBackbone | None = None  # the backbone, which other methods can share
    head: Head | None = None
    embedding_size: int = 0  # D; 0 where the model gives no embedding
    config: TrainConfig | None = None  # how it was trained
    run: Run | None = None  # the run folder; None for any other kind
    files: tuple[Path, ...] = ()  # what its numbers depend on: weights or scores

    @property
    def fusion(self) -> Weights:
        """How images of one person are weighed: see `evaluation.sets.templates.fuse_templates`."""
        return FUSION.get(self.provenance.output, "mean")

    @property
    def fingerprint(self) -> str:
        """The method and the SHA-256 of each file: equal where the numbers are."""
        return " ".join([self.provenance.method, *map(file_sha256, self.files)])

    @property
    def weights_sha256(self) -> dict[str, str]:
        """SHA-256 of the backbone's original file and of the tensors of each head, where known.

        Equal for a run folder and what is packed or exported from it.
        """
        own = self.provenance
        parts = {"backbone": own.backbone_sha256, "head": own.head_sha256}
        if self.frozen is not None:
            from estimators.trained_head import head_hashes

            group = self.estimator
            one = {"head": group}
            parts |= head_hashes(group.members if isinstance(group, EstimatorGroup) else one)
        return {part: sha256 for part, sha256 in parts.items() if sha256}

    def with_estimator(self, text: str) -> LoadedModel:
        """Return another method over the backbone; "trained_head" stands for the model's own.

        Raises:
            ValueError: not an estimator, or the model has no backbone in PyTorch.
        """
        if text == "trained_head":
            return self
        if self.frozen is None:
            raise ValueError(
                f"{self.name} has no backbone that {text} could use: name a run folder or a packed "
                "model"
            )
        runtime: dict[str, object] = {
            "frozen": self.frozen,
            "backbone_sha256": self.provenance.backbone_sha256,
        }
        if self.head is not None:
            runtime["head"] = self.head
        return replace(
            self,
            estimator=build_estimator(parse_method(text), **runtime),
            calibration=None,
            decision=None,
            provenance=replace(self.provenance, method=text, output=_output_of(text)),
        )

    def require_embeddings(self) -> LoadedModel:
        """Raise ValueError for a model that gives no embeddings to compare."""
        if not self.embedding_size:
            way_out = "give --backbone_name and --backbone_weights"
            if self.provenance.model.endswith(".onnx"):
                way_out = "export it again without --quality_only"
            raise ValueError(f"{self.name} gives no embeddings to compare faces with: {way_out}")
        return self

    def require_photos(self) -> LoadedModel:
        """Raise ValueError for a model that knows the images of a set alone, not photos."""
        if name_readers(self.estimator):
            raise ValueError(
                f"{self.provenance.method} looks up the images of a set by name, so it cannot "
                "score photos: name another model"
            )
        return self

    def require_maps(self) -> LoadedModel:
        """Raise ValueError for a model that cannot `explain`."""
        if not isinstance(self.estimator, Explains):
            raise ValueError(
                f"{self.provenance.model or self.name}: a map of what raises the uncertainty "
                "needs the gradient of a trained head: give its run folder or packed .pt"
            )
        if self.frozen is not None:
            self.frozen.require_gradients("a map of the uncertainty")
        return self

    def explain(
        self, faces: NDArray[np.uint8], mean_face: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return maps of what raises the uncertainty; see `TrainedHead.explain`.

        `mean_face` is by default `data.rendered.mean_face()`.

        Raises:
            ValueError: see `require_maps`.
        """
        from data.rendered import mean_face as rendered_mean

        self.require_maps()
        assert isinstance(self.estimator, Explains)
        return self.estimator.explain(faces, rendered_mean() if mean_face is None else mean_face)

    def header(self) -> str:
        """Say in one line, for files of scores, which model this is and what its numbers mean."""
        sha256, label, fitted = self.provenance.sha256, self.provenance.label, self.calibration
        parts = [f"model {self.name}" + (f" (SHA-256 {sha256[:12]}...)" if sha256 else "")]
        parts += [label.replace(";", ",")] if label else []  # a semicolon parts the clauses
        parts.append(DIRECTION)
        if fitted is None:
            parts.append(f"not calibrated, so no quality, percentile or verdict: {self._remedy()}")
        else:
            goal = "as given" if fitted.fmr_target is None else f"for FMR {fitted.fmr_target:g}"
            parts.append(
                f"{QUALITY}; score threshold {fitted.score_threshold:.6g} {goal} on {fitted.name} "
                f"(FMR {fitted.false_matches}, FNMR {fitted.false_non_matches})"
            )
        if self.decision is not None:
            low, high = self.decision.accept_up_to, self.decision.refuse_above
            accept = "accept none" if low is None else f"accept uncertainty <= {low:.6g}"
            refuse = "refuse none" if high is None else f"refuse > {high:.6g}"
            parts.append(f"{accept}, {refuse}, between them ask again ({self.decision.rule})")
        return " ".join("; ".join(parts).split())

    def _remedy(self) -> str:
        folder, script = Path(self.provenance.model), "evaluation/calibrate.py"
        method = self.provenance.method
        if method != "trained_head":
            return f"run {script} --backbone_name ... --estimator {method} --out FILE"
        if self.provenance.model and folder.is_dir():
            last = " --checkpoint last" if self.files and self.files[0].stem == "last" else ""
            return f"run {script} --model_dir {folder}{last} --dataset_path DIR --target lfw"
        return f"run {script} --model {folder} --target faces:FOLDER --out FILE.json"

    def with_calibration(self, calibration: Calibration, file: str | Path) -> LoadedModel:
        """Add a calibration of this model.

        Raises:
            ValueError: it is of another method or of other weights; names its file.
        """
        own = self.provenance.method
        if calibration.method != own and calibration.method.partition(":")[0] in estimator_names():
            raise ValueError(
                f"{file} says what the uncertainties of {calibration.method} mean, not those of "
                f"{own}: make one with evaluation/calibrate.py --estimator {own}"
            )
        weights = self.weights_sha256 if calibration.weights_sha256 else {}
        differences = [
            f"SHA-256 of its {part} {sha256[:12]}..., here {weights[part][:12]}..."
            for part, sha256 in calibration.weights_sha256.items()
            if weights.get(part, sha256) != sha256
        ]
        if differences:
            raise ValueError(
                f"{file} is the calibration of another model than {self.provenance.model} "
                f"({'; '.join(differences)}), so its error rates do not hold: {self._remedy()}"
            )
        with naming(file):
            decision = calibration.decision or Decision.from_calibration(calibration)
        return replace(self, calibration=calibration, decision=decision)

    def _with_stored(self, stored: dict[str, Any] | None, path: Path) -> LoadedModel:
        """Add the calibration that a model's own file holds."""
        with naming(path, *DAMAGE), naming("its calibration"):
            calibration = None if stored is None else Calibration.from_dict(stored)
        return self if calibration is None else self.with_calibration(calibration, path)


@dataclass(frozen=True)
class LoadedModels:
    """Models over one backbone, in the order in which they were named."""

    models: Mapping[str, LoadedModel]  # by the name of the method
    estimator: EstimatorGroup  # all of them in one, a column of uncertainty for each
    groups: tuple[Group, ...]  # of runs that differ in their seeds alone
    fingerprint: str  # what the numbers depend on

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(self.models)

    @property
    def backbone(self) -> LoadedModel:
        """The model whose backbone, or whose embeddings, all share."""
        models = sorted(self.models.values(), key=lambda model: model.frozen is None)
        return next((model for model in models if model.embedding_size), models[0])


def open_model(
    spec: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
    backbone_name: str | None = None,
    backbone_weights: str | Path | None = None,
    checkpoint: str = "best",
    calibration: str | Path | None = None,
    calibrated: bool = True,
    host: LoadedModel | None = None,
) -> LoadedModel:
    """Open a model by its path or name: every kind that the top of this module lists.

    The decision is the one stored with the calibration, or `Decision.from_calibration`. Device,
    precision and execution are as in `TrainConfig`; an exported model runs on the CPU.

    `backbone_name`, as `models.run.parse_backbone` reads it, is for estimators and scores, with its
    file `backbone_weights`; for a run, the latter says where the file is now. `checkpoint` is
    "best" or "last", for a run. `calibration` is a file of calibrate.py, to use instead of the
    model's own; with `calibrated=False` that one is not read. `host` is another model: an
    estimator or a file of scores uses its backbone, and a run of the same backbone shares it.

    Raises:
        ValueError: there is no such model (with what was probably meant), it cannot be read, a flag
            does not go with its kind, or a calibration belongs to another model; one line that
            names the file.
    """
    where = Where(device=device, precision=precision, execution=execution)
    kind, path = kind_of(str(spec))
    if kind in OVER_A_BACKBONE:
        if host is None:
            host = _named_backbone(str(spec), kind, where, backbone_name, backbone_weights)
        model = _open_over(host, kind, str(spec))
    elif backbone_name is not None:
        raise ValueError(
            f"{spec} has a backbone of its own: --backbone_name {backbone_name} does not go with it"
        )
    elif kind == "run":
        from models.run import load_run

        weights = None if backbone_weights is None else str(backbone_weights)
        shared = None if host is None else host.run
        run = load_run(
            path, checkpoint=checkpoint, backbone_weights=weights, shared=shared, **where
        )
        model = from_run(run, calibrated=calibrated and calibration is None)
    elif backbone_weights is not None and host is None:
        raise ValueError(
            f"backbone_weights = {backbone_weights} goes with a run folder or with backbone_name; "
            f"{spec} is not a folder"
        )
    elif kind == "onnx":
        model = _open_onnx(path)
    else:
        from models.run import load_packed

        model = from_run(load_packed(path, **where))
    if calibration is None:
        return model
    return model.with_calibration(Calibration.load(calibration), calibration)


def open_models(
    specs: Sequence[str],
    *,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
    backbone_name: str | None = None,
    backbone_weights: str | None = None,
) -> LoadedModels:
    """Open several models, `[NAME=]MODEL` each, over one backbone.

    The backbone is that of the trained models, or the one that is named. `with_branches` and
    `named` read the list of models; everything else is as in `open_model`.

    Raises:
        ValueError: two models have one name, there is no backbone or more than one, or a model
            cannot be opened.
    """
    is_text = isinstance(specs, str | Path)
    require(not is_text, "specs", specs, f"several, such as [{str(specs)!r}]")
    in_order = named(with_branches(specs))
    opened: dict[str, LoadedModel] = {}
    host: LoadedModel | None = None
    for name, spec in sorted(in_order, key=lambda pair: kind_of(pair[1])[0] in OVER_A_BACKBONE):
        model = open_model(
            spec,
            device=device,
            precision=precision,
            execution=execution,
            backbone_name=None if host else backbone_name,
            backbone_weights=backbone_weights,
            calibrated=False,
            host=host,
        )
        opened[name] = _sharing(name, model, opened)
        if host is None or host.frozen is None:
            host = opened[name] if model.embedding_size else host
    (host or model).require_embeddings()
    models = {name: opened[name] for name, _ in in_order}
    files = [file for model in opened.values() for file in model.files]
    hashes = {file: file_sha256(file) for file in dict.fromkeys(files)}
    return LoadedModels(
        models,
        EstimatorGroup({name: model.estimator for name, model in models.items()}),
        seed_groups({name: model.config for name, model in opened.items() if model.config}),
        " ".join([*specs, *(hashes[file] for file in files)]),
    )


def named(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read `NAME=MODEL` or `MODEL`; the name is then the file's or folder's, or the text itself.

    Raises:
        ValueError: two of one name.
    """
    models: dict[str, str] = {}
    for text in texts:
        name, spec = _split(text)
        name = name or _own_name(text)
        if name in models:
            raise ValueError(
                f"two methods are called {name!r}: name them, as in first={spec}, or a run of "
                "several branches as a whole, as in first=RUN"
            )
        models[name] = spec
    return list(models.items())


def with_branches(texts: Sequence[str]) -> list[str]:
    """Replace each run of several branches by `BRANCH=FOLDER` of all of them.

    `NAME=RUN` gives `NAME-BRANCH=FOLDER`; anything else stays as it is.

    Raises:
        ValueError: a branch without a trained head.
    """
    expanded: list[str] = []
    for text in texts:
        name, spec = _split(text)
        folders: list[Path] = []
        if spec != "demo" and Path(spec).is_dir():
            from models.run import branch_folders

            folders = branch_folders(spec)
        prefix = f"{name}-" if name else ""
        expanded += [f"{prefix}{folder.name}={folder}" for folder in folders] or [text]
    return expanded


def _own_name(text: str) -> str:
    path = Path(text)
    if text == "demo" or not path.exists():
        return text
    return path.absolute().name if path.is_dir() else path.stem  # `margin-0.4` has no ending


def _split(text: str) -> tuple[str, str]:
    """Part `NAME=MODEL`; the name is "" where there is none."""
    name, equals, spec = text.partition("=")
    return ("", text) if not equals or ":" in name or Path(text).exists() else (name, spec)


def kind_of(spec: str) -> tuple[str, Path]:
    """Return "run", "packed", "onnx", "scores" or "estimator", and the path.

    Raises:
        ValueError: none of them; the message says what was probably meant.
    """
    path = DEMO if spec == "demo" else Path(spec)
    if path.is_dir():
        return "run", path
    if path.is_file():
        if is_onnx(path):
            return "onnx", path
        if path.suffix.lower() in SUFFIXES:
            return "scores", path
        from models.run import is_packed

        if is_packed(path):
            return "packed", path
        raise ValueError(f"{spec} is not a packed model{_hint(spec)}: give {KINDS}")
    if spec.partition(":")[0] in estimator_names():
        return "estimator", path
    raise ValueError(f"no model {spec}{_hint(spec)}: give {KINDS}")


def _hint(spec: str) -> str:
    """Say what was meant by something that is not a model; "" where nothing is near."""
    name, path = spec.partition(":")[0], Path(spec)
    if path.is_file():
        if (path.parent / "config.json").is_file() and path.stem in ("best", "last"):
            return f" but the checkpoint of a run (name its folder {path.parent})"
        weights = " (weights of a backbone go into --backbone_weights, beside --backbone_name)"
        return weights if path.suffix in (".pth", ".pt") else ""
    close = difflib.get_close_matches(name, ["demo", *estimator_names()], n=1, cutoff=0.7)
    if close:
        return f" (did you mean {close[0]!r}?)"
    if re.fullmatch(r"(i?resnet|r|mbf|mobilefacenet)-?\d*", name.lower()):
        return f" ({name} is a backbone: give it as --backbone_name, with an estimator)"
    if len(path.parts) > 1 and not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near and len(path.parts) > 1 else ""


def _named_backbone(
    spec: str, kind: str, where: Where, name: str | None, weights: str | Path | None
) -> LoadedModel | None:
    """Open the backbone that is named; a file of scores can be opened without."""
    if spec.partition(":")[0] == "trained_head":
        raise ValueError(NEEDS_RUN)
    if name is None and weights is None and kind == "scores":
        return None
    if name is None and is_onnx(weights):
        name = "onnx"
    if name is None:
        raise ValueError(
            f"{spec} needs a backbone: give backbone_name with backbone_weights, or a recogniser's "
            ".onnx file as backbone_weights"
        )
    if not weights:
        raise ValueError(f"backbone_name = {name} needs backbone_weights")
    from estimators.embedding_norm import EmbeddingNorm
    from models.load import weights_files, weights_sha256
    from models.run import open_backbone

    frozen = open_backbone(name, weights, **where)
    return LoadedModel(
        name=name,
        estimator=EmbeddingNorm(frozen=frozen),
        frozen=frozen,
        embedding_size=frozen.embedding_size,
        provenance=Provenance(backbone_sha256=weights_sha256(weights)),
        files=weights_files(weights),
    )


def _open_over(host: LoadedModel | None, kind: str, spec: str) -> LoadedModel:
    """Open an estimator or a file of scores over the backbone of another model."""
    files = () if host is None or host.provenance.model else host.files  # else the host has them
    frozen = None if host is None else host.frozen
    if kind == "scores":
        from estimators.from_file import FromFile

        path, name = Path(spec), Path(spec).stem
        estimator: Estimator = FromFile(path=spec, frozen=frozen)
        provenance = Provenance(model=spec, sha256=file_sha256(path), method=path.name)
        files = (*files, path)
    else:
        assert host is not None
        if frozen is None:
            raise ValueError(
                f"{spec} needs a backbone, and {host.name} has none to share: name a run folder or "
                "a packed model among the methods"
            )
        name = f"{spec} of {host.name}" if files else spec
        sha256 = host.provenance.backbone_sha256
        runtime = {"frozen": frozen, "backbone_sha256": sha256}
        estimator = build_estimator(parse_method(spec), **runtime)
        provenance = Provenance(
            model=str(files[0]) if files else host.provenance.model,
            sha256=file_sha256(files[0]) if files else host.provenance.sha256,
            output=_output_of(spec),
            method=spec,
            backbone_sha256=sha256,
        )
    return LoadedModel(
        name=name,
        estimator=estimator,
        provenance=provenance,
        frozen=frozen,
        embedding_size=0 if host is None else host.embedding_size,
        files=files,
    )


def _output_of(text: str) -> str:
    name = text.partition(":")[0]
    return name if name in FUSION else "other"


def _sharing(name: str, model: LoadedModel, others: Mapping[str, LoadedModel]) -> LoadedModel:
    """Return the model over the backbone of the others; ValueError where it has another."""
    for other_name, other in others.items():
        if not (model.embedding_size and other.embedding_size) or model.frozen is other.frozen:
            continue
        same = model.provenance.backbone_sha256 == other.provenance.backbone_sha256
        if model.frozen is not None and other.frozen is not None:
            same = model.frozen.is_same_as(other.frozen)
        if not same:
            raise ValueError(
                f"{name} and {other_name} were trained on different backbones; one table compares "
                "methods over one"
            )
        if model.head is not None and other.frozen is not None:
            from estimators.trained_head import TrainedHead

            estimator = TrainedHead(frozen=other.frozen, head=model.head)
            return replace(model, estimator=estimator, frozen=other.frozen)
    return model


def from_run(run: Run, *, calibrated: bool = True) -> LoadedModel:
    """Return a run folder, with the calibration in it, or a packed model as a model."""
    from estimators.trained_head import TrainedHead
    from models.run import PackedModel

    about = run.about if isinstance(run, PackedModel) else None
    model = LoadedModel(
        name=about.name if about else run.path.absolute().name,
        estimator=TrainedHead(frozen=run.frozen, head=run.head),
        provenance=Provenance(
            model=str(run.path),
            sha256=file_sha256(run.files[0]),
            license=about.license if about else "",
            label=about.label if about else "",
            output=run.head.output,
            backbone_sha256=run.sha256,
        ),
        frozen=run.frozen,
        head=run.head,
        embedding_size=run.frozen.embedding_size,
        config=run.config,
        run=None if about else run,
        files=run.files,
    )
    file = run.path / FILE_NAME
    if isinstance(run, PackedModel):
        return model._with_stored(run.calibration, run.path)
    if calibrated and file.is_file():
        return model.with_calibration(Calibration.load(file), file)
    return model


def _open_onnx(path: Path) -> LoadedModel:
    from estimators.onnx import OnnxModel

    estimator = OnnxModel(path)
    about, decision = estimator.about, estimator.decision
    known = {field.name for field in dataclasses.fields(Provenance)}
    model = LoadedModel(
        name=str(about.get("name") or path.stem),
        estimator=estimator,
        provenance=replace(
            Provenance(**{key: str(value) for key, value in about.items() if key in known}),
            model=str(path),
            sha256=file_sha256(path),
            exported_from=str(about.get("sha256", "")),
        ),
        embedding_size=estimator.embedding_size,
        files=(path,),
    )._with_stored(estimator.calibration, path)
    if decision is None:
        return model
    with naming(path, *DAMAGE):
        return replace(model, decision=Decision.from_dict(decision))
