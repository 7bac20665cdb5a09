"""What the evaluation scripts share: their flags, and the run over all sets.

A script builds an estimator from its own flags and hands it to `run`; everything else is here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from evaluation.confidence.risk_control import Risk
from evaluation.evaluated import evaluate_set
from evaluation.inputs import Scored, file_name, inputs, one_of_many
from evaluation.metrics.comparisons import Unit
from evaluation.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from evaluation.sets.ijb import FUSIONS, Score
from evaluation.sets.score_files import write_scores
from report.files import Origin, write_reports
from utils.cli import count, count_or_all, share
from utils.distributed import ALONE, World
from utils.files import write_text

if TYPE_CHECKING:
    from estimators.base import Estimator
    from evaluation.open_model import LoadedModel
    from utils.config import Verification


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every evaluation script.

    `--dataset_path`, `--target`, `--batch_size`, `--flip` and `--protocol` default to None, so that
    `fill_defaults` can tell what the user left open.
    """
    add = parser.add_argument
    add("--dataset_path", help="folder with the .bin files")
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
    add_set_arguments(parser)
    _add_risk_arguments(parser)
    _add_output_arguments(parser)
    parser.set_defaults(about="")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a model, as `open_model` and `open_named_model` read them."""
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
    add_backbone_arguments(parser)


def open_named_model(args: argparse.Namespace) -> LoadedModel:
    """Open the model that the flags of `add_model_arguments` name, to evaluate it.

    Raises:
        ValueError: no model is named, or one that cannot be opened or has no embeddings.
    """
    from evaluation.open_model import open_model

    if not (args.model or args.backbone_name):
        raise ValueError(
            "give --model MODEL (a run folder, a packed or an exported model), --features FILE, or "
            "--backbone_name with --backbone_weights and a training-free --estimator"
        )
    model = open_model(
        args.model or args.estimator,
        device=args.device,
        precision=args.precision,
        backbone_name=args.backbone_name,
        backbone_weights=args.backbone_weights,
        checkpoint=args.checkpoint,
    )
    return (model.with_estimator(args.estimator) if args.model else model).require_embeddings()


def add_backbone_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a backbone where no run does, and say where it runs."""
    add = parser.add_argument
    add("--backbone_name", help="iresnet18 ... iresnet200, mobilefacenet, mbf, or name:option=...")
    add("--backbone_weights", help="its file; with a run: where the file is now")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")


def add_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which pairs of labelled faces are compared."""
    add = parser.add_argument
    add(
        "--non_mated",
        type=count_or_all,
        default=1_000_000,
        help="faces: non-mated pairs to draw, or all (1000000)",
    )
    add("--cap", type=int, help="faces: mated pairs per identity at most")
    add("--seed", type=int, default=0, help="of every draw: pairs, bootstrap, dropout masks (0)")


def fill_defaults(args: argparse.Namespace, verification: Verification | None = None) -> None:
    """Fill the flags that were left open, from a run's config where there is one.

    A target named in the config as `synthetic:...` is kept whole; targets on the command line are
    separated by commas, except for the commas inside a `synthetic:...` target.
    """
    if args.target is None:
        args.target = list(verification.targets) if verification else []
    else:
        args.target = split_targets(args.target)
    named = args.protocol is not None
    fallback = {"dataset_path": None, "batch_size": 64, "flip": False, "protocol": "original"}
    for name, value in fallback.items():
        if getattr(args, name) is None:
            setattr(args, name, getattr(verification, name) if verification else value)
    args.protocol_named = named


def split_targets(text: str) -> list[str]:
    """Split `lfw,synthetic:pairs=600,seed=1,cfp_fp` into three targets."""
    targets: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if targets and "synthetic:" in targets[-1] and "=" in part and ":" not in part:
            targets[-1] += f",{part}"
        else:
            targets.append(part)
    return targets


def run(
    estimator: Estimator | None,
    args: argparse.Namespace,
    *,
    method: str = "",
    config: dict[str, Any] | None = None,
    files: Sequence[str | Path] = (),
    world: World = ALONE,
) -> int:
    """Evaluate every target, print each, and write what the flags ask for.

    Args:
        estimator: what turns images into embeddings and uncertainties; None with `--features`.
        args: flags of `add_common_arguments`, filled by `fill_defaults`.
        method: what reports call the estimator; its own name by default.
        config: settings of the run, for the report.
        files: weights behind the estimator, for the report.
        world: the ranks that embed; the main one does the rest.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: anything the user can mend (no target, a file that is not there, NaN, ...).
    """
    chosen = _protocols(args.protocol)
    _check_files(args)
    if args.score == "mls" and not getattr(estimator, "gives_variances", False):
        raise ValueError(
            "--score mls needs a variance of each image: a head trained with the loss fast_mls or "
            "mls, and its images, not stored files"
        )
    if args.features:
        _refuse_beside_features(args)
    method = method or (Path(args.features).name if estimator is None else estimator.name)
    origin = Origin(config or {}, tuple(map(Path, files)))
    results = []
    for scored in inputs(estimator, args, world):
        protocols = chosen
        if scored.features is None and not args.protocol_named:
            protocols = (PROTOCOLS["iso29794"],)
        evaluated = evaluate_set(scored, protocols, args, method)
        results.append(evaluated.to_dict())
        sys.stdout.write(evaluated.text)
        sys.stdout.flush()
        for line in evaluated.warnings:
            sys.stderr.write(f"warning: {scored.name}: {line}\n")
        if args.save_scores:
            _save_scores(scored, args)
        if args.report:
            for path in write_reports(evaluated, args, origin):
                sys.stdout.write(f"wrote {path}\n")
    if args.json and world.is_main:
        path = Path(args.json)
        write_text(path, json.dumps({"results": results}, indent=1) + "\n")
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _add_risk_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--target_risk", type=share, help="find the cut-off that keeps this risk among accepted")
    add("--score_threshold", type=float, help="of that risk, instead of the one for --fmr")
    add("--confidence", type=share, default=0.95, help="of that promise and of intervals (0.95)")
    add("--risk", default="fnmr", choices=get_args(Risk), help="which risk (fnmr)")
    add(
        "--replicates",
        type=count,
        help="bootstrap draws for intervals (1000 with --report, else none)",
    )
    add(
        "--unit",
        choices=get_args(Unit),
        help="what is drawn, in the bootstrap and for the risk: the best one that the set knows",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--save_features", help="write the arrays here (.npz); several targets: one file each")
    add("--save_scores", help="write scores and uncertainties here (.csv, .npz, .parquet)")
    add("--parts", help="keep finished parts of the embedding here; a stopped run goes on")
    add("--json", help="write every number to this file")
    add("--report", help="write an HTML page, JSON, text and pictures into this folder")


def _refuse_beside_features(args: argparse.Namespace) -> None:
    """Stored files need no model and no images: say so instead of leaving flags unread."""
    unread = ("target", "model", "config_file", "set", "backbone_name", "flip", "parts")
    given = [name for name in (*unread, "save_features") if getattr(args, name, None)]
    if getattr(args, "estimator", "trained_head") != "trained_head":
        given.append("estimator")
    if given:
        raise ValueError(
            f"--features {args.features} has its own pairs and uncertainties; --{given[0]} does "
            "not go with it"
        )


def _check_files(args: argparse.Namespace) -> None:
    """Refuse, before any work, files that could not be written after it."""
    if args.report and Path(args.report).is_file():
        raise ValueError(f"--report {args.report}: names a folder, but a file is there")
    if args.save_features and Path(args.save_features).suffix != ".npz":
        raise ValueError(f"--save_features {args.save_features}: must end in .npz")
    if args.save_scores and Path(args.save_scores).suffix not in (".csv", ".npz", ".parquet"):
        raise ValueError(f"--save_scores {args.save_scores}: must end in .csv, .npz or .parquet")


def _protocols(text: str) -> tuple[Protocol, ...]:
    if text == "all":
        return tuple(PROTOCOLS.values())
    return tuple(find_protocol(name.strip()) for name in text.split(","))


def _save_scores(scored: Scored, args: argparse.Namespace) -> None:
    path = one_of_many(args.save_scores, scored.name, len(args.target) or 1)
    for label, comparisons in scored.blocks:
        file = path.with_name(f"{path.stem}-{file_name(label)}{path.suffix}") if label else path
        write_scores(file, comparisons)
        sys.stdout.write(f"wrote {file}\n")
