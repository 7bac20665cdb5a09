"""Several methods on several sets: one table with intervals, ranks and verdicts, one figure a set.

python evaluation/compare.py --target faces:FOLDER --methods RUN_DIR embedding_norm other=FILE.csv
python evaluation/compare.py --target faces:FOLDER --methods RUN_OF_BRANCHES --out compared
python evaluation/compare.py --features ours=OURS.npz theirs=THEIRS.csv --out compared

Every image is decoded and embedded once for all methods; all of them see the same bootstrap draws.
Runs that differ in their seeds alone are also shown as one, with mean and spread.
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
    """Compare and print; the exit code is 0, or 2 when no result can be given."""
    parser = Parser(description="Uncertainty methods side by side.")
    flags.add_comparison_flags(parser)
    args = parser.parse_args(argv)
    from commands.run import comparison_main  # later than --help

    return comparison_main(args)


if __name__ == "__main__":
    sys.exit(main())
