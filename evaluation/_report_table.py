"""The operating points of the report: what each discard threshold costs and leaves.

Rates come as counts with their exact intervals. NumPy and SciPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.edc import kept_sets
from evaluation.error_rates import error_rates
from evaluation.intervals import clopper_pearson

if TYPE_CHECKING:
    from evaluation.bootstrap import Bootstrap
    from evaluation.comparisons import Comparisons
    from evaluation.protocol_curve import ProtocolCurve

SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
CONFIDENCE = 0.95


def rate(errors: int | np.integer, total: int | np.integer) -> dict[str, Any]:
    """Return errors, total, their ratio (NaN of nothing) and its exact 95 % interval."""
    errors, total = int(errors), int(total)
    low, high = clopper_pearson(errors, total, CONFIDENCE)
    value = errors / total if total else float("nan")
    return {"errors": errors, "total": total, "rate": value, "low": low, "high": high}


def operating_rows(
    comparisons: Comparisons,
    curve: ProtocolCurve,
    uncertainty: NDArray[np.float32],
    pool: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """One row per discard fraction of `SHOWN` that the curve reaches.

    Counts are the curve's own, read at the last of its fractions that is not above the row's. The
    equal error rate is that of all comparisons up to the uncertainty threshold; NaN where not all
    non-mated comparisons are listed.

    Args:
        comparisons: N of them.
        curve: under any protocol.
        uncertainty: (N,) of each comparison under the protocol's rule.
        pool: (N,) those of which a fraction is discarded.
    """
    edc = curve.edc
    shares = [share for share in SHOWN if share <= edc.fractions[-1] + 1e-9]
    limits = kept_sets(uncertainty[pool], np.array(shares)).thresholds
    rows = []
    for share, limit in zip(shares, limits, strict=True):
        at = int(np.searchsorted(edc.fractions, share + 1e-9, side="right")) - 1
        kept = int(edc.mated[at]), int(edc.non_mated[at])
        rows.append(
            {
                "discard": share,
                "uncertainty_threshold": limit,
                "score_threshold": edc.score_threshold[at],
                "kept_mated": kept[0],
                "kept_non_mated": kept[1],
                "fnmr": rate(edc.false_non_matches[at], kept[0]),
                "fmr": rate(edc.false_matches[at], kept[1]),
                "eer": _eer(comparisons, uncertainty <= limit),
            }
        )
    return rows


def headline(
    bootstrap: Bootstrap | None, curve: ProtocolCurve, method: str, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the numbers of the summary: FNMR before and after refusing 10 %, and AUERC30."""
    after = [row for row in rows if row["discard"] == 0.1]
    found: dict[str, Any] = {
        "fmr_target": curve.edc.fmr_target,
        "score_threshold": curve.edc.score_threshold[0],
        "fnmr_before": rows[0]["fnmr"],
        "fmr_before": rows[0]["fmr"],
        "refused": 0.1,
        "uncertainty_threshold": after[0]["uncertainty_threshold"] if after else None,
        "fnmr_after": after[0]["fnmr"] if after else None,
        "relative_auerc30": curve.relative.get(0.3, float("nan")),
        "interval": None,
    }
    if bootstrap is not None:
        value, interval = bootstrap.relative(method)
        found["relative_auerc30"] = value
        found["interval"] = {
            "low": interval.low,
            "high": interval.high,
            "confidence": bootstrap.confidence,
            "unit": bootstrap.unit,
        }
    return found


def _eer(comparisons: Comparisons, kept: NDArray[np.bool_]) -> float:
    if comparisons.unlisted or not kept.any():
        return float("nan")
    return error_rates(comparisons.scores[kept], comparisons.mated[kept]).equal_error_rate().value
