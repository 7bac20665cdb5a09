"""Train the small backbone of the demo on rendered faces and write `demo/backbone.pth`.

python demo/train_backbone.py        a few minutes on two CPU cores, nothing downloaded

Two threads and the recipe's seed fix the run: the same machine and the same torch write the same
bytes. Another processor or another version of torch rounds sums in another order, and the weights
drift apart, though not what the network can do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.cli import Parser, run_command

THREADS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Train the demo's backbone and write it."""
    parser = Parser(main.__doc__)
    default = Path(__file__).with_name("backbone.pth")
    parser.add_argument("--out", type=Path, default=default, help=f"default: {default}")
    options = parser.parse_args(argv)
    return run_command(lambda: _train(options.out))


def _train(out: Path) -> int:
    import torch
    from tqdm import tqdm

    from demo.backbone import RECIPE, rendered, save, train

    torch.set_num_threads(THREADS)
    images, labels = rendered(RECIPE, workers=min(THREADS, os.cpu_count() or 1))
    save(train(images, labels, RECIPE, tqdm.write), out)
    sys.stdout.write(f"{out}: {out.stat().st_size / 1e6:.2f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
