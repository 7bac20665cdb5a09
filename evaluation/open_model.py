"""Open what scores faces: a run folder, a packed file, an exported .onnx, the demo, an estimator.

For `load_scorer`, score_images and the export; an .onnx file needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation._model_names import ACCEPTED, hint
from evaluation.confidence.calibration import DIRECTION, FILE_NAME, Calibration
from evaluation.confidence.decision import Decision
from evaluation.sets.templates import Weights
from utils.files import file_sha256

if TYPE_CHECKING:
    from estimators.base import Estimator
    from utils.config import Precision

DEMO = Path(__file__).resolve().parents[1] / "demo" / "model.pt"
QUALITY = "quality: 0 to 100, 100 = best, 255 = could not be computed"
# Weights that suit an uncertainty, by what a head's output is (docs/evaluate.md).
FUSION: dict[str, Weights] = {
    "variance": "inverse_variance",
    "probability": "quality",
    "embedding_norm": "norm",
}


@dataclass(frozen=True, kw_only=True)
class ScoringModel:
    """A model with what its uncertainties mean.

    Attributes:
        name: of the run, or of the file without its ending.
        estimator: aligned faces to embeddings and uncertainties; its `mu` is (B, 0) where the model
            has no embedding.
        calibration: percentiles, qualities, P(false non-match); None where none was made.
        decision: accept, ask again or refuse; None without calibration.
        about: where it comes from, in plain values: `model` (path), `sha256`, `license`, `label`,
            `direction`, `output` ("probability", "variance", "embedding_norm" or "other"), and
            `method` where it is an estimator without training.
    """

    name: str
    estimator: Estimator
    calibration: Calibration | None = None
    decision: Decision | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def fusion(self) -> Weights:
        """How images of one person are weighed: see `evaluation.sets.templates.fuse_templates`."""
        return FUSION.get(self.about.get("output", ""), "mean")

    def header(self) -> str:
        """Say in one line which model this is, which way its numbers run and where the limits lie.

        For files of scores, so that a number is never without its meaning.
        """
        sha256 = self.about.get("sha256", "")
        parts = [f"model {self.name}" + (f" (SHA-256 {sha256[:12]}...)" if sha256 else "")]
        label = self.about.get("label", "").replace(";", ",")  # a semicolon parts the clauses
        parts += [label] if label else []
        parts.append(self.about.get("direction", DIRECTION))
        if self.calibration is None:
            parts.append(f"not calibrated, so no quality, percentile or verdict: {self._remedy()}")
        else:
            parts += [QUALITY, _threshold(self.calibration)]
        if self.decision is not None:
            parts.append(_limits(self.decision))
        return " ".join("; ".join(parts).split())

    def _remedy(self) -> str:
        folder, script = Path(self.about.get("model", "")), "evaluation/calibrate.py"
        if folder.is_dir():
            return f"run {script} --model_dir {folder} --dataset_path DIR --target lfw"
        if "method" in self.about:
            return f"run {script} --backbone_name ... --estimator {self.about['method']} --out FILE"
        return f"calibrate the run with {script}, then pack or export it again"


def open_model(
    model: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    backbone_weights: str | Path | None = None,
    backbone_name: str | None = None,
    calibration: str | Path | None = None,
) -> ScoringModel:
    """Open a model by what a person writes.

    The decision is the one stored with the calibration, or `Decision.from_calibration`.

    Args:
        model: a run folder (its best.pt, with calibration.json beside it), a packed file, an
            exported .onnx file, "demo"; or an estimator that needs no training, such as
            "embedding_norm", over the backbone that is named.
        device: see `TrainConfig.device`; an .onnx file runs on the CPU.
        precision: see `TrainConfig.precision`.
        backbone_weights: of a run: where the backbone's file is now; else that of `backbone_name`.
        backbone_name: as `models.run.parse_backbone` reads it; for an estimator alone.
        calibration: file of calibrate.py, instead of the one that the model brings.

    Raises:
        ValueError: there is no such model, it cannot be read, or a calibration belongs to another
            method; the message names the file.
    """
    if backbone_name is not None:
        opened = _open_estimator(str(model), backbone_name, backbone_weights, device, precision)
    else:
        opened = _open_files(model, device, precision, backbone_weights)
    return opened if calibration is None else _with_calibration(opened, Path(calibration))


def _open_files(
    model: str | Path, device: str, precision: Precision, backbone_weights: str | Path | None
) -> ScoringModel:
    path = DEMO if str(model) == "demo" else Path(model)
    if path.is_dir():
        return _open_run(path, device, precision, backbone_weights)
    if backbone_weights:
        raise ValueError(
            f"backbone_weights = {backbone_weights} goes with a run folder or with backbone_name; "
            f"{model} is no folder"
        )
    if not path.is_file():
        raise ValueError(f"no model {path}{hint(str(model))}: give {ACCEPTED}")
    if path.suffix == ".onnx":
        return _open_onnx(path)
    return _open_packed(path, device, precision)


def _open_estimator(
    text: str,
    backbone_name: str,
    backbone_weights: str | Path | None,
    device: str,
    precision: Precision,
) -> ScoringModel:
    from estimators.base import build_estimator, name_readers
    from models.run import open_backbone
    from utils.config_json import parse_method

    if not backbone_weights:
        raise ValueError(f"backbone_name = {backbone_name} needs backbone_weights")
    frozen = open_backbone(backbone_name, backbone_weights, device, precision)
    method = parse_method(text)
    estimator = build_estimator(method, frozen=frozen)
    if name_readers(estimator):
        raise ValueError(
            f"{text} works on the rows of a set, not on photos alone: name another estimator"
        )
    return ScoringModel(
        name=f"{text} of {backbone_name}",
        estimator=estimator,
        about={
            "model": str(backbone_weights),
            "sha256": file_sha256(backbone_weights),
            "license": "",
            "label": "",
            "direction": DIRECTION,
            "output": method.name if method.name in FUSION else "other",
            "method": text,
        },
    )


def _open_run(
    path: Path, device: str, precision: Precision, backbone_weights: str | Path | None
) -> ScoringModel:
    from estimators.trained_head import TrainedHead
    from models.run import load_run

    weights = None if backbone_weights is None else str(backbone_weights)
    run = load_run(path, device=device, precision=precision, backbone_weights=weights)
    opened = ScoringModel(
        name=path.absolute().name,
        estimator=TrainedHead(frozen=run.frozen, head=run.head),
        about={
            "model": str(path),
            "sha256": file_sha256(run.files[0]),
            "license": "",
            "label": "",
            "direction": DIRECTION,
            "output": run.head.output,
            "backbone_sha256": run.sha256,
        },
    )
    file = path / FILE_NAME
    return _with_calibration(opened, file) if file.is_file() else opened


def _open_packed(path: Path, device: str, precision: Precision) -> ScoringModel:
    from estimators.trained_head import TrainedHead
    from models.packed import is_packed, load_packed

    if not is_packed(path):
        raise ValueError(f"{path} is no packed model: give {ACCEPTED}")
    packed = load_packed(path, device=device, precision=precision)
    calibration = _read(packed.calibration, path)
    about = packed.about
    return ScoringModel(
        name=about.name,
        estimator=TrainedHead(frozen=packed.frozen, head=packed.head),
        calibration=calibration,
        decision=_decision(calibration),
        about={
            "model": str(path),
            "sha256": file_sha256(path),
            "license": about.license,
            "label": about.label,
            "direction": DIRECTION,
            "output": packed.head.output,
            "backbone_sha256": about.sha256,
        },
    )


def _open_onnx(path: Path) -> ScoringModel:
    from estimators.onnx import open_onnx

    estimator, stored, decision, about = open_onnx(path)
    calibration = _read(stored, path)
    chosen = _decision(calibration) if decision is None else Decision.from_dict(decision)
    return ScoringModel(
        name=str(about.get("name") or path.stem),
        estimator=estimator,
        calibration=calibration,
        decision=chosen,
        about={
            "direction": DIRECTION,
            **about,
            "model": str(path),
            "sha256": file_sha256(path),
            "exported_from": about.get("sha256", ""),
        },
    )


def _read(stored: dict[str, Any] | None, path: Path) -> Calibration | None:
    if stored is None:
        return None
    try:
        return Calibration.from_dict(stored)
    except ValueError as error:
        raise ValueError(f"{path}: its calibration: {error}") from error


def _decision(calibration: Calibration | None) -> Decision | None:
    if calibration is None:
        return None
    return calibration.decision or Decision.from_calibration(calibration)


def _with_calibration(opened: ScoringModel, file: Path) -> ScoringModel:
    """Add a file's calibration, unless it is of another method, as calibrate.py may leave it."""
    from estimators.base import estimator_names

    calibration = Calibration.load(file)
    wanted = opened.about.get("method", "trained_head")
    if calibration.method != wanted and calibration.method.partition(":")[0] in estimator_names():
        raise ValueError(
            f"{file} says what the uncertainties of {calibration.method} mean, not those of "
            f"{wanted}: make one with evaluation/calibrate.py --estimator {wanted}"
        )
    return replace(opened, calibration=calibration, decision=_decision(calibration))


def _threshold(calibration: Calibration) -> str:
    goal = "as given"
    if calibration.fmr_target is not None:
        goal = f"for FMR {calibration.fmr_target:g}"
    return (
        f"score threshold {calibration.score_threshold:.6g} {goal} on {calibration.name} "
        f"(FMR {calibration.false_matches}, FNMR {calibration.false_non_matches})"
    )


def _limits(decision: Decision) -> str:
    accept = "accept none"
    if decision.accept_up_to is not None:
        accept = f"accept uncertainty <= {decision.accept_up_to:.6g}"
    refuse = "refuse none"
    if decision.refuse_above is not None:
        refuse = f"refuse > {decision.refuse_above:.6g}"
    return f"{accept}, {refuse}, between them ask again ({decision.rule})"
