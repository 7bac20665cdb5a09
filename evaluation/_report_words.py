"""Numbers as the report writes them, and the sentences of its summary. Formats, never computes."""

from __future__ import annotations

from typing import Any

UNITS = {"identity": "identities", "image": "images", "pair": "pairs"}


def share(value: float | None, digits: int = 3) -> str:
    """A rate as a percentage with so many significant digits; a dash for None."""
    if value is None:
        return "\u2013"
    if value == 0:
        return "0 %"
    places = max(0, digits - 1 - _exponent(100 * value))
    return f"{100 * value:.{min(places, 6)}f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash for None."""
    return "\u2013" if value is None else f"{value:.{digits}g}".replace("-", "\u2212", 1)


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def of(rate: dict[str, Any]) -> str:
    """Errors / total, as in 64/3500."""
    return f"{count(rate['errors'])}/{count(rate['total'])}"


def span(low: float | None, high: float | None) -> str:
    """An interval of a rate in per cent."""
    return f"{share(low)} to {share(high)}"


def fmr(target: float) -> str:
    """An FMR target, as in 0.001 or 1e-06."""
    return f"{target:g}"


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
        f"At the score threshold {number(head['score_threshold'])}, which lets about "
        f"{share(head['fmr_target'])} of the non-mated comparisons pass, {of(before)} = "
        f"{share(before['rate'])} of the mated ones are missed."
    )
    if after is not None:
        text += (
            f" Refusing the most uncertain {share(head['refused'], 1)} leaves {of(after)} = "
            f"{share(after['rate'])}."
        )
    return text


def area(facts: dict[str, Any]) -> str:
    """AUERC30 relative to random, with what is known about its interval."""
    head = facts["headline"]
    value = head["relative_auerc30"]
    if value is None:
        return "AUERC30 relative to random is undefined: there is no false non-match to avoid."
    text = f"AUERC30 is {number(value, 3)} of that of refusing at random"
    inside = head["interval"]
    if inside is None:
        return text + " (1 = no better than chance, lower is better). No interval was computed."
    return (
        f"{text}, {share(inside['confidence'], 2)} interval {number(inside['low'], 3)} to "
        f"{number(inside['high'], 3)} over {UNITS[inside['unit']]} (1 = no better than chance, "
        "lower is better)."
    )


def few_non_mated(facts: dict[str, Any]) -> str:
    """What the realised FMR of the summary's threshold rests on."""
    passed = facts["headline"]["fmr_before"]
    return f"The realised FMR is {of(passed)} = {share(passed['rate'])}."


def _exponent(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])
