"""The operating points of the report: what each discard threshold costs and leaves.

Rates come as counts with their exact intervals. NumPy and SciPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.intervals import clopper_pearson
from evaluation.metrics.kept import KeptSets
from evaluation.metrics.kept_rates import equal_error_rates_of_kept

if TYPE_CHECKING:
    from evaluation.metrics.comparisons import Comparisons
    from evaluation.metrics.protocol_curve import ProtocolCurve
    from report.data import ReportData

SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
CONFIDENCE = 0.95
REFUSED = 0.1


def rate(errors: int | np.integer, total: int | np.integer) -> dict[str, Any]:
    """Return errors, total, their ratio (NaN of nothing) and its exact 95 % interval."""
    errors, total = int(errors), int(total)
    low, high = clopper_pearson(errors, total, CONFIDENCE)
    value = errors / total if total else float("nan")
    return {"errors": errors, "total": total, "rate": value, "low": low, "high": high}


def operating_rows(
    data: ReportData, curve: ProtocolCurve, eer: list[float | None], cut: NDArray[np.floating]
) -> list[dict[str, Any]]:
    """One row per discard fraction of `SHOWN` that the curve reaches.

    Counts are the curve's own, read at its last fraction that is not above the row's.

    Args:
        data: its calibration, where there is one for this FMR target, adds what an uncertainty at
            the threshold means.
        curve: under any protocol.
        eer: (rows,) of the kept comparisons; None where not all non-mated scores are listed. A
            row without comparisons of one kind has none either.
        cut: (F,) uncertainty thresholds at the curve's fractions; for mated comparisons where the
            kinds have thresholds of their own.
    """
    edc = curve.edc
    rows = []
    for share, error in zip(shown(curve), eer, strict=True):
        at = curve.index_at(share)
        limit = float(cut[at])
        rows.append(
            {
                "discard": share,
                "uncertainty_threshold": limit,
                "score_threshold": edc.score_threshold[at],
                "kept_mated": edc.mated[at],
                "kept_non_mated": edc.non_mated[at],
                "fnmr": rate(edc.false_non_matches[at], edc.mated[at]),
                "fmr": rate(edc.false_matches[at], edc.non_mated[at]),
                "eer": error if edc.mated[at] and edc.non_mated[at] else None,
                **_meaning(data, curve, limit),
            }
        )
    return rows


def shown(curve: ProtocolCurve) -> list[float]:
    """Discard fractions of the table, as far as the curve goes."""
    return [share for share in SHOWN if share <= curve.edc.fractions[-1] + 1e-9]


def equal_error_rates(
    comparisons: Comparisons, curve: ProtocolCurve, kept: KeptSets
) -> list[float | None]:
    """EER of the kept comparisons at each of `shown(curve)`."""
    indices = [curve.index_at(share) for share in shown(curve)]
    if comparisons.unlisted:
        return [None] * len(indices)
    found = equal_error_rates_of_kept(comparisons.scores, comparisons.mated, kept, indices)
    return [one.value for one in found]


def headline(data: ReportData, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of the summary: FNMR before and after refusing 10 %, and the area.

    The area is AUERC30 where the protocol has it, else that of its lowest limit.
    """
    curve = data.curves[0]
    draws = data.draws(curve)
    after = next((row for row in rows if row["discard"] == REFUSED), None)
    limit = 0.3 if 0.3 in curve.relative else min(curve.relative)
    value, interval = curve.relative[limit], None
    if draws is not None:
        bootstrap, method = draws
        limit = bootstrap.limit
        value, (low, high) = bootstrap.relative(method)
        interval = {
            "low": low,
            "high": high,
            "confidence": bootstrap.confidence,
            "unit": bootstrap.unit,
        }
    return {
        "fmr_target": curve.edc.fmr_target,
        "score_threshold": curve.edc.score_threshold[0],
        "fnmr_before": rows[0]["fnmr"],
        "fmr_before": rows[0]["fmr"],
        "refused": REFUSED,
        "uncertainty_threshold": after["uncertainty_threshold"] if after else None,
        "fnmr_after": after["fnmr"] if after else None,
        "area_limit": limit,
        "relative_area": value,
        "interval": interval,
    }


def _meaning(data: ReportData, curve: ProtocolCurve, limit: float) -> dict[str, Any]:
    known = data.calibration
    if known is None or curve.protocol.fuse != "max":
        return {}
    if known.fmr_target != curve.edc.fmr_target and curve is not data.curves[0]:
        return {}
    return {
        "error_probability": known.probability([limit])[0],
        "iso_quality": known.iso_quality([limit])[0],
    }
