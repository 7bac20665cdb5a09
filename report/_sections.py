"""The sections of the HTML report from summary to presets, each a function of `report.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation.metrics.protocols import PROTOCOLS
from report import _pictures as pictures
from report import _words as words
from report._markup import Markup, figure, join, key, section, table, tag, with_small
from report._thresholds import risk_lines

Facts = dict[str, Any]


def summary(facts: Facts) -> Markup:
    """What was tested, what came out, what to set, and every warning."""
    lines = [words.tested(facts), words.outcome(facts), words.area(facts)]
    parts = [tag("p", line, class_="lead") for line in lines]
    if facts["risk_control"]:
        first = risk_lines(facts)[0]
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
        key(
            part,
            "all comparisons" if one["kept"] == 1 else f"kept {words.whole(one['kept'])}",
            dash,
        )
        for one, (part, dash) in zip(facts["det"], parts, strict=False)
    ]
    marks = ", ".join(f"FMR {words.fmr(one['fmr_target'])}" for one in facts["curves"])
    caption = (
        f"Both error rates over all score thresholds, {facts['method']} on {facts['name']}, on "
        "normal-deviate axes; lower left is better. Dots: the operating points of the report "
        f"({marks}) without refusing."
    )
    if not pictures.has_det(facts["det"]):
        none = "No threshold has errors of both kinds, so there is no curve to draw."
        return section("det", "Both errors at every threshold", tag("p", none))
    drawn = figure(pictures.det_picture(facts["det"], facts["curves"]), keys, caption, alone=True)
    return section("det", "Both errors at every threshold", drawn)


def reliability(facts: Facts) -> Markup:
    """Predicted against observed error rates; nothing without a calibration."""
    found = facts["reliability"]
    if not found:
        return Markup("")
    keys = [
        key("curve", f"held-out comparisons, {words.whole(found['confidence'])} intervals"),
        key("random", "ideal", "dotted"),
    ]
    error, chance = (words.number(found[name], 3) for name in ("calibration_error", "chance"))
    caption = (
        "Predicted probability of a false non-match against what happened, on comparisons that "
        f"the map was not fitted on. Calibration error {error} "
        f"(by chance alone {chance})."
    )
    drawn = figure(pictures.reliability_picture(found), keys, caption, alone=True)
    return section("reliability", "Can the probability be believed?", drawn)


def _target(preset: Facts) -> str:
    protocol = PROTOCOLS.get(preset["protocol"])
    if protocol is not None and protocol.rule == "starting_error":
        return f"FNMR {words.fmr(protocol.start_fnmr)}"
    return f"FMR {words.fmr(preset['fmr_target'])}"


def presets(facts: Facts) -> Markup:
    """The same comparisons under every preset."""
    found = facts["presets"]
    if not found:
        return Markup("")
    head = (
        "protocol", "target", "score threshold", "FNMR", "realised FMR", "FNMR at 10\u00a0%",
        "area", "relative to random",
    )  # fmt: skip
    rows = [
        (
            one["protocol"],
            _target(one),
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
        yield _tile(
            words.share(after["rate"]), "FNMR when the most uncertain 10\u00a0% are refused"
        )
    inside = head["interval"]
    ends = ""
    if inside:
        ends = f" ({words.number(inside['low'], 2)} to {words.number(inside['high'], 2)})"
    yield _tile(
        words.number(head["relative_area"], 3),
        f"{words.area_name(head['area_limit'])} relative to random{ends}; lower is better",
    )
    risk = facts["risk_control"]
    if risk and risk["uncertainty_threshold"] is not None:
        yield _tile(words.number(risk["uncertainty_threshold"]), "uncertainty threshold to set")
    elif after is not None:
        yield _tile(
            words.number(head["uncertainty_threshold"]),
            "uncertainty above which 10\u00a0% are refused",
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
        label = f"{words.whole(band['confidence'])} band (bootstrap over {unit})"
        keys.insert(1, key("curve", label, area=True))
    end = (
        ""
        if pictures.shown_to(curve) == pictures.WHOLE
        else (" Shown up to 50 %: hardly an error is left beyond.")
    )
    caption = (
        f"{name} on {facts['name']}, FMR {target}, protocol {facts['protocol']['name']}. Shaded: "
        f"the range of {words.area_name(facts['headline']['area_limit'])}.{end}"
    )
    heading = tag("h3", f"At FMR {target}")
    drawn = pictures.edc_picture(curve, f"edc{place}", facts["headline"]["area_limit"])
    alone = len(facts["curves"]) == 1
    return tag("div", heading, figure(drawn, keys, caption, alone=alone))


def _per_limit(values: dict[str, float | None]) -> Markup:
    return join(
        tag("small", f"to {limit}: {words.number(value, 3)}") for limit, value in values.items()
    )
