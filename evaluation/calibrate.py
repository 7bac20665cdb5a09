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

from collections.abc import Sequence

from evaluation import flags
from utils.cli import PARTS_HINT, Parser, run_on_ranks
from utils.distributed import World

CAP = 20  # mated pairs of one person


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate a run, stored features or scores; 0, or 2 when there is nothing to calibrate on."""
    parser = Parser(
        description="Fit what a head's uncertainties mean.",
        epilog=f"--cap is {CAP} here, so that no person with many images decides; 0 takes all.",
    )
    flags.add_calibration_flags(parser, CAP)
    args = parser.parse_args(argv)
    calibration, model = (
        flags.read(flags.CalibrationFlags, args),
        flags.read(flags.ModelFlags, args),
    )
    sets = flags.read(flags.SetFlags, args)

    def body(world: World, device: str) -> int:
        from evaluation.command import run_calibration

        return run_calibration(calibration, sets, lambda: model.open(device), world)

    device = "cpu" if calibration.features else args.device
    return run_on_ranks(device, body, resume_hint=PARTS_HINT)


if __name__ == "__main__":
    sys.exit(main())
