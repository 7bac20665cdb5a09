"""How often a certified risk is above its target, on generated people whose true risk is known.

python benchmarks/risk.py --sets 1000      (ten seconds)

Comparisons of one person share an effect, as real ones do. FNMR among accepted comparisons is to be
at most 7 %, with confidence 0.9: so up to 10 % of the sets may end above it. The rows differ in
what is taken to be independent, and in whether the score threshold is given or found for an FMR.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from benchmarks._common import write_json
from evaluation.confidence.intervals import clopper_pearson
from evaluation.confidence.risk_control import control_risk
from evaluation.metrics.comparisons import Comparisons

PEOPLE, IMAGES, NON_MATED, SPREAD = 300, 6, 4000, 0.8
TARGET, CONFIDENCE = 0.07, 0.9
ROWS: dict[str, dict[str, Any]] = {
    "identity, threshold given": {"unit": "identity", "score_threshold": 2.5},
    "identity, threshold for FMR 0.06": {"unit": "identity", "fmr_target": 0.06},
    "pair, threshold given": {"unit": "pair", "score_threshold": 2.5},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Certified risk against the truth.")
    parser.add_argument("--sets", type=int, default=1000, help="generated sets (1000)")
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    sets, rows = args.sets, []
    print("| unit | sets with an answer | sets above the target (95 %) |")
    print("| --- | --- | --- |")
    for name, options in ROWS.items():
        answers = above = 0
        for seed in tqdm(range(sets), desc=name, leave=False, disable=None):
            found = control_risk(
                _people(seed), target_risk=TARGET, confidence=CONFIDENCE, seed=seed, **options
            )
            if found.uncertainty_threshold is not None:
                answers += 1
                above += _truth(found.score_threshold, found.uncertainty_threshold) > TARGET
        low, high = clopper_pearson(above, sets)
        rows.append({"row": name, "sets": sets, "answers": answers, "above": above})
        print(f"| {name} | {answers / sets:.1%} | {above / sets:.1%} ({low:.1%} to {high:.1%}) |")
    write_json(args.json, rows, "cpu")
    return 0


def _people(seed: int) -> Comparisons:
    """Mated scores fall with the uncertainty of the lower-quality image, non-mated ones rise."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(PEOPLE), IMAGES)
    uncertainty = rng.random(len(identity)).astype(np.float32)
    effect = rng.normal(size=PEOPLE)
    sides = np.stack(np.triu_indices(IMAGES, 1), axis=1)
    own = (np.arange(PEOPLE)[:, None, None] * IMAGES + sides).reshape(-1, 2)
    others = rng.integers(len(identity), size=(NON_MATED, 2))
    others = others[identity[others[:, 0]] != identity[others[:, 1]]]
    pairs = np.concatenate([own, others]).astype(np.int32)
    mated = np.arange(len(pairs)) < len(own)
    worse = uncertainty[pairs].max(axis=1)
    first, second = effect[identity[pairs]].T
    scores = np.where(
        mated,
        5.5 - 3 * worse**2 - SPREAD * first,
        1.5 * worse + SPREAD * (first + second) / np.sqrt(2),
    )
    scores += rng.normal(size=len(pairs)) * np.sqrt(1 - SPREAD**2)
    return Comparisons("people", scores.astype(np.float32), mated, pairs, uncertainty, identity)


def _truth(score_threshold: float, limit: float) -> float:
    """FNMR of all people among comparisons with uncertainty up to the limit, by integration."""
    worse = min(limit, 1) * np.sqrt((np.arange(2000) + 0.5) / 2000)
    return float(norm.cdf(score_threshold - (5.5 - 3 * worse**2)).mean())


if __name__ == "__main__":
    sys.exit(main())
