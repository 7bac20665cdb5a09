"""All mated pairs against all non-mated ones: wall time and peak memory.

python benchmarks/all_pairs.py --images 13000 --dimensions 512 --threads 2      (under a minute)

Embeddings are made up: one direction per identity and noise around it, as many images per identity
as in a web-crawled set (a few have many).
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# as for OpenBLAS: read once, when NumPy is loaded
if "--threads" in sys.argv[:-1]:
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = sys.argv[sys.argv.index("--threads") + 1]

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import write_json
from evaluation.sets.labelled import labelled_comparisons, scores_of

NOISE = 1.3  # standard deviation, where that of the identities is 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, check a thousand scores against float64, and print."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add = parser.add_argument
    add("--images", type=int, default=13_000)
    add("--dimensions", type=int, default=512)
    add("--threads", type=int, help="of the BLAS; by default what the environment says")
    add("--seed", type=int, default=0)
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    labels = _labels(rng, args.images)
    mu = _embeddings(rng, labels, args.dimensions)
    uncertainty = rng.random(len(mu), dtype=np.float32)

    before = _peak_gib()
    start = time.perf_counter()
    found = labelled_comparisons(mu, labels, uncertainty, non_mated="all")
    seconds = time.perf_counter() - start
    some = rng.integers(len(found.scores), size=1000)
    first, second = (mu[found.pairs[some, side]].astype(np.float64) for side in (0, 1))
    exact = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    same = np.array_equal(scores_of(mu, found.pairs[some]), found.scores[some])
    listed = len(found.scores) - int(found.mated.sum())
    print(f"{len(mu)} images of {len(np.unique(labels))} identities, {args.dimensions}-d")
    print(f"{int(found.mated.sum())} mated pairs, {found.non_mated_total} non-mated ones")
    print(f"{listed} non-mated scores listed, from {found.listed_from:.4f} up")
    print(f"{seconds:.1f} s, peak {_peak_gib():.2f} GiB ({before:.2f} GiB before)")
    print(
        f"1000 scores: {np.abs(exact - found.scores[some]).max():.1e} from float64 at most; "
        f"{'equal to' if same else 'DIFFERENT FROM'} those of the pairs alone"
    )
    row = {
        "images": len(mu),
        "mated": int(found.mated.sum()),
        "non_mated": found.non_mated_total,
        "seconds": seconds,
        "peak_gib": _peak_gib(),
    }
    write_json(args.json, [row], "cpu")
    return 0 if same else 1


def _labels(rng: np.random.Generator, images: int) -> NDArray[np.int64]:
    sizes = np.minimum(rng.zipf(2.2, size=images), 500)
    count = int(np.searchsorted(np.cumsum(sizes), images)) + 1
    return rng.permutation(np.repeat(np.arange(count), sizes[:count])[:images])


def _embeddings(
    rng: np.random.Generator, labels: NDArray[np.int64], dimensions: int
) -> NDArray[np.float32]:
    people = rng.standard_normal((int(labels.max()) + 1, dimensions), dtype=np.float32)
    noise = rng.standard_normal((len(labels), dimensions), dtype=np.float32)
    return people[labels] + np.float32(NOISE) * noise


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


if __name__ == "__main__":
    sys.exit(main())
