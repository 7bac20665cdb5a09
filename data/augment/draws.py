"""Random numbers of an image that depend on nothing but (seed, step, row): vectorised on the host.

A counter-based hash stands in for one generator per image, which would take a loop over images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: successive states lie far apart


def keyed_uniforms(
    seed: int, step: int, rows: NDArray[np.int64], columns: int
) -> NDArray[np.float64]:
    """Return (B, columns) uniform numbers in [0, 1).

    A row that occurs again in `rows` (an identity with few images) gets other numbers each time.
    Steele et al., "Fast Splittable Pseudorandom Number Generators" (SplitMix64), OOPSLA 2014.

    Args:
        seed: of the run, at least 0.
        step: global optimizer step, at least 0.
        rows: (B,), which image each position holds.
        columns: numbers per image.
    """
    keys = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    state = _mixed(rows.astype(np.uint64) ^ keys[0])
    state = _mixed((state + _occurrence(rows) * _STEP) ^ keys[1])
    counters = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
    bits = _mixed(state[:, None] + counters)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _occurrence(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return how many earlier positions hold the same row."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(rows)])
    count = np.empty(len(rows), dtype=np.uint64)
    count[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    return count


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
