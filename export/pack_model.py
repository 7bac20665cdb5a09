"""One file with everything: pack a run's backbone, head and calibration, and say whence they are.

python export/pack_model.py --model_dir runs/NAME --out model.pt --license "research only" \
    --source "arcface_torch model zoo, R50 Glint360K" --sha256 HEX --pairs lfw.bin

Checks the backbone's file against `--sha256` and its colour order on `--pairs`, and that what was
written gives the run's numbers. The scorer and the export read the file (docs/ship.md).
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch, estimator_names
from evaluation.confidence.calibration import FILE_NAME, Calibration
from export.colour_order import colour_check, require_colour_order, some_images
from utils.cli import Parser, run_command
from utils.files import atomic_path

if TYPE_CHECKING:
    from models.packed import About
    from models.run import Run

FACES = 64  # of the pairs or rendered, to compare the written file with the run
LARGEST_DIFFERENCE = 1e-3  # of any number of an embedding of length 1


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a run; 0, or 2 when something is wrong with it, and nothing is written."""
    parser = Parser(description="Pack a trained run into one model file.")
    add = parser.add_argument
    add("--model_dir", required=True, help="folder of a run of network.py")
    add("--out", required=True, help="the model file to write, such as model.pt")
    add(
        "--license",
        required=True,
        help='of the weights, as far as you know; "unknown, research only" is an answer',
    )
    add("--source", default="", help="where the backbone's weights come from: a URL, or words")
    add("--sha256", type=_hex, help="published checksum of the backbone's file: it has to fit")
    add("--label", default="", help="a remark that every output shows")
    add("--pairs", help="check the colour order: lfw.bin, faces:FOLDER, synthetic:pairs=400")
    add("--keep_color", action="store_true", help="pack even if the other colour order is better")
    add("--calibration", help=f"file of calibrate.py (RUN/{FILE_NAME} where it is there)")
    add("--half", action="store_true", help="float16 weights: half the size, checked")
    add("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    add("--created", type=_date, help="date to write into the file (today)")
    add("--backbone_weights", help="the backbone's file, where it has moved")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from models.packed import About, code_version
    from models.run import load_run

    out = Path(args.out)
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file, such as {out / 'model.pt'}")
    if not args.license.strip():
        raise ValueError('--license is empty; "unknown, research only" is an answer')
    calibration = _calibration(args)
    run = load_run(
        args.model_dir,
        checkpoint=args.checkpoint,
        device=args.device,
        backbone_weights=args.backbone_weights,
    )
    _compare_checksum(run, args.sha256)
    about = About(
        name=run.config.name,
        license=args.license.strip(),
        source=args.source.strip(),
        sha256=run.sha256,
        label=args.label.strip(),
        colour_check=_colours(run, args),
        created=args.created or datetime.date.today().isoformat(),
        version=code_version(),
    )
    _write(out, run, about, calibration, args)
    sys.stdout.write(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB\n")
    return 0


def _write(
    out: Path,
    run: Run,
    about: About,
    calibration: dict[str, Any] | None,
    args: argparse.Namespace,
) -> None:
    """Write a file beside it, read that back, compare it with the run, and only then rename it."""
    from estimators.trained_head import TrainedHead
    from models.packed import load_packed, save_packed

    with atomic_path(out) as unchecked:
        save_packed(unchecked, run, about, calibration, half=args.half)
        read = load_packed(unchecked, str(run.frozen.device))
        images = some_images(args.pairs, FACES // 4) if args.pairs else _rendered()
        wanted, found = (
            TrainedHead(frozen=model.frozen, head=model.head)(Batch(images))
            for model in (run, read)
        )
        apart = float(np.abs(_unit(found.mu) - _unit(wanted.mu)).max(initial=0))
        step = np.abs(found.sigma_sq - wanted.sigma_sq) / np.abs(wanted.sigma_sq).clip(1e-30)
        sys.stdout.write(
            f"read back: unit embeddings differ by {apart:.1e} at most from the run's, "
            f"uncertainties by {float(step.max()):.1e} of themselves ({len(images)} faces)\n"
        )
        if not apart <= LARGEST_DIFFERENCE:
            advice = (
                "pack without --half, or give --pairs with real faces"
                if args.half
                else "please report it"
            )
            raise ValueError(
                f"embeddings of the file differ by {apart:.1e} from the run's, more than "
                f"{LARGEST_DIFFERENCE:g}; {advice}"
            )


def _rendered() -> NDArray[np.uint8]:
    from data.synthetic import SyntheticFaces

    faces = SyntheticFaces(FACES, 1, 0)
    return np.stack([faces.read(row) for row in range(FACES)])


def _unit(mu: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    return unit


def _hex(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is no SHA-256: 64 hexadecimal digits")
    return text.strip().lower()


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-01-31") from None


def _calibration(args: argparse.Namespace) -> dict[str, Any] | None:
    path = Path(args.calibration or Path(args.model_dir) / FILE_NAME)
    if not args.calibration and not path.is_file():
        _warn(
            f"no {path}: the model will give raw uncertainties alone; make it with "
            "evaluation/calibrate.py and pack again"
        )
        return None
    found = Calibration.load(path)
    name = found.method.partition(":")[0]
    if name != "trained_head" and name in estimator_names():
        raise ValueError(
            f"{path} says what the uncertainties of {found.method} mean, not those of the run's "
            "head: make it again with evaluation/calibrate.py --model_dir, without --estimator"
        )
    sys.stdout.write(f"calibration: on {found.name}, uncertainties of {found.method}\n")
    return found.to_dict()


def _compare_checksum(run: Run, published: str | None) -> None:
    file = run.files[1]
    if published is None:
        sys.stdout.write(f"SHA-256 of {file}: {run.sha256} (compared with nothing)\n")
    elif published != run.sha256:
        raise ValueError(
            f"{file} is not the published file: its SHA-256 is {run.sha256}, but --sha256 says "
            f"{published}; download it again, and train on the right one"
        )
    else:
        sys.stdout.write(f"SHA-256 of {file}: {run.sha256}, as published\n")


def _colours(run: Run, args: argparse.Namespace) -> dict[str, Any] | None:
    if args.pairs is None:
        if args.keep_color:
            raise ValueError("--keep_color goes with --pairs: no colour order is checked without")
        _warn("the colour order was not checked; --pairs lfw.bin does")
        return None
    check = colour_check(run.frozen, args.pairs)
    sys.stdout.write(check.describe())
    if args.keep_color:
        if check.verdict == "other":
            _warn("packed with the worse colour order, as --keep_color says")
    else:
        require_colour_order(
            check, "train the head again with it, or pack as it is with --keep_color"
        )
    return {**check.to_dict(), "kept": args.keep_color}


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
