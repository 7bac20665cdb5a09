"""1:N identification, open set: who a probe shows, or nobody, and how often that is wrong.

python evaluation/identification.py --gallery ENROLLED --probes PROBES --model runs/NAME
python evaluation/identification.py --gallery FACES --model runs/NAME --out identified
python evaluation/identification.py --scores MATRIX.npz --fpir 0.01 --target_risk 0.02

Prints identification rates, FNIR at FPIR and what discarding the most uncertain probes leaves of
both; `--out` writes the rule that `decide` follows. Embedding takes seconds per thousand images;
a million templates and ten thousand probes some minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from commands.identification import add_flags, identification_main
from utils.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Search and evaluate; the exit code is 0, or 2 when no result can be given."""
    parser = Parser(description="Open-set identification: FNIR at FPIR, and what to refuse.")
    add_flags(parser)
    return identification_main(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
