"""Which threshold to set: fit what a head's uncertainties mean, and write it beside the head.

python evaluation/calibrate.py --model_dir runs/NAME --dataset_path DIR --target lfw
python evaluation/calibrate.py --features FILE.npz --out calibration.json
python evaluation/calibrate.py --features SCORES.csv --out calibration.json --target_risk 0.005

Prints what each cut-off would refuse, the calibration error on people that the map was not fitted
on and, with `--target_risk`, the cut-off that keeps that risk. Embedding takes seconds per thousand
images, the rest far less.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import cli
from evaluation.confidence.calibration import FILE_NAME, Calibration
from evaluation.confidence.decision import Decision
from evaluation.confidence.intervals import clopper_pearson
from evaluation.confidence.reliability import (
    Cutoff,
    Reliability,
    held_out_reliability,
    operating_table,
)
from evaluation.confidence.risk_control import RISKS, control_risk
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import few_false_matches
from evaluation.open_model import kind_of
from evaluation.pipeline import require_pairs
from evaluation.sets.stored import load_comparisons
from utils.cli import PARTS_HINT, Parser, run_on_ranks, share
from utils.distributed import World

if TYPE_CHECKING:
    pass

CAP = 20  # mated pairs of one person


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate a run, stored features or scores; 0, or 2 when there is nothing to calibrate on."""
    parser = Parser(
        description="Fit what a head's uncertainties mean.",
        epilog=f"--cap is {CAP} here, so that no person with many images decides; 0 takes all.",
    )
    add = parser.add_argument
    add("--dataset_path", help="folder with the .bin files")
    add("--target", help="the set: lfw, synthetic:..., faces:PATH")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--flip", action="store_true", help="average with the mirror image")
    add("--features", help="stored arrays or scores (.npz, .csv, .parquet), not a model and a set")
    add("--out", help=f"file to write (RUN/{FILE_NAME})")
    add("--fmr", type=share, help="FMR that the score threshold is set for (1e-3)")
    add("--score_threshold", type=float, help="the score threshold itself, instead")
    add("--target_risk", type=share, help="find the cut-off that keeps this risk among accepted")
    add("--confidence", type=share, default=0.95, help="of that promise and of intervals (0.95)")
    add("--risk", default="fnmr", choices=RISKS, help="which risk (fnmr)")
    add("--unit", choices=["identity", "image", "pair"], help="see docs/calibrate.md")
    cli.add_model_arguments(parser)
    cli.add_set_arguments(parser)
    parser.set_defaults(cap=CAP)
    args = parser.parse_args(argv)
    return run_on_ranks(
        "cpu" if args.features else args.device,
        lambda world, device: _body(args, world, device),
        resume_hint=PARTS_HINT,
    )


def _body(args: argparse.Namespace, world: World, device: str) -> int:
    args.device = device
    out = _destination(args)
    if args.fmr is not None and args.score_threshold is not None:
        raise ValueError("--fmr and --score_threshold are two ways to set one threshold: give one")
    if args.fmr is None and args.score_threshold is None:
        args.fmr = 1e-3
    found = _load(args, world)
    return 0 if found is None else _calibrate(args, out, *found)


def _calibrate(args: argparse.Namespace, out: Path, comparisons: Comparisons, method: str) -> int:
    require_pairs(comparisons.name, comparisons.mated)
    goal = {"fmr_target": args.fmr, "score_threshold": args.score_threshold}
    fitted = Calibration.fit(comparisons, **goal, method=method)
    checked = held_out_reliability(
        comparisons,
        score_threshold=fitted.score_threshold,
        confidence=args.confidence,
        seed=args.seed,
    )
    rows = operating_table(comparisons, fitted, confidence=args.confidence)
    sys.stdout.write(_report(comparisons, fitted, rows, checked, args.confidence))
    _warn(comparisons, args.fmr)
    if args.target_risk is not None:
        found = control_risk(
            comparisons,
            **goal,
            target_risk=args.target_risk,
            risk=args.risk,
            confidence=args.confidence,
            unit=args.unit,
            seed=args.seed,
        )
        decision = Decision.from_risk_control(found, fitted)
        fitted = replace(fitted, decision=decision)
        sys.stdout.write(f"\n{found.describe()}\nstored for scorers: {decision.rule}\n")
    fitted.save(out)
    sys.stdout.write(f"\nwrote {out}\n")
    return 0


def _destination(args: argparse.Namespace) -> Path:
    if sum(map(bool, (args.model, args.features, args.backbone_name))) == 0 or (
        args.features and (args.model or args.backbone_name)
    ):
        raise ValueError(
            "give one of --model MODEL (such as a run folder), --features FILE, or --backbone_name "
            "with --backbone_weights and a training-free --estimator"
        )
    if args.out:
        return Path(args.out)
    if not args.model or kind_of(args.model)[0] != "run":
        raise ValueError("give --out FILE.json: there is no run to put the calibration beside")
    return Path(args.model) / FILE_NAME


def _load(args: argparse.Namespace, world: World) -> tuple[Comparisons, str] | None:
    """Comparisons, and the name of what gave their uncertainties; None on ranks that only embed."""
    drawn = {"non_mated": args.non_mated, "cap": args.cap or None, "seed": args.seed}
    if args.features:
        if not world.is_main:
            return None
        found = load_comparisons(args.features, **drawn)
        if len(found) > 1:
            labels = ", ".join(label for label, _ in found)
            raise ValueError(
                f"{args.features}: holds several uncertainties ({labels}); calibrate one at a time"
            )
        return found[0][1], Path(args.features).name
    if not args.target:
        raise ValueError("nothing to calibrate on: give --target NAME, such as lfw")
    from evaluation.embed import embed_images
    from evaluation.sets.open_set import open_set

    model = cli.open_named_model(args)
    chosen = open_set(args.target, args.dataset_path, **drawn)
    mu, sigma_sq = embed_images(
        model.estimator,
        chosen.images,
        args.batch_size,
        name=chosen.name,
        flip=args.flip,
        world=world,
    )
    if not world.is_main:
        return None
    return chosen.comparisons(mu, sigma_sq), model.provenance.method


def _report(
    comparisons: Comparisons,
    fitted: Calibration,
    rows: Sequence[Cutoff],
    checked: Reliability,
    confidence: float,
) -> str:
    goal = "as given" if fitted.fmr_target is None else f"for FMR {fitted.fmr_target:g}"
    low, high = clopper_pearson(*fitted.false_non_matches, confidence)
    return (
        f"{fitted.name}: {fitted.false_non_matches.total} mated and "
        f"{comparisons.non_mated_total} non-mated comparisons; uncertainties of {fitted.method}\n"
        f"score threshold {fitted.score_threshold:.6g}, {goal}: FMR {fitted.false_matches}, "
        f"FNMR {fitted.false_non_matches} [{low:.4g}, {high:.4g}]\n\n"
        f"{_table(rows, confidence)}\n"
        "An image scores 100 when it is surer than all of the set, 0 when it is the least sure.\n"
        f"Intervals take comparisons as independent; {_people(comparisons)}.\n\n"
        f"calibration error on people that the map was not fitted on: "
        f"{checked.calibration_error:.4f} (a perfect map would show {checked.chance:.4f} by "
        "chance)\n"
    )


def _people(comparisons: Comparisons) -> str:
    if comparisons.best_unit == "pair":
        return "whether they share people is not known here"
    return "where they share people, the truth is less certain than that"


def _table(rows: Sequence[Cutoff], confidence: float) -> str:
    """Build the operating table, one line per cut-off."""
    head = (
        f"{'accept up to':>14} {'percentile':>10} {'quality':>7} {'accepted':>8}  "
        f"{'FNMR of accepted':<26} {100 * confidence:g} % interval"
    )
    lines = [head]
    for row in rows:
        low, high = row.interval
        lines.append(
            f"{row.uncertainty:>14.6g} {row.percentile:>10.1f} {row.iso_quality:>7} "
            f"{row.accepted:>8.1%}  {row.misses!s:<26} [{low:.4g}, {high:.4g}]"
        )
    return "\n".join(lines) + "\n"


def _warn(comparisons: Comparisons, fmr: float | None) -> None:
    line = "" if fmr is None else few_false_matches(fmr, comparisons.non_mated_total)
    if line:
        sys.stderr.write(f"warning: {comparisons.name}: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
