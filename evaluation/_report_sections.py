"""The sections of the HTML report from summary to presets, each a function of `report.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation import _report_pictures as pictures
from evaluation import _report_words as words
from evaluation._report_markup import (
    Markup,
    figure,
    join,
    key,
    section,
    table,
    tag,
    with_small,
)

Facts = dict[str, Any]


def summary(facts: Facts) -> Markup:
    """What was tested, what came out, what to set, and every warning."""
    lines = [words.tested(facts), words.outcome(facts), words.area(facts)]
    parts = [tag("p", line, class_="lead") for line in lines]
    if facts["risk_control"]:
        first = facts["risk_control"]["in_words"].partition("\n")[0]
        parts.append(tag("p", tag("strong", "Which threshold to set: "), first, class_="lead"))
    return join([*parts, tag("ul", *_tiles(facts), class_="tiles"), warnings(facts["warnings"])])


def warnings(lines: list[str]) -> Markup:
    """A box that cannot be overlooked; nothing without a warning."""
    if not lines:
        return Markup("")
    heading = tag("h2", "Warning" if len(lines) == 1 else "Warnings")
    return tag(
        "div",
        heading,
        tag("ul", *(tag("li", one) for one in lines)),
        class_="warnings",
        role="note",
    )


def curves(facts: Facts) -> Markup:
    """Error-versus-discard, one picture per FMR target."""
    drawn = [_curve(facts, place, one) for place, one in enumerate(facts["curves"])]
    intro = (
        "FNMR of the comparisons that are left when the most uncertain ones are refused. The "
        "faster a curve falls, the better the uncertainty knows which comparisons go wrong."
    )
    grid = tag("div", *drawn, class_="pair") if len(drawn) > 1 else join(drawn)
    return section("curves", "What refusing buys", tag("p", intro), grid)


def thresholds(facts: Facts) -> Markup:
    """The operating points: one table per FMR target."""
    tables = [_operating_table(one) for one in facts["curves"]]
    intro = (
        "Refuse a comparison when its uncertainty is above the uncertainty threshold. Below each "
        "rate: errors / comparisons and the exact 95 % interval (Clopper\u2013Pearson; it takes "
        "comparisons as independent, which those that share people are not). The row at 10 % is "
        "the one of the summary."
    )
    parts: list[object] = [tag("p", intro), *tables]
    if facts["risk_control"]:
        lines = facts["risk_control"]["in_words"].splitlines()
        parts += [tag("h3", "With a stated risk"), tag("ul", *(tag("li", one) for one in lines))]
    return section("thresholds", "Which threshold to set", *parts)


def scores(facts: Facts) -> Markup:
    """Histograms of both classes, of all comparisons and by uncertainty."""
    found, threshold = facts["scores"], facts["headline"]["score_threshold"]
    keys = [
        key("curve", "mated", area=True),
        key("other", "non-mated", area=True),
        key("ink", f"score threshold {words.number(threshold)}", "dashed"),
    ]
    missing = facts["set"]["unlisted"]
    cut = f" {words.count(missing)} non-mated scores below it are not listed." if missing else ""
    everything = figure(
        pictures.score_picture(found, threshold),
        keys,
        f"Scores on {facts['name']}, each class scaled to the same area.{cut}",
    )
    medians = [one["mated_median"] for one in found["deciles"]]
    rows = figure(
        pictures.decile_picture(found, threshold),
        [*keys[:2], key("ink", "median of the mated scores (upright mark)")],
        "The same by uncertainty: each row is a tenth of the mated comparisons, with the non-mated "
        "ones of the same uncertainty, each scaled to its peak. Median mated score: "
        f"{words.number(medians[0], 3)} in the least, {words.number(medians[-1], 3)} in the most "
        "uncertain tenth.",
    )
    return section("scores", "Scores and uncertainty", tag("div", everything, rows, class_="pair"))


def det(facts: Facts) -> Markup:
    """DET curves."""
    parts = ("curve", "solid"), ("other", "dashed"), ("third", "dotted")
    keys = [
        key(part, "all comparisons" if one["kept"] == 1 else f"kept {one['kept']:.0%}", dash)
        for one, (part, dash) in zip(facts["det"], parts, strict=False)
    ]
    marks = ", ".join(f"FMR {words.fmr(one['fmr_target'])}" for one in facts["curves"])
    caption = (
        f"Both error rates over all score thresholds, {facts['method']} on {facts['name']}, on "
        "normal-deviate axes; lower left is better. Dots: the operating points of the report "
        f"({marks}) without refusing."
    )
    drawn = figure(pictures.det_picture(facts["det"], facts["curves"]), keys, caption)
    return section("det", "Both errors at every threshold", drawn)


def reliability(facts: Facts) -> Markup:
    """Predicted against observed error rates; nothing without a calibration."""
    found = facts["reliability"]
    if not found:
        return Markup("")
    keys = [key("curve", "held-out comparisons, 95 % intervals"), key("random", "ideal", "dotted")]
    error = words.number(found["calibration_error"], 3)
    caption = (
        "Predicted probability of a false non-match against what happened, on comparisons that "
        f"the map was not fitted on. Calibration error {error}."
    )
    drawn = figure(pictures.reliability_picture(found), keys, caption)
    return section("reliability", "Can the probability be believed?", drawn)


def presets(facts: Facts) -> Markup:
    """The same comparisons under every preset."""
    found = facts["presets"]
    if not found:
        return Markup("")
    head = (
        "protocol", "FMR target", "score threshold", "FNMR", "realised FMR", "FNMR at 10 %",
        "area", "relative to random",
    )  # fmt: skip
    rows = [
        (
            one["protocol"],
            words.fmr(one["fmr_target"]),
            words.number(one["score_threshold"]),
            with_small(
                words.share(one["fnmr_without_discard"]["rate"]),
                words.of(one["fnmr_without_discard"]),
            ),
            with_small(
                words.share(one["fmr_without_discard"]["rate"]),
                words.of(one["fmr_without_discard"]),
            ),
            with_small(
                words.share(one["fnmr_after_10_percent"]["rate"]),
                words.of(one["fnmr_after_10_percent"]),
            ),
            _per_limit(one["areas"]),
            _per_limit(one["relative_areas"]),
        )
        for one in found
    ]
    seen = {one["protocol"]: one["in_words"] for one in found}
    switches = tag(
        "details",
        tag("summary", "What each protocol does"),
        tag("ul", *(tag("li", text) for text in seen.values())),
    )
    intro = (
        "One set of scores, every protocol. Numbers of two protocols cannot be compared; this "
        "table shows how far they lie apart."
    )
    return section(
        "presets",
        "The same scores under every protocol",
        tag("p", intro),
        table("Side by side", head, rows),
        switches,
    )


def _tiles(facts: Facts) -> Iterator[Markup]:
    head = facts["headline"]
    before, after = head["fnmr_before"], head["fnmr_after"]
    target = words.fmr(head["fmr_target"])
    yield _tile(words.share(before["rate"]), f"FNMR at FMR {target}, nothing refused")
    if after is not None:
        yield _tile(words.share(after["rate"]), "FNMR when the most uncertain 10 % are refused")
    inside = head["interval"]
    ends = f", {words.number(inside['low'], 2)} to {words.number(inside['high'], 2)}"
    yield _tile(
        words.number(head["relative_auerc30"], 3),
        f"AUERC30 relative to random{ends if inside else ''}; lower is better",
    )
    risk = facts["risk_control"]
    if risk and risk["uncertainty_threshold"] is not None:
        yield _tile(words.number(risk["uncertainty_threshold"]), "uncertainty threshold to set")
    elif after is not None:
        yield _tile(
            words.number(head["uncertainty_threshold"]), "uncertainty above which 10 % are refused"
        )


def _tile(value: str, label: str) -> Markup:
    return tag("li", tag("b", value), tag("span", label), class_="tile")


def _curve(facts: Facts, place: int, curve: Facts) -> Markup:
    name, target = facts["method"], words.fmr(curve["fmr_target"])
    keys = [
        key("curve", f"{name}"),
        key("curve", f"fewer than {pictures.FEW_ERRORS} errors left", "dashed"),
        key("random", "refused at random", "dotted"),
        key("soft", "exact optimum", "chain"),
    ]
    band = curve["bootstrap"]
    if band:
        unit = words.UNITS[band["unit"]]
        label = f"{words.share(band['confidence'], 2)} band (bootstrap over {unit})"
        keys.insert(1, key("curve", label, area=True))
    end = (
        ""
        if pictures.shown_to(curve) == pictures.WHOLE
        else (" Shown up to 50 %: hardly an error is left beyond.")
    )
    caption = (
        f"{name} on {facts['name']}, FMR {target}, protocol {facts['protocol']['name']}. Shaded: "
        f"the range of AUERC30.{end}"
    )
    heading = tag("h3", f"At FMR {target}")
    drawn = pictures.edc_picture(curve, f"edc{place}")
    return Markup(tag("div", heading, figure(drawn, keys, caption)))


def _operating_table(curve: Facts) -> Markup:
    head = (
        "refused", "uncertainty threshold", "score threshold", "kept", "FNMR", "realised FMR",
        "EER",
    )  # fmt: skip
    rows = [_operating_row(one) for one in curve["operating_points"]]
    shares = [one["discard"] for one in curve["operating_points"]]
    marked = shares.index(0.1) if 0.1 in shares else -1
    return table(f"Operating points at FMR {words.fmr(curve['fmr_target'])}", head, rows, marked)


def _operating_row(row: Facts) -> tuple[object, ...]:
    kept = row["kept_mated"] + row["kept_non_mated"]
    return (
        f"{row['discard']:.0%}".replace("%", " %"),
        words.number(row["uncertainty_threshold"]),
        words.number(row["score_threshold"]),
        with_small(words.count(kept), f"{words.count(row['kept_mated'])} mated"),
        *(_rate_cell(row[name]) for name in ("fnmr", "fmr")),
        words.share(row["eer"]),
    )


def _rate_cell(rate: Facts) -> Markup:
    ends = words.span(rate["low"], rate["high"])
    return Markup(with_small(words.share(rate["rate"]), words.of(rate)) + tag("small", ends))


def _per_limit(values: dict[str, float | None]) -> Markup:
    return join(
        tag("small", f"to {limit}: {words.number(value, 3)}") for limit, value in values.items()
    )
