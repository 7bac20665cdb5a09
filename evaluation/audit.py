"""Which references of a gallery to mend: poor, copied, under a wrong or a second name.

python evaluation/audit.py GALLERY --model runs/NAME --out audit
python evaluation/audit.py EMBEDDINGS.npz --images GALLERY --out audit

Prints what was found and the errors of searches with and without it, and writes a table (audit.csv)
and a page with faces side by side (audit.html). Besides embedding it takes seconds per ten thousand
images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from commands.audit import add_flags, audit_main
from utils.cli import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Audit and write; the exit code is 0, or 2 when no result can be given."""
    parser = Parser(description="Faults of a gallery's references.")
    add_flags(parser)
    return audit_main(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
