"""Flags that the evaluation scripts share, and what they say as frozen dataclasses.

A script adds the groups it needs, parses, and reads each group with `read`; nothing here loads
PyTorch, a picture library or a file before it is asked to.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from evaluation.metrics.comparisons import Unit
from evaluation.metrics.protocols import PROTOCOLS, find_protocol
from evaluation.sets.templates import FUSIONS, Fusion, Score
from utils.cli import count, count_or_all, share

if TYPE_CHECKING:
    from estimators.mc_dropout import Form
    from evaluation.calibration_run import CalibrationOptions
    from evaluation.comparison import ComparisonOptions
    from evaluation.confidence.risk_control import Risk
    from evaluation.open_model import LoadedModel
    from evaluation.run import EvaluationOptions
    from evaluation.sets.labelled import NonMated
    from evaluation.sets.open_set import EvaluationSet
    from evaluation.sets.stored import StoredSet
    from utils.config import Precision, Verification

REPLICATES = 1000  # of a report
RISKS = ("fnmr", "fmr", "total")
NO_MODEL = (
    "--model MODEL (a run folder, a packed or an exported model), --features FILE, or "
    "--backbone_name with --backbone_weights and a training-free --estimator"
)

Flags = TypeVar("Flags")


def read(kind: type[Flags], args: argparse.Namespace) -> Flags:
    """Return the flags of one group as its dataclass."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(args).items() if name in names})


@dataclass(frozen=True, kw_only=True)
class SetFlags:
    """Which set is opened, and which pairs of labelled faces are compared; see `open_set`."""

    dataset_path: str | None
    non_mated: NonMated
    cap: int | None
    seed: int

    def open(self, target: str) -> EvaluationSet:
        """Open a set; ValueError names it."""
        from evaluation.sets.open_set import open_set

        return open_set(
            target,
            self.dataset_path,
            non_mated=self.non_mated,
            cap=self.cap or None,
            seed=self.seed,
        )

    def open_stored(self, path: str) -> StoredSet:
        """Open a stored file or folder."""
        from evaluation.sets.stored import open_stored

        return open_stored(path, non_mated=self.non_mated, cap=self.cap or None, seed=self.seed)


def add_set_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `SetFlags`."""
    add = parser.add_argument
    add("--dataset_path", help="folder with the .bin files")
    add(
        "--non_mated",
        type=count_or_all,
        default=1_000_000,
        help="faces: non-mated pairs to draw, or all (1000000)",
    )
    add("--cap", type=int, help="faces: mated pairs per identity at most")
    add("--seed", type=int, default=0, help="of every draw: pairs, bootstrap, dropout masks (0)")


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model is evaluated, and where it runs; see `open_model`."""

    model: str | None
    estimator: str
    checkpoint: str
    backbone_name: str | None
    backbone_weights: str | None
    precision: Precision
    config_file: str | None = None
    set: Sequence[str] = ()

    def open(self, device: str) -> LoadedModel:
        """Open the model, to evaluate it; ValueError says what is missing."""
        from evaluation.open_model import from_run, open_model

        if self.config_file:
            from models.run import untrained_run
            from utils.config import load_config
            from utils.config_json import override

            run = untrained_run(
                override(load_config(self.config_file), self.set),
                device=device,
                precision=self.precision,
                backbone_weights=self.backbone_weights,
            )
            return from_run(run).with_estimator(self.estimator)
        if self.set:
            raise ValueError("--set overrides a --config_file; a --model has its own config")
        if not (self.model or self.backbone_name):
            raise ValueError(f"give {NO_MODEL}")
        model = open_model(
            self.model or self.estimator,
            device=device,
            precision=self.precision,
            backbone_name=self.backbone_name,
            backbone_weights=self.backbone_weights,
            checkpoint=self.checkpoint,
        )
        return (model.with_estimator(self.estimator) if self.model else model).require_embeddings()


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ModelFlags`, but --config_file and --set."""
    add = parser.add_argument
    add(
        "--model",
        "--model_dir",
        help="run folder, branch RUN/BRANCH, packed .pt, .onnx, demo; or a file of scores or an "
        "estimator, with the backbone's flags",
    )
    add(
        "--estimator",
        default="trained_head",
        help="uncertainty to use: trained_head, embedding_norm, from_file:path=SCORES.csv, ...",
    )
    add("--checkpoint", default="best", choices=["best", "last"], help="of a run (best)")
    add_backbone_flags(parser)


def add_backbone_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a backbone where no run does, and say where it runs."""
    add = parser.add_argument
    add("--backbone_name", help="iresnet18 ... iresnet200, mobilefacenet, mbf, or name:option=...")
    add("--backbone_weights", help="its file; with a run: where the file is now")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")


@dataclass(frozen=True, kw_only=True)
class DropoutFlags:
    """MC-dropout over a backbone; see `estimators.mc_dropout.MCDropout`."""

    backbone_name: str | None
    resume_backbone: str | None
    model: str | None
    passes: int
    rate: float
    form: Form
    no_batch_norm: bool
    precision: Precision
    seed: int

    def open(self, device: str) -> LoadedModel:
        """Open the backbone, and MC-dropout over it."""
        from estimators.mc_dropout import MCDropout
        from evaluation.open_model import LoadedModel, Provenance, open_model
        from models.run import open_backbone

        config = None
        if bool(self.model) == bool(self.backbone_name):
            raise ValueError(
                "which backbone? give --backbone_name with --resume_backbone, or --model_dir"
            )
        if self.model:
            model = open_model(
                self.model,
                device=device,
                precision=self.precision,
                backbone_weights=self.resume_backbone,
            )
            frozen, config = model.frozen, model.config
            if frozen is None:
                raise ValueError(f"{self.model} has no backbone in PyTorch to drop features of")
        elif self.backbone_name and self.resume_backbone:
            frozen = open_backbone(self.backbone_name, self.resume_backbone, device, self.precision)
        else:
            raise ValueError(f"--backbone_name {self.backbone_name} needs --resume_backbone FILE")
        estimator = MCDropout(
            frozen, self.passes, self.rate, self.seed, not self.no_batch_norm, self.form
        )
        return LoadedModel(
            name=estimator.name,
            estimator=estimator,
            provenance=Provenance(method=estimator.name),
            frozen=frozen,
            config=config,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationFlags:
    """What is evaluated, how, and what is written; None where the user left a flag open."""

    target: str | None
    features: str | None
    batch_size: int | None
    flip: bool | None
    protocol: str | None
    fmr: tuple[float, ...]
    sigma_sizes: str | None
    score: Score
    fusion: Fusion
    replicates: int | None
    unit: Unit | None
    confidence: float
    target_risk: float | None
    risk: Risk
    score_threshold: float | None
    seed: int
    save_features: str | None
    save_scores: str | None
    parts: str | None
    json: str | None
    report: str | None

    def check(self) -> None:
        """Refuse, before any work, files that could not be written after it."""
        if self.report and Path(self.report).is_file():
            raise ValueError(f"--report {self.report}: names a folder, but a file is there")
        if self.save_features and Path(self.save_features).suffix != ".npz":
            raise ValueError(f"--save_features {self.save_features}: must end in .npz")
        if self.save_scores and Path(self.save_scores).suffix not in (".csv", ".npz", ".parquet"):
            raise ValueError(
                f"--save_scores {self.save_scores}: must end in .csv, .npz or .parquet"
            )

    def targets(self, verification: Verification) -> list[str]:
        """Names of the sets; those of a run's config where --target names none."""
        if self.target is None:
            return list(verification.targets)
        return split_targets(self.target)

    def options(self, verification: Verification) -> EvaluationOptions:
        """What is computed; what was left open is as in a run's config."""
        from evaluation.run import EvaluationOptions

        replicates = self.replicates
        if replicates is None:
            replicates = REPLICATES if self.report else 0
        more = self.report or self.json or self.save_scores or replicates or self.target_risk
        names = [name.strip() for name in self.protocol.split(",")] if self.protocol else []
        return EvaluationOptions(
            protocols=tuple(map(find_protocol, PROTOCOLS if names == ["all"] else names)),
            pairs_protocol=verification.protocol,
            table_only=not more,
            fmr=tuple(self.fmr),
            sigma_sizes=_sizes(self.sigma_sizes),
            score=self.score,
            fusion=self.fusion,
            batch_size=self.batch_size or verification.batch_size,
            flip=verification.flip if self.flip is None else self.flip,
            parts=self.parts,
            replicates=replicates,
            unit=self.unit,
            confidence=self.confidence,
            target_risk=self.target_risk,
            risk=self.risk,
            score_threshold=self.score_threshold,
            seed=self.seed,
        )


def add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `EvaluationFlags` and `SetFlags`."""
    add = parser.add_argument
    add("--target", help="sets, comma-separated: lfw,cfp_fp or faces:PATH, pairs:FILE, ijb:FOLDER")
    add("--batch_size", type=int, help="images per forward pass (64)")
    add("--flip", action=argparse.BooleanOptionalAction, help="average with the mirror image")
    add(
        "--protocol",
        help=f"all, or some of: {', '.join(PROTOCOLS)} (original for pairs, which its table needs; "
        "iso29794 for faces, templates and score files)",
    )
    add("--fmr", type=share, nargs="+", default=[1e-3], help="FMR targets (1e-3)")
    add("--features", help="evaluate stored arrays or scores (.npz, .csv, .parquet), not a model")
    add("--sigma_sizes", help="columns of each uncertainty in sigma_sq, such as 8,1")
    add("--score", default="cosine", choices=get_args(Score), help="of a comparison (cosine)")
    add("--fusion", default="mean", choices=FUSIONS, help="ijb: weights within a template (mean)")
    add_set_flags(parser)
    add_risk_flags(parser)
    add("--replicates", type=count, help="bootstrap draws for intervals (1000 with --report)")
    add("--save_features", help="write the arrays here (.npz); several targets: one file each")
    add("--save_scores", help="write scores and uncertainties here (.csv, .npz, .parquet)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run resumes there")
    add("--json", help="write every number to this file")
    add("--report", help="write an HTML page, JSON, text and pictures into this folder")


def add_risk_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a target risk."""
    add = parser.add_argument
    add("--target_risk", type=share, help="find the cut-off that keeps this risk among accepted")
    add("--score_threshold", type=float, help="of that risk, instead of the one for --fmr")
    add("--confidence", type=share, default=0.95, help="of that promise and of intervals (0.95)")
    add("--risk", default="fnmr", choices=RISKS, help="which risk (fnmr)")
    add(
        "--unit",
        choices=get_args(Unit),
        help="what is drawn, in the bootstrap and for the risk: the best one that the set knows",
    )


@dataclass(frozen=True, kw_only=True)
class ComparisonFlags:
    """Which methods are compared on what; see `evaluation.comparison`."""

    target: Sequence[str]
    methods: Sequence[str]
    features: Sequence[str]
    backbone_name: str | None
    backbone_weights: str | None
    precision: Precision
    protocol: str
    fmr: Sequence[float]
    against: str | None
    replicates: int
    confidence: float
    unit: Unit | None
    seed: int
    batch_size: int
    parts: str | None
    out: str | None

    def options(self) -> ComparisonOptions:
        """How they are compared; ValueError for an unknown protocol."""
        from evaluation.comparison import ComparisonOptions

        return ComparisonOptions(
            protocol=find_protocol(self.protocol),
            fmr=tuple(self.fmr),
            against=self.against,
            replicates=self.replicates,
            confidence=self.confidence,
            unit=self.unit,
            seed=self.seed,
            batch_size=self.batch_size,
            parts=self.parts,
        )


def add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ComparisonFlags` and `SetFlags`."""
    add = parser.add_argument
    add("--target", nargs="+", default=[], help="sets: lfw faces:PATH pairs:FILE ijb:FOLDER ...")
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="[NAME=]METHOD",
        help="run folders of network.py, packed .pt, .onnx, files with a score per image (.csv, "
        ".npz), or estimators such as embedding_norm or mc_dropout:form=closed_form",
    )
    add(
        "--features",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="instead of methods: stored arrays or scores of the same comparisons",
    )
    add_backbone_flags(parser)
    add("--protocol", default="iso29794", help=f"one of: {', '.join(PROTOCOLS)} (iso29794)")
    add("--fmr", nargs="+", type=share, default=[1e-3], help="FMR targets (1e-3)")
    add("--against", help="method that all others are compared with (the best one)")
    add("--replicates", type=count, default=1000, help="bootstrap draws (1000)")
    add("--confidence", type=share, default=0.95, help="of the intervals (0.95)")
    add("--unit", choices=get_args(Unit), help="what is drawn (the best known)")
    add_set_flags(parser)
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run resumes there")
    add("--out", help="write table (txt, csv, md, tex, json) and figures into this folder")


@dataclass(frozen=True, kw_only=True)
class CalibrationFlags:
    """What is calibrated on what; see `evaluation.calibration_run`."""

    target: str | None
    features: str | None
    model: str | None
    backbone_name: str | None
    batch_size: int
    flip: bool
    out: str | None
    fmr: float | None
    score_threshold: float | None
    target_risk: float | None
    confidence: float
    risk: Risk
    unit: Unit | None
    seed: int

    def destination(self) -> Path:
        """File of the calibration; ValueError where none follows from the flags."""
        from evaluation.confidence.calibration import FILE_NAME
        from evaluation.open_model import kind_of

        if bool(self.features) == bool(self.model or self.backbone_name):
            raise ValueError(f"give one of {NO_MODEL}")
        if self.out:
            return Path(self.out)
        if not self.model or kind_of(self.model)[0] != "run":
            raise ValueError("give --out FILE.json: there is no run to put the calibration beside")
        return Path(self.model) / FILE_NAME

    def options(self) -> CalibrationOptions:
        """How it is calibrated."""
        from evaluation.calibration_run import CalibrationOptions

        if self.fmr is not None and self.score_threshold is not None:
            raise ValueError(
                "--fmr and --score_threshold are two ways to set one threshold: give one"
            )
        return CalibrationOptions(
            fmr=self.fmr or 1e-3,
            score_threshold=self.score_threshold,
            target_risk=self.target_risk,
            risk=self.risk,
            confidence=self.confidence,
            unit=self.unit,
            seed=self.seed,
            batch_size=self.batch_size,
            flip=self.flip,
        )


def add_calibration_flags(parser: argparse.ArgumentParser, cap: int) -> None:
    """Add the flags of `CalibrationFlags`, `ModelFlags` and `SetFlags`."""
    add_model_flags(parser)
    add = parser.add_argument
    add("--target", help="the set: lfw, synthetic:..., faces:PATH")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--features", help="stored arrays or scores (.npz, .csv, .parquet), not a model and a set")
    add("--out", help="file to write (RUN/calibration.json)")
    add("--fmr", type=share, help="FMR that the score threshold is set for (1e-3)")
    add_risk_flags(parser)
    add_set_flags(parser)
    parser.set_defaults(cap=cap)


def refuse_with_features(args: Mapping[str, object]) -> None:
    """Stored files need no model and no images: say so instead of leaving flags unread."""
    names = ("target", "model", "config_file", "set", "backbone_name", "flip", "parts")
    unread = [name for name in (*names, "save_features") if args.get(name)]
    if args.get("estimator", "trained_head") != "trained_head":
        unread.append("estimator")
    if args["features"] and unread:
        raise ValueError(
            f"--features {args['features']} has its own pairs and uncertainties; --{unread[0]} "
            "does not go with it"
        )


def split_targets(text: str) -> list[str]:
    """Split `lfw,synthetic:pairs=600,seed=1,cfp_fp` into three targets."""
    targets: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if targets and "synthetic:" in targets[-1] and "=" in part and ":" not in part:
            targets[-1] += f",{part}"
        else:
            targets.append(part)
    return targets


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--sigma_sizes {text}: expected whole numbers such as 8,1") from None
