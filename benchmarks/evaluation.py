"""How fast the evaluation is against the work that it replaces.

OMP_NUM_THREADS=1 python benchmarks/evaluation.py

The replaced script gathers the kept embeddings at each of 100 discard fractions, normalises and
multiplies them, sorts Python tuples of all scores and counts errors at every one. `_reference` does
that work at every tenth fraction, in turn with ours, and is scaled up; its FNMR must be ours. Then
come 10 million scored pairs, with the memory they take, a thousand bootstrap draws over the people
of 3 million non-mated and 8000 mated pairs, and a rendered `.bin` set that shows every
image in two rows, as cfp_fp does, against one that is embedded row by row. Medians of one process,
one thread; the images in CPU seconds.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import compare, write_json
from data.features import Features
from data.verification import VerificationSet, synthetic_verification
from evaluation.confidence.bootstrap import bootstrap
from evaluation.embed import embed_pairs
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.curve import GRID
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.open_model import open_model
from evaluation.original import original_table
from evaluation.run import protocol_rows

SETS = ((7_000, 512), (60_000, 512), (60_000, 32), (600_000, 32))
MILLIONS = 10_000_000
PEOPLE, FACES, NON_MATED = 800, 5, 3_000_000  # 8000 mated pairs
FMR = 1e-3
MEASURED = range(5, 100, 10)  # fractions .05, .15, ..., .95: their mean is that of all hundred


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Evaluation against the work it replaces.")
    parser.add_argument("--runs", type=int, default=5, help="timings of ours per row (5)")
    parser.add_argument(
        "--images", type=int, default=7000, help="of the set that repeats them (7000)"
    )
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    rows = [_repeated_images(args.images, args.runs)]
    rows += [_scored_pairs(protocols, args.runs) for protocols in (*PROTOCOLS, None)]
    rows += [_bootstrap_draws(protocol) for protocol in ("original", "iso29794")]
    print("pairs x dimensions | replaced work, s | ours, ms | ratio")
    rows += [_against_reference(pairs, size, args.runs) for pairs, size in SETS]
    write_json(args.json, rows, "cpu")
    return 0


def _against_reference(pairs: int, size: int, runs: int) -> dict[str, Any]:
    features = _features(pairs, size)
    ours: list[float] = []
    reference: list[float] = []
    threshold = float(original_table(features).blocks[0].curves[-1].score_threshold[0])
    fnmr = []
    for turn, index in enumerate(MEASURED):
        if turn < runs:
            start = time.perf_counter()
            result = original_table(features)
            ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        fnmr.append(_reference(features, float(GRID[index]), threshold))
        reference.append(time.perf_counter() - start)
    np.testing.assert_allclose(fnmr, result.blocks[0].curves[-1].fnmr[list(MEASURED)], atol=1e-12)
    seconds, median = 10 * sum(reference), statistics.median(ours)
    print(f"{pairs} x {size} | {seconds:.2f} | {1e3 * median:.1f} | {seconds / median:.0f}")
    return {"pairs": pairs, "size": size, "replaced_s": seconds, "ours_s": ours}


class _RowByRow(VerificationSet):
    """A set whose images count as different ones."""

    def fingerprint(self, row: int) -> int:
        return row


def _repeated_images(count: int, runs: int) -> dict[str, Any]:
    """Embed `count` pairs of as many images, each of them in two rows."""
    rendered = synthetic_verification(count // 2)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(count), 2))
    images, mated = [rendered.images[row] for row in order], np.arange(count) % 2 == 0
    estimator = open_model("demo", device="cpu").estimator
    sets = {kind.__name__: kind("repeated", images, mated) for kind in (_RowByRow, VerificationSet)}
    values = {}

    def embed(name: str) -> None:
        (values[name],) = embed_pairs([estimator], sets[name], progress=False)

    taken = compare({name: partial(embed, name) for name in sets}, runs, clock=time.process_time)
    before, ours = (values[name] for name in sets)
    np.testing.assert_array_equal(before.mu, ours.mu)
    np.testing.assert_array_equal(before.sigma_sq, ours.sigma_sq)
    by_row, once = taken.values()
    print(
        f"{2 * count} rows of {count} images: row by row {by_row:.2f} CPU s, each image "
        f"once {once:.2f} CPU s, ratio {by_row / once:.2f}; equal to the last bit"
    )
    return {"rows": 2 * count, "images": count, "by_row_s": by_row, "once_s": once}


def _scored_pairs(name: str | None, runs: int) -> dict[str, Any]:
    """Time a protocol, or all of them together."""
    rng = np.random.default_rng(0)
    mated = np.arange(MILLIONS) % 2 == 0
    uncertainty = rng.random(2 * 10**6, dtype=np.float32)
    pairs = rng.integers(len(uncertainty), size=(MILLIONS, 2), dtype=np.int32)
    scores = rng.normal(size=MILLIONS).astype(np.float32) + np.float32(3) * mated
    comparisons = Comparisons("millions", scores, mated, pairs, uncertainty)
    protocols = [PROTOCOLS[name]] if name else [*PROTOCOLS.values()]
    before = _peak()
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        protocol_rows(comparisons, protocols, (FMR,))
        taken.append(time.perf_counter() - start)
    print(
        f"{MILLIONS} scored pairs, {name or 'all protocols'}: {statistics.median(taken):.2f} s, "
        f"peak {_peak():.2f} GB ({before:.2f} GB before)"
    )
    return {"pairs": MILLIONS, "protocol": name, "ours_s": taken, "peak_gb": _peak()}


def _bootstrap_draws(protocol: str) -> dict[str, Any]:
    """Time all draws, by the clock and in seconds of both cores."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), FACES)
    mated = np.stack(np.nonzero(np.triu(person[:, None] == person, 1)), axis=1)
    others = rng.integers(len(person), size=(NON_MATED, 2))
    others = others[person[others[:, 0]] != person[others[:, 1]]]
    pairs = np.concatenate([mated, others]).astype(np.int32)
    is_mated = np.arange(len(pairs)) < len(mated)
    uncertainty = rng.random(len(person), dtype=np.float32)
    scores = rng.normal(size=len(pairs)).astype(np.float32) + np.float32(3) * is_mated
    scores -= uncertainty[pairs].max(axis=1)
    comparisons = Comparisons("people", scores, is_mated, pairs, uncertainty, identity=person)
    start, cpu = time.perf_counter(), time.process_time()
    drawn = bootstrap(comparisons, {"uncertainty": uncertainty}, PROTOCOLS[protocol], FMR)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(
        f"{drawn.replicates} draws of {drawn.units} people, {len(mated)} mated and {len(others)} "
        f"non-mated pairs, {protocol}: {seconds:.2f} s, {cpu:.2f} CPU s"
    )
    return {"draws": drawn.replicates, "protocol": protocol, "seconds": seconds, "cpu_s": cpu}


def _reference(features: Features, discard: float, threshold: float) -> float:
    """FNMR on the kept pairs, the slow way: everything is computed again from the embeddings."""
    first, second = features.mu[0::2], features.mu[1::2]
    uncertainty = np.maximum(features.sigma_sq[0::2, 0], features.sigma_sq[1::2, 0])
    kept = np.flatnonzero(uncertainty <= np.percentile(uncertainty, (1 - discard) * 100))
    left, right = _unit(first[kept]), _unit(second[kept])
    scores = np.sum(left * right, axis=1)
    same = features.issame[kept]
    tuples = [(score, 1) for score in scores[same]] + [(score, 0) for score in scores[~same]]
    tuples.sort()
    table = np.array(tuples)
    false_non_matches = np.cumsum(table[:, 1]) - table[:, 1]
    nearest = int(np.argmin(np.abs(table[:, 0] - threshold)))
    return float(false_non_matches[nearest] / same.sum())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True))
    return unit


def _features(pairs: int, size: int) -> Features:
    rng = np.random.default_rng(0)
    same = np.arange(pairs) % 2 == 0
    sigma_sq = rng.uniform(0.05, 1, (2 * pairs, 1)).astype(np.float32)
    mu = rng.normal(size=(2 * pairs, size)).astype(np.float32)
    mu[1::2][same] = mu[0::2][same]
    mu += 0.5 * sigma_sq * rng.normal(size=mu.shape).astype(np.float32)
    return Features(mu, sigma_sq, same)


def _peak() -> float:
    """Largest memory of this process so far, GB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
