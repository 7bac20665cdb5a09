"""Search in a large gallery against the bare matrix product: speed and peak memory.

python benchmarks/identification.py --templates 1000000 --probes 10000 --dimensions 512 --threads 2
python benchmarks/identification.py --templates 100000 --probes 4096     (under two minutes)

Both sides run in turn in one process, over the same blocks of a gallery on the disk. With one
thread seconds are those of this process, so that a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# as for OpenBLAS: read once, when NumPy is loaded
if "--threads" in sys.argv[:-1]:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = sys.argv[sys.argv.index("--threads") + 1]

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import compare, write_json
from data.features import cosines, unit_rows
from search.nearest import BLOCK, nearest

CHUNK = 1 << 16


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, check ten probes against all of their scores, and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add = parser.add_argument
    add("--templates", type=int, default=100_000)
    add("--probes", type=int, default=4096)
    add("--dimensions", type=int, default=512)
    add("--candidates", type=int, default=20)
    add("--runs", type=int, default=3)
    add("--threads", type=int, help="of the BLAS; by default what the environment says")
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    probes = rng.standard_normal((args.probes, args.dimensions), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        shape = (args.templates, args.dimensions)
        file = Path(folder) / "gallery.npy"
        gallery = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        for start in range(0, len(gallery), CHUNK):
            part = gallery[start : start + CHUNK]
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        before = _peak_gib()
        search = partial(nearest, probes, gallery, args.candidates)
        seconds = compare(
            {"product": partial(_product, probes, gallery), "search": search},
            args.runs,
            clock=time.process_time if args.threads == 1 else time.perf_counter,
        )
        found = search()
        pairs = np.stack([np.zeros(len(gallery), np.int64), np.arange(1, len(gallery) + 1)], axis=1)
        same = True
        for row in rng.integers(args.probes, size=3):
            scores = cosines(unit_rows(np.concatenate([probes[[row]], gallery])), pairs)
            order = np.argsort(-scores, kind="stable")[: args.candidates]
            same &= np.array_equal(order, found.rows[row])
        del gallery
    ratio = seconds["product"] / seconds["search"]
    print(f"{args.probes} probes, {args.templates} templates, {args.dimensions}-d")
    print(f"product {seconds['product']:.1f} s, search {seconds['search']:.1f} s: {ratio:.0%}")
    print(f"peak {_peak_gib():.2f} GiB, {before:.2f} GiB before, the gallery on the disk")
    print(f"three probes: {'equal to' if same else 'DIFFERENT FROM'} a sort of all their scores")
    write_json(args.json, [{**seconds, "ratio": ratio, "peak_gib": _peak_gib()}], "cpu")
    return 0 if same else 1


def _product(probes: NDArray[np.float32], gallery: NDArray[np.float32]) -> None:
    for left in range(0, len(gallery), BLOCK[1]):
        block = np.asarray(gallery[left : left + BLOCK[1]]).T
        for start in range(0, len(probes), BLOCK[0]):
            _ = probes[start : start + BLOCK[0]] @ block


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    sys.exit(main())
