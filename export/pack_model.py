"""One file with everything: pack a run's backbone, head and calibration, with their sources.

python export/pack_model.py --model_dir runs/NAME --out model.pt --license "research only" \
    --source "arcface_torch model zoo, R50 Glint360K" --sha256 HEX --pairs lfw.bin

Checks the backbone's file against `--sha256` and its colour order on `--pairs`, and that what was
written gives the run's numbers. The scorer and the export read the file (docs/ship.md).
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a run; 0, or 2 when something is wrong with it, and nothing is written."""
    parser = Parser(description="Pack a trained run into one model file.")
    add = parser.add_argument
    runs = "folder of a run of network.py"
    add("--model", "--model_dir", required=True, dest="model_dir", metavar="MODEL", help=runs)
    add("--out", type=Path, required=True, help="the model file to write, such as model.pt")
    terms = 'of the weights, as far as you know; "unknown, research only" is an answer'
    add("--license", required=True, help=terms)
    add("--source", default="", help="where the backbone's weights come from: a URL, or words")
    add("--sha256", type=_hex, help="published checksum of the backbone's file: it has to fit")
    add("--label", default="", help="a remark that every output shows")
    add("--pairs", help="check the colour order: lfw.bin, faces:FOLDER, synthetic:pairs=400")
    add("--keep_color", action="store_true", help="pack even if the other colour order is better")
    add("--calibration", help="file of calibrate.py (RUN/calibration.json where it is there)")
    add("--half", action="store_true", help="float16 weights: half the size, checked")
    add("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    add("--created", type=_date, help="date to write into the file (today)")
    add("--backbone_weights", help="the backbone's file, where it has moved")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    from export.packing import PackOptions, pack

    pack(PackOptions(**vars(args)))
    return 0


def _hex(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256 of 64 hexadecimal digits")
    return text.strip().lower()


def _date(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date such as 2026-01-31") from None


if __name__ == "__main__":
    sys.exit(main())
