"""P(same person) fitted on one set and tested on others, at several priors.

python benchmarks/same_person.py --fit lfw_train.npz --test lfw_dev.npz cfp_dev.npz

Files are what verification_risk_fnmr.py --save_features writes. Takes 20 s for each file to test.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from evaluation.confidence.same_person import SamePerson
from evaluation.metrics.comparisons import Comparisons
from evaluation.same_person_run import ALONE, log_ratios, weigh_evidence
from evaluation.sets.stored import open_stored
from report.text import same_person_text
from utils.cli import run_command, share


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each set and prior."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fit", required=True, help="stored embeddings of labelled faces")
    parser.add_argument("--test", required=True, nargs="+", help="the same, of other people")
    parser.add_argument("--prior", type=share, nargs="+", default=[0.5, 0.1, 0.01, 0.001])
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args.fit, args.test, args.prior))


def _body(fit: str, tests: Sequence[str], priors: Sequence[float]) -> int:
    own = _comparisons(fit)
    fitted = {ALONE: SamePerson.fit(_without(own)), "both": SamePerson.fit(own)}
    sys.stdout.write(f"{fitted['both']}\n")
    for name in tests:
        comparisons = _comparisons(name)
        ratios = {method: log_ratios(each, comparisons) for method, each in fitted.items()}
        for prior in priors:
            result = weigh_evidence(comparisons, ratios, prior, comparisons.best_unit)
            sys.stdout.write(f"\n{name}: {same_person_text(result)}")
    return 0


def _comparisons(name: str) -> Comparisons:
    ((_, comparisons),) = open_stored(name).comparisons()
    return comparisons


def _without(comparisons: Comparisons) -> Comparisons:
    return comparisons.with_uncertainty(np.zeros_like(comparisons.uncertainty))


if __name__ == "__main__":
    sys.exit(main())
