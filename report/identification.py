"""Words, JSON, tables and the picture of 1:N identification."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.run import DISCARDS
from report.facts import plain
from report.text import aligned
from report.words import ACCEPTED, caution_sentences, risk_sentences, signed
from search.run import IdentificationResult, Rate, SearchPoint
from utils.files import Json, write_text
from utils.tables import write_table

# what 1:1 calls the same things, longest first
_TERMS = {
    "non-mated comparisons": "searches of strangers",
    "non-mated comparison": "search of a stranger",
    "non-mated pairs": "searches of strangers",
    "non-mated calibration comparisons": "calibration searches of strangers",
    "mated calibration comparisons": "calibration searches of enrolled people",
    "mated comparisons": "searches of enrolled people",
    "mated pairs": "searches of enrolled people",
    "false non-matches": "false negatives",
    "false non-match": "false negative",
    "false matches": "false positives",
    "comparisons": "searches",
    "comparison": "search",
    "FNMR": "FNIR",
    "FMR": "FPIR",
}
ACCEPTED_SEARCH = (
    "accepted means that errors of this kind are as rare as stated in this gallery, among probes "
    "like these"
)
_TERM = re.compile("|".join(_TERMS))


def identification_text(result: IdentificationResult) -> str:
    """Return what the script prints."""
    searches, options = result.searches, result.options
    enrolled = searches.enrolled
    lines = [
        f"{searches.name}: {len(searches)} probes, {int(enrolled.sum())} of them of "
        f"{len(np.unique(searches.own[enrolled]))} of the {len(searches.people)} enrolled people "
        f"and {int((~enrolled).sum())} of {len(np.unique(searches.person[~enrolled]))} strangers"
    ]
    if result.ranks:
        rows = [["own person among the first", "identified", f"{options.confidence:.0%} interval"]]
        rows += [[str(rank), *_cells(rate)] for rank, rate in result.ranks.items()]
        lines += aligned(rows, left=0)
    for point in result.points:
        lines += ["", *_point_lines(point, result)]
    if result.risk is not None:
        words = risk_sentences(result.risk).replace(ACCEPTED, ACCEPTED_SEARCH)
        lines += ["", in_search_words(words)]
    if result.rule is not None:
        lines += ["", f"the rule of decide: {result.rule.why}"]
    lines += [f"warning: {line}" for line in identification_warnings(result)]
    return "\n".join(lines) + "\n"


def identification_warnings(result: IdentificationResult) -> list[str]:
    """One line each of what makes the numbers uncertain."""
    return list(map(in_search_words, dict.fromkeys(caution_sentences(result.cautions))))


def in_search_words(text: str) -> str:
    """Call comparisons of `Searches.comparisons` what they stand for."""
    return _TERM.sub(lambda found: _TERMS[found[0]], text)


def _cells(rate: Rate) -> list[str]:
    low, high = rate.interval
    return [str(rate.counts), f"[{low:.4f}, {high:.4f}]"]


def _point_lines(point: SearchPoint, result: IdentificationResult) -> Iterator[str]:
    goal = "as given" if point.fpir_target is None else f"for FPIR {point.fpir_target:g}"
    parts = [f"threshold {point.threshold:.4f} {goal}"]
    for name, rate in (("realised FPIR", point.fpir), ("FNIR", point.fnir)):
        parts.append(f"{name} {' '.join(_cells(rate))}" if rate else f"{name} undefined")
    if point.fnir is not None:
        parts.append(f"{point.named_wrongly} enrolled probes are named as somebody else")
    yield "; ".join(parts)
    if not point.curves:
        return
    shares = [f"{share:.0%}" for share in DISCARDS]
    rows = [["discarded by", *(f"FNIR {s}" for s in shares), *(f"FPIR {s}" for s in shares)]]
    for name, curve in point.curves.items():
        places = [curve.index_at(share) for share in DISCARDS]
        fpir = curve.edc.false_matches / np.maximum(curve.edc.non_mated, 1)
        values = [*curve.edc.fnmr[places], *fpir[places]]
        rows.append([name, *(f"{value:.4f}" for value in values)])
    yield from aligned(rows)
    for name in point.curves if point.draws else ():
        if name != "P(error)" and point.draws:
            pair = point.draws.compare("P(error)", name)
            yield (
                f"area of FNIR up to {point.draws.limit:.0%} discarded, P(error) less {name}: "
                f"{signed(pair.difference, pair.interval)} ({point.draws.confidence:.0%} interval, "
                f"{point.draws.replicates} paired draws of {point.draws.units} people)"
            )


def identification_dict(result: IdentificationResult) -> dict[str, Json]:
    """Return every number in plain Python types."""
    searches = result.searches
    return {
        "name": searches.name,
        "probes": len(searches),
        "enrolled_probes": int(searches.enrolled.sum()),
        "gallery_people": len(searches.people),
        "options": plain(asdict(result.options)),
        "ranks": {str(rank): _rate(rate) for rank, rate in result.ranks.items()},
        "points": [_point(point) for point in result.points],
        "risk": plain(result.risk.to_dict()) if result.risk else None,
        "warnings": list(identification_warnings(result)),
    }


def _rate(rate: Rate | None) -> Json:
    return None if rate is None else {**rate.counts._asdict(), "interval": list(rate.interval)}


def _point(point: SearchPoint) -> Json:
    curves: dict[str, Json] = {}
    for name, curve in point.curves.items():
        edc, places = curve.edc, [curve.index_at(share) for share in DISCARDS]
        names = ("false_non_matches", "mated", "false_matches", "non_mated")
        counts = np.stack([getattr(edc, each)[places] for each in names], axis=1)
        keys = ("false_negatives", "enrolled", "false_positives", "strangers")
        rows = zip(DISCARDS, counts.tolist(), strict=True)
        pair = point.draws.compare("P(error)", name) if point.draws else None
        curves[name] = {
            "discards": [
                {"discard_fraction": share, **dict(zip(keys, row, strict=True))}
                for share, row in rows
            ],
            "area": plain(next(iter(curve.areas.values()))),
            "relative": plain(next(iter(curve.relative.values()))),
            "p_error_less_this": plain([pair.difference, *pair.interval]) if pair else None,
        }
    return {
        "fpir_target": point.fpir_target,
        "score_threshold": point.threshold,
        "fpir": _rate(point.fpir),
        "fnir": _rate(point.fnir),
        "named_wrongly": point.named_wrongly,
        "uncertainties": curves,
    }


def write_identification(result: IdentificationResult, folder: Path) -> Iterator[Path]:
    """Write rule, numbers, DET and picture into a folder, as far as they are defined."""
    path = folder / "result.json"
    write_text(path, json.dumps(identification_dict(result), indent=1) + "\n")
    yield path
    if result.rule is not None:
        result.rule.save(folder / "rule.json")
        yield folder / "rule.json"
    if result.det is not None:
        from report.figures import identification_figure

        det = result.det
        columns = {"threshold": det.thresholds, "fnir": det.fnmr, "fpir": det.fmr}
        write_table(folder / "det.csv", columns, what="DET")
        yield folder / "det.csv"
        yield identification_figure(result, folder / "identification.png")
