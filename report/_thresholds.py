"""The section of the HTML report that says which threshold to set."""

from __future__ import annotations

from typing import Any

from report import _words as words
from report._markup import Markup, section, table, tag, with_small

Facts = dict[str, Any]


def thresholds(facts: Facts) -> Markup:
    """The operating points: one table per FMR target."""
    tables = [_operating_table(one) for one in facts["curves"]]
    intro = (
        "Refuse a comparison when its uncertainty is above the uncertainty threshold. Below each "
        "rate: errors / comparisons and the exact 95 % interval (Clopper\u2013Pearson; it takes "
        "comparisons as independent, which those that share people are not). The row at "
        "10\u00a0% is the one of the summary."
    )
    if len({row["kept_non_mated"] for row in facts["curves"][0]["operating_points"]}) == 1:
        intro += (
            " This protocol refuses mated comparisons only, so FMR is that of all non-mated ones."
        )
    if facts["calibration"]:
        intro += (
            " P(error): probability that a mated comparison right at the uncertainty threshold is "
            "missed; quality: 0 to 100, of an image there (100 is best)."
        )
    parts: list[object] = [tag("p", intro), *tables]
    if facts["risk_control"]:
        lines = risk_lines(facts)
        parts += [tag("h3", "With a stated risk"), tag("ul", *(tag("li", one) for one in lines))]
    return section("thresholds", "Which threshold to set", *parts)


def risk_lines(facts: Facts) -> list[str]:
    """The answer and its facts; the set's name, which the page has on top, is left out."""
    risk = facts["risk_control"]
    text: str = risk["in_words"].removeprefix(f"{risk['name']}: ")
    return text.splitlines()


def _operating_table(curve: Facts) -> Markup:
    points = curve["operating_points"]
    head = ["refused", "uncertainty threshold", "kept", "FNMR", "realised FMR", "EER"]
    moving = not curve["fixed_threshold"]
    meaning = "error_probability" in points[0]
    if moving:
        head.append("score threshold")
    if meaning:
        head += ["P(error)", "quality"]
    rows = [_operating_row(one, moving=moving, meaning=meaning) for one in points]
    shares = [one["discard"] for one in points]
    at = "" if moving else f", score threshold {words.number(curve['score_threshold'])}"
    caption = f"Operating points at FMR {words.fmr(curve['fmr_target'])}{at}"
    return table(caption, head, rows, shares.index(0.1) if 0.1 in shares else -1)


def _operating_row(row: Facts, *, moving: bool, meaning: bool) -> list[object]:
    kept = row["kept_mated"] + row["kept_non_mated"]
    cells: list[object] = [
        words.whole(row["discard"]),
        words.number(row["uncertainty_threshold"]),
        with_small(words.count(kept), f"{words.count(row['kept_mated'])} mated"),
        *(_rate_cell(row[name]) for name in ("fnmr", "fmr")),
        words.share(row["eer"]),
    ]
    if moving:
        cells.append(words.number(row["score_threshold"]))
    if meaning:
        cells += [words.share(row["error_probability"], 2), row["iso_quality"]]
    return cells


def _rate_cell(rate: Facts) -> Markup:
    ends = words.span(rate["low"], rate["high"])
    return Markup(with_small(words.share(rate["rate"]), words.of(rate)) + tag("small", ends))
