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
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from commands import flags
from utils.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate a run, stored features or scores; 0, or 2 when there is nothing to calibrate on."""
    parser = Parser(description="Fit what a head's uncertainties mean.")
    flags.add_calibration_flags(parser)
    args = parser.parse_args(argv)
    from commands.run import calibration_main  # later than --help

    return calibration_main(args)


if __name__ == "__main__":
    sys.exit(main())
