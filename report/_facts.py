"""Every number of the report as one dictionary: `report.json` is it, and the page is drawn from it.

The layout is documented in docs/evaluate.md and in docs/report.schema.json. No matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.metrics.discard import kept_sets
from report._faces import faces, worst_errors
from report._scores import det_curves, histograms
from report._table import REFUSED, equal_error_rates, headline, operating_rows, rate

if TYPE_CHECKING:
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.metrics.protocol_curve import ProtocolCurve
    from report.data import ReportData

SCHEMA = "face-uncertainty/report/1"
LONGEST = 1001  # points of a curve; longer ones are read at every thousandth


def facts(data: ReportData) -> dict[str, Any]:
    """Return the content of `report.json`: plain types, NaN and infinity as None."""
    comparisons, main = data.comparisons, data.curves[0]
    uncertainty = comparisons.pair_uncertainty(main.protocol.fuse)
    kept = kept_sets(comparisons, main.protocol)
    eer = equal_error_rates(comparisons, main, kept)
    tables = [operating_rows(data, one, eer, kept.thresholds) for one in data.curves]
    limit = float(kept.thresholds[main.index_at(REFUSED)])
    threshold = float(main.edc.score_threshold[0])
    found = {
        "schema": SCHEMA,
        "name": data.name,
        "method": data.method,
        "date": data.provenance.date if data.provenance else "",
        "set": _set(data),
        "protocol": {"name": main.protocol.name, "in_words": main.protocol.describe()},
        "headline": headline(data, tables[0]),
        "warnings": _warnings(data),
        "curves": [
            {**_curve(one, data), "operating_points": rows}
            for one, rows in zip(data.curves, tables, strict=True)
        ],
        "presets": [_preset(one) for one in data.presets],
        "scores": histograms(comparisons, uncertainty),
        "det": det_curves(comparisons, main, kept),
        "risk_control": _risk(data),
        "reliability": _reliability(data),
        "calibration": data.calibration.to_dict() if data.calibration else None,
        "faces": faces(comparisons, data.images),
        "worst_errors": worst_errors(comparisons, uncertainty, threshold, limit, data.images),
        "provenance": asdict(data.provenance) if data.provenance else None,
    }
    plainly: dict[str, Any] = plain(found)
    return plainly


def plain(value: Any) -> Any:
    """Return a value in the types of JSON; NaN and infinity become None.

    Raises:
        TypeError: a type that JSON has no place for.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a report cannot hold a {type(value).__name__}: {value!r:.80}")


def _set(data: ReportData) -> dict[str, Any]:
    comparisons = data.comparisons
    mated = int(comparisons.mated.sum())
    identity = comparisons.identity
    image = comparisons.image
    return {
        "comparisons": mated + comparisons.non_mated_total,
        "mated": mated,
        "non_mated": comparisons.non_mated_total,
        "unlisted": comparisons.unlisted,
        "images": len(comparisons.uncertainty if image is None else np.unique(image)),
        "identities": None if identity is None else len(np.unique(identity)),
    }


def _warnings(data: ReportData) -> list[str]:
    lines = list(data.warnings)
    for curve in data.curves:
        lines += curve.warnings
    for one in data.bootstrap.values():
        lines += one.warnings
    return list(dict.fromkeys(lines))


def _curve(one: ProtocolCurve, data: ReportData) -> dict[str, Any]:
    edc = one.edc
    at = np.arange(len(edc.fractions))
    if len(at) > LONGEST:
        at = np.unique([one.index_at(share) for share in np.linspace(0, 1, LONGEST)])
    return {
        "fmr_target": edc.fmr_target,
        "score_threshold": float(edc.score_threshold[0]),
        "fnmr_without_discard": rate(edc.false_non_matches[0], edc.mated[0]),
        "fmr_without_discard": rate(edc.false_matches[0], edc.non_mated[0]),
        "fixed_threshold": one.protocol.threshold == "fixed",
        "steps": one.protocol.area == "step",
        "discard_fraction": edc.fractions[at],
        "fnmr": edc.fnmr[at],
        "optimum": one.optimum[at],
        "false_non_matches": edc.false_non_matches[at],
        "mated": edc.mated[at],
        "false_matches": edc.false_matches[at],
        "non_mated": edc.non_mated[at],
        **_areas(one),
        "bootstrap": _bootstrap(data.draws(one)),
    }


def _areas(one: ProtocolCurve) -> dict[str, Any]:
    return {
        "areas": {f"{limit:g}": value for limit, value in one.areas.items()},
        "relative_areas": {f"{limit:g}": value for limit, value in one.relative.items()},
    }


def _preset(one: ProtocolCurve) -> dict[str, Any]:
    edc = one.edc
    at = one.index_at(REFUSED)
    return {
        "protocol": one.protocol.name,
        "in_words": one.protocol.describe(),
        "fmr_target": edc.fmr_target,
        "score_threshold": float(edc.score_threshold[0]),
        "fnmr_without_discard": rate(edc.false_non_matches[0], edc.mated[0]),
        "fmr_without_discard": rate(edc.false_matches[0], edc.non_mated[0]),
        "fnmr_after_10_percent": rate(edc.false_non_matches[at], edc.mated[at]),
        **_areas(one),
    }


def _bootstrap(draws: tuple[Bootstrap, str] | None) -> dict[str, Any] | None:
    if draws is None:
        return None
    bootstrap, method = draws
    bands = bootstrap.bands(method)
    found: dict[str, Any] = {
        "unit": bootstrap.unit,
        "replicates": bootstrap.replicates,
        "confidence": bootstrap.confidence,
        "limit": bootstrap.limit,
        "discard_fraction": bootstrap.fractions,
        "fnmr_low": bands.low,
        "fnmr_high": bands.high,
    }
    for name in ("area", "relative"):
        value, interval = getattr(bootstrap, name)(method)
        found[name] = {"value": value, "low": interval.low, "high": interval.high}
    return found


def _risk(data: ReportData) -> dict[str, Any] | None:
    if data.risk is None:
        return None
    return {**data.risk.to_dict(), "in_words": data.risk.describe()}


def _reliability(data: ReportData) -> dict[str, Any] | None:
    if data.reliability is None:
        return None
    bins = [
        {
            "predicted": one.predicted,
            "errors": one.errors,
            "observed": one.observed,
            "count": one.count,
            "low": one.interval.low,
            "high": one.interval.high,
        }
        for one in data.reliability.bins
    ]
    return {
        "bins": bins,
        "calibration_error": data.reliability.calibration_error,
        "chance": data.reliability.chance,
        "confidence": data.reliability.confidence,
    }
