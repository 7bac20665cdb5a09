"""Flags that the evaluation scripts share, and what they say as frozen dataclasses.

A script adds the groups it needs, parses, and reads each dataclass of options with `read`. Nothing
here loads PyTorch, a picture library or a file before a model or a set is opened.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from data.labelled_pairs import CAP
from evaluation.metrics.comparisons import Unit
from evaluation.metrics.protocols import PROTOCOLS, find_protocol
from evaluation.sets.templates import FUSIONS, Score
from utils.cli import count, count_or_all, share
from utils.onnx_runtime import is_onnx

if TYPE_CHECKING:
    from evaluation.open_model import LoadedModel
    from evaluation.run import EvaluationOptions
    from evaluation.sets.labelled import NonMated
    from evaluation.sets.open_set import EvaluationSet
    from evaluation.sets.stored import StoredSet
    from utils.config import Precision

REPLICATES = 1000  # of a report
RISKS = ("fnmr", "fmr", "total")
NO_MODEL = (
    "--model MODEL (a run folder, a packed or an exported model), --features FILE, or "
    "--backbone_name with --backbone_weights and a training-free --estimator (an .onnx file needs "
    "no --backbone_name)"
)

Options = TypeVar("Options")


def read(kind: type[Options], args: argparse.Namespace, **others: object) -> Options:
    """Return a dataclass from the flags called as its fields, and from `others`."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in vars(args).items() if name in names}
    return kind(**{**values, **others})


@dataclass(frozen=True, kw_only=True)
class SetFlags:
    """Which set is opened, and which pairs of labelled faces are compared; see `open_set`."""

    dataset_path: str | None
    non_mated: NonMated
    cap: int
    seed: int

    def open(self, target: str) -> EvaluationSet:
        """Open a set; ValueError names it."""
        from evaluation.sets.open_set import open_set

        return open_set(
            target,
            self.dataset_path,
            non_mated=self.non_mated,
            cap=self.cap,
            seed=self.seed,
        )

    def open_stored(self, path: str) -> StoredSet:
        """Open a stored file or folder."""
        from evaluation.sets.stored import open_stored

        return open_stored(path, non_mated=self.non_mated, cap=self.cap, seed=self.seed)


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
    add("--cap", type=count, default=CAP, help=f"faces: mated pairs of one person; 0: all ({CAP})")
    add("--seed", type=int, default=0, help="of every draw: pairs, bootstrap, dropout masks (0)")


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model is evaluated, and where it runs; see `open_model`."""

    model: str | None
    estimator: str
    backbone_name: str | None
    backbone_weights: str | None
    precision: Precision
    checkpoint: str = "best"
    config_file: str | None = None
    set: Sequence[str] = ()

    @property
    def backbone(self) -> str | None:
        """What names a backbone: its name, or a file that needs none."""
        own = self.backbone_weights if is_onnx(self.backbone_weights) else None
        return self.backbone_name or own

    def open(self, device: str) -> LoadedModel:
        """Open the model, to evaluate it; ValueError says what is missing."""
        from evaluation.open_model import from_run, open_model

        if self.config_file:
            from models.run import untrained_run
            from utils.config import load_config, override

            run = untrained_run(
                override(load_config(self.config_file), self.set),
                device=device,
                precision=self.precision,
                backbone_weights=self.backbone_weights,
            )
            return from_run(run, calibrated=False).with_estimator(self.estimator)
        if self.set:
            raise ValueError("--set overrides a --config_file; a --model has its own config")
        if not (self.model or self.backbone):
            raise ValueError(f"give {NO_MODEL}")
        model = open_model(
            self.model or self.estimator,
            device=device,
            precision=self.precision,
            backbone_name=self.backbone_name,
            backbone_weights=self.backbone_weights,
            checkpoint=self.checkpoint,
            calibrated=False,
        )
        return (model.with_estimator(self.estimator) if self.model else model).require_embeddings()

    def calibration_file(self, out: str | None, features: str | None) -> Path:
        """Where the calibration of the model, or of a stored file, is written: JSON, or in a `.pt`.

        Raises:
            ValueError: nothing to calibrate, or a place that cannot hold the calibration.
        """
        from evaluation.confidence.calibration import FILE_NAME
        from evaluation.open_model import kind_of

        if bool(features) == bool(self.model or self.backbone):
            raise ValueError(f"give one of {NO_MODEL}")
        kind = kind_of(self.model)[0] if self.model else ""
        if out and Path(out).suffix == ".onnx":
            raise ValueError(
                f"--out {out}: the maps of an exported model are part of its network; give --out "
                "FILE.json, which score_images.py --calibration takes, or export again"
            )
        is_own = kind == "packed" and self.estimator == "trained_head"
        if out and Path(out).suffix == ".pt" and not is_own:
            raise ValueError(f"--out {out}: only a packed --model is written anew: give FILE.json")
        if out:
            return Path(out)
        if kind != "run":
            packed = " or, to write the model anew, FILE.pt" if kind == "packed" else ""
            raise ValueError(
                f"give --out FILE.json{packed}: there is no run to put the calibration beside"
            )
        return Path(self.model or "") / FILE_NAME


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
    add(
        "--backbone_name",
        help="iresnet18 ... iresnet200, mobilefacenet, mbf, onnx, name:option=...",
    )
    add("--backbone_weights", help="its file; with a run: where the file is now")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Files that an evaluation writes; None for none."""

    save_features: str | None
    save_scores: str | None
    json: str | None
    report: str | None
    why: bool

    def check(self) -> None:
        """Refuse, before any work, files that could not be written after it."""
        if self.report and Path(self.report).is_file():
            raise ValueError(f"--report {self.report}: names a folder, but a file is there")
        if self.why and not self.report:
            raise ValueError("--why goes with --report, whose page shows faces")
        if self.save_features and Path(self.save_features).suffix != ".npz":
            raise ValueError(f"--save_features {self.save_features}: must end in .npz")
        if self.save_scores and Path(self.save_scores).suffix not in (".csv", ".npz", ".parquet"):
            raise ValueError(
                f"--save_scores {self.save_scores}: must end in .csv, .npz or .parquet"
            )

    @property
    def need_curves(self) -> bool:
        """Whether a file needs more than the original's table."""
        return bool(self.save_scores or self.json or self.report)


def read_evaluation(args: argparse.Namespace) -> EvaluationOptions:
    """Return the options of `add_evaluation_flags`; ValueError for one that does not exist."""
    from evaluation.run import EvaluationOptions

    names = [name.strip() for name in args.protocol.split(",")] if args.protocol else []
    replicates = REPLICATES if args.replicates is None and args.report else args.replicates
    return read(
        EvaluationOptions,
        args,
        protocols=tuple(map(find_protocol, PROTOCOLS if names == ["all"] else names)),
        sigma_sizes=_sizes(args.sigma_sizes),
        replicates=replicates,
        table_only=not (read(Outputs, args).need_curves or replicates or args.target_risk),
    )


def add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `EvaluationOptions`, `Outputs` and `SetFlags`."""
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
    add(
        "--replicates",
        type=count,
        help="bootstrap draws for intervals (200 where people are known, but none beside the "
        "original's table; 1000 with --report; 0: none)",
    )
    add(
        "--groups",
        metavar="FILE.csv",
        help="compare groups at the one threshold: columns path or person, and a grouping in each "
        "further one",
    )
    add("--save_features", help="write the arrays here (.npz); several targets: one file each")
    add("--save_scores", help="write scores and uncertainties here (.csv, .npz, .parquet)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run resumes there")
    add("--json", help="write every number to this file")
    add("--report", help="write an HTML page, JSON, text and pictures into this folder")
    add("--why", action="store_true", help="on the page, show what raises each face's uncertainty")


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


def add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ComparisonOptions` and `SetFlags`."""
    add = parser.add_argument
    add("--target", nargs="+", default=[], help="sets: lfw faces:PATH pairs:FILE ijb:FOLDER ...")
    add(
        "--methods",
        "--model",
        "--model_dir",
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
    add_match_flags(parser, "compare P(same person) by each method too")


def add_calibration_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `CalibrationOptions`, `ModelFlags` and `SetFlags`."""
    add_model_flags(parser)
    add = parser.add_argument
    add("--target", help="the set: lfw, synthetic:..., faces:PATH")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--features", help="stored arrays or scores (.npz, .csv, .parquet), not a model and a set")
    add(
        "--out",
        help="file to write (RUN/calibration.json); FILE.pt: a packed --model with the new one",
    )
    add("--fmr", type=share, help="FMR that the score threshold is set for (1e-3)")
    add_match_flags(parser, "fit P(same person) of two faces too")
    add_risk_flags(parser)
    add_set_flags(parser)


def add_match_flags(parser: argparse.ArgumentParser, match: str) -> None:
    """Add the flags of P(same person)."""
    add, of = parser.add_argument, ("uncertainty", "match")
    add("--of", choices=of, default=of[0], help=f"match: {match} (uncertainty)")
    add("--prior", type=share, default=0.5, help="match: P(same person) before looking (0.5)")


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
