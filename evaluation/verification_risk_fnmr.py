"""FNMR, EER and their curves against the share of discarded pairs, for a trained run.

python evaluation/verification_risk_fnmr.py --model_dir runs/NAME --dataset_path DIR --target lfw
python evaluation/verification_risk_fnmr.py --features FILE.npz
python evaluation/verification_risk_fnmr.py --config_file config/X.py --set head_weights=HEAD.pth

Prints the original's block for each set in a few seconds per thousand images (stored features: well
under a second); `--report DIR` adds the curve as a picture. Under torchrun all processes embed
(docs/scale.md).
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
    """Evaluate a model (or stored features); the exit code is 0, or 2 when there is no result."""
    parser = Parser(description="Risk-controlled FNMR of a trained uncertainty head.")
    flags.add_model_flags(parser)
    parser.add_argument("--config_file", help="instead of a run: a config that names head_weights")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override its fields"
    )
    flags.add_evaluation_flags(parser)
    args = parser.parse_args(argv)
    from commands.run import evaluation_main  # later than --help

    return evaluation_main(args, flags.read(flags.ModelFlags, args))


if __name__ == "__main__":
    sys.exit(main())
