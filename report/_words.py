"""Numbers as the report writes them, and the sentences of its summary. Formats, never computes."""

from __future__ import annotations

from typing import Any

UNITS = {"identity": "identities", "image": "images", "pair": "pairs"}
PERCENT = "\u00a0%"  # does not part from its number at the end of a line


def share(value: float | None, digits: int = 3) -> str:
    """A rate as a percentage with so many significant digits; a dash for None."""
    if value is None:
        return "\u2013"
    if value in (0, 1):
        return f"{100 * value:.0f}{PERCENT}"
    places = max(0, digits - 1 - _exponent(100 * value, digits))
    return f"{100 * value:.{min(places, 6)}f}{PERCENT}"


def whole(value: float) -> str:
    """A round share as a percentage without needless digits, as in 0.1 % or 10 %."""
    return f"{100 * value:.6g}{PERCENT}"


def area_name(limit: float) -> str:
    """AUERC30 for a limit of 0.3, AUERC for 1."""
    return "AUERC" if limit == 1 else f"AUERC{limit * 100:.3g}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash for None."""
    return "\u2013" if value is None else f"{value:.{digits}g}".replace("-", "\u2212", 1)


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def of(rate: dict[str, Any]) -> str:
    """Errors / total, as in 64/3500."""
    return f"{count(rate['errors'])}/{count(rate['total'])}"


def counted(rate: dict[str, Any]) -> str:
    """Counts and rate, as in 64/3500 = 1.83 %."""
    return f"{of(rate)}\u00a0=\u00a0{share(rate['rate'])}"


def span(low: float | None, high: float | None) -> str:
    """An interval of a rate in per cent."""
    return f"{share(low)} to {share(high)}"


def fmr(target: float | None) -> str:
    """An FMR target, as in 0.001 or 1e-06; a dash where no non-mated score is known."""
    return "\u2013" if target is None else f"{target:.3g}"


def tested(facts: dict[str, Any]) -> str:
    """What was tested, in one or two sentences."""
    found = facts["set"]
    people = found["identities"]
    images = f"{count(found['images'])} images"
    who = images if people is None else f"{images} of {count(people)} people"
    return (
        f"{facts['method']} was tested on {facts['name']}: {who}, "
        f"{count(found['comparisons'])} comparisons, {count(found['mated'])} of them mated (one "
        f"person) and {count(found['non_mated'])} non-mated (two)."
    )


def outcome(facts: dict[str, Any]) -> str:
    """What refusing the most uncertain comparisons buys, in words."""
    head = facts["headline"]
    before, after = head["fnmr_before"], head["fnmr_after"]
    text = (
        f"At the score threshold {number(head['score_threshold'])}, {counted(before)} of the mated "
        f"comparisons are missed, and {counted(head['fmr_before'])} of the non-mated ones pass "
        f"(FMR target {fmr(head['fmr_target'])})."
    )
    if after is not None:
        text += f" Refusing the most uncertain {whole(head['refused'])} leaves {counted(after)}."
    return text


def area(facts: dict[str, Any]) -> str:
    """The area relative to random, with what is known about its interval."""
    head = facts["headline"]
    value, name = head["relative_area"], area_name(head["area_limit"])
    if value is None:
        return f"{name} relative to random is undefined: there is no false non-match to avoid."
    text = f"{name} (the area under the curve) is {number(value, 3)} of that of refusing at random"
    inside = head["interval"]
    if inside is None:
        return text + " (1 is no better than chance; lower is better). No interval was computed."
    return (
        f"{text}, {whole(inside['confidence'])} interval {number(inside['low'], 3)} to "
        f"{number(inside['high'], 3)} by bootstrap over {UNITS[inside['unit']]} (1 is no better "
        "than chance; lower is better)."
    )


def _exponent(value: float, digits: int) -> int:
    return int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.996 is 10.0
