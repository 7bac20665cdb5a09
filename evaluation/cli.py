"""What the evaluation scripts share: their flags, the run over all sets, and one-line errors.

A script builds an estimator from its own flags and hands it to `run`; everything else is here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.embed import embed
from evaluation.features import Features
from evaluation.pipeline import Result, evaluate
from evaluation.protocols import PROTOCOLS, find_protocol
from evaluation.report import facts, text_report

if TYPE_CHECKING:
    from data.verification import VerificationSet
    from evaluation.estimate import Estimator
    from utils.config import Verification


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every evaluation script.

    `--dataset_path`, `--target`, `--batch_size`, `--flip` and `--protocol` default to None, so that
    `fill_defaults` can tell what the user left open.
    """
    add = parser.add_argument
    add("--dataset_path", help="folder with the .bin files")
    add("--target", help="names of sets, comma-separated: lfw,cfp_fp or synthetic:...")
    add("--batch_size", type=int, help="images per forward pass (64)")
    add("--flip", action=argparse.BooleanOptionalAction, help="average with the mirror image")
    add("--protocol", help=f"one of: {', '.join(PROTOCOLS)} (original)")
    add("--features", help="evaluate stored arrays (mu, sigma_sq, issame) instead of a model")
    add("--sigma_sizes", help="columns of each uncertainty in sigma_sq, such as 8,1")
    add("--save_features", help="write the arrays here (.npz); several targets: one file each")
    add("--json", help="write every number to this file")
    add("--report", help="write text, curve and contact sheet into this folder")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")


def fill_defaults(args: argparse.Namespace, verification: Verification | None = None) -> None:
    """Fill the flags that were left open, from a run's config where there is one.

    A target named in the config as `synthetic:...` is kept whole; targets on the command line are
    separated by commas, except for the commas inside a `synthetic:...` target.
    """
    if args.target is None:
        args.target = list(verification.targets) if verification else []
    else:
        args.target = split_targets(args.target)
    fallback = {"dataset_path": None, "batch_size": 64, "flip": False, "protocol": "original"}
    for name, value in fallback.items():
        if getattr(args, name) is None:
            setattr(args, name, getattr(verification, name) if verification else value)


def split_targets(text: str) -> list[str]:
    """Split `lfw,synthetic:pairs=600,seed=1,cfp_fp` into three targets."""
    targets: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if targets and targets[-1].startswith("synthetic:") and "=" in part:
            targets[-1] += f",{part}"
        else:
            targets.append(part)
    return targets


def run(estimator: Estimator | None, args: argparse.Namespace) -> int:
    """Evaluate every target, print each block, and write what the flags ask for.

    Args:
        estimator: what turns images into embeddings and uncertainties; None with `--features`.
        args: flags of `add_common_arguments`, filled by `fill_defaults`.

    Returns:
        The exit code, 0.

    Raises:
        ValueError: anything the user can mend (no target, a file that is not there, NaN, ...).
    """
    chosen = find_protocol(args.protocol)
    if args.report and Path(args.report).is_file():
        raise ValueError(f"--report {args.report}: names a folder, but a file is there")
    if args.features and args.target:
        raise ValueError("--features has its own pairs; --target does not go with it")
    sizes = _sizes(args.sigma_sizes)
    results: list[Result] = []
    for name, features, images in _inputs(estimator, args):
        result = evaluate(features, protocol=chosen, sigma_sizes=sizes, name=name)
        results.append(result)
        sys.stdout.write(f"---{name}\n{result.text}{facts(result)}")
        sys.stdout.flush()
        for line in result.warnings:
            sys.stderr.write(f"warning: {name}: {line}\n")
        if args.report:
            _write_report(Path(args.report), result, images)
    if args.json:
        _write(Path(args.json), json.dumps({"results": [r.to_dict() for r in results]}, indent=1))
    return 0


def guarded(body: Callable[[], int]) -> int:
    """Run a script's body; a user's mistake becomes one line on stderr and exit code 2."""
    try:
        return body()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2


def _inputs(
    estimator: Estimator | None, args: argparse.Namespace
) -> Iterator[tuple[str, Features, VerificationSet | None]]:
    if args.features:
        yield Path(args.features).stem, Features.load(args.features), None
        return
    if not args.target:
        raise ValueError("nothing to evaluate: give --target NAME[,NAME] or --features FILE.npz")
    assert estimator is not None
    from data.verification import open_verification

    for target in args.target:
        images = open_verification(target, args.dataset_path)
        features = embed(estimator, images, args.batch_size, flip=args.flip)
        if args.save_features:
            features.save(_one_of_many(args.save_features, images.name, len(args.target)))
        yield images.name, features, images


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--sigma_sizes {text}: expected whole numbers such as 8,1") from None


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _one_of_many(path: str, name: str, count: int) -> Path:
    file = Path(path)
    return file if count == 1 else file.with_name(f"{file.stem}-{_file_name(name)}.npz")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def _write_report(folder: Path, result: Result, images: VerificationSet | None) -> None:
    from evaluation.report_figures import contact_sheet, edc_figure

    name = _file_name(result.name)
    _write(folder / f"{name}.txt", text_report(result))
    written = [folder / f"{name}.txt", edc_figure(result, folder / f"{name}-edc.png")]
    if images is not None:
        uncertainty = result.blocks[0].uncertainty
        written.append(
            contact_sheet(images, uncertainty, folder / f"{name}-faces.png", title=result.name)
        )
    for path in written:
        sys.stdout.write(f"wrote {path}\n")
