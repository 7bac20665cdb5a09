"""Numbers as the report writes them, and the sentences of its summary. Formats, never computes."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from evaluation.metrics.protocols import PROTOCOLS
from report.sentences import UNITS, area_name

if TYPE_CHECKING:
    from report.facts import Preset, Rate, ReportFacts

_ENDING = 12  # characters from the end of a file name, where the number often is
PERCENT = "\u00a0%"  # stays with its number at the end of a line


def share(value: float | None, digits: int = 3) -> str:
    """A rate as a percentage with so many significant digits; a dash for None."""
    if value is None:
        return "\u2013"
    if value in (0, 1):
        return f"{100 * value:.0f}{PERCENT}"
    exponent = int(f"{100 * value:.{digits - 1}e}".partition("e")[2])  # rounded: 9.996 is 10.0
    return f"{100 * value:.{min(max(0, digits - 1 - exponent), 6)}f}{PERCENT}"


def whole(value: float) -> str:
    """A round share as a percentage without needless digits, as in 0.1 % or 10 %."""
    return f"{100 * value:.6g}{PERCENT}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash for None."""
    return "\u2013" if value is None else f"{value:.{digits}g}".replace("-", "\u2212", 1)


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def plural(value: int, noun: str) -> str:
    """A count with its noun, as in 1 face or 2 faces."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def of(rate: Rate) -> str:
    """Errors / total, as in 64/3500."""
    return f"{count(rate.errors)}/{count(rate.total)}"


def counted(rate: Rate) -> str:
    """Counts and rate, as in 64/3500 = 1.83 %."""
    return f"{of(rate)}\u00a0=\u00a0{share(rate.rate)}"


def fmr(target: float | None) -> str:
    """An FMR target, as in 0.001 or 1e-06; a dash where no non-mated score is known."""
    return "\u2013" if target is None else f"{target:.3g}"


def target(preset: Preset) -> str:
    """What fixed the threshold of a preset, as in FMR 0.001."""
    protocol = PROTOCOLS.get(preset.protocol)
    if protocol is not None and protocol.rule == "starting_error":
        return f"FNMR {fmr(protocol.start_fnmr)}"
    return f"FMR {fmr(preset.fmr_target)}"


def visible(text: str) -> str:
    r"""Text on one line with everything invisible spelled out, as in \n or \u202e.

    Undecodable bytes of a file name appear as \udc80 to \udcff.
    """
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(name: str, longest: int = 24) -> str:
    """A name that fits on a card: outer folders go first, then the middle of the file's name."""
    if len(name) <= longest:
        return name
    fits = re.search(rf"(?<=[/\\]).{{1,{longest - 1}}}$", name)
    if fits:
        return f"\u2026{fits[0]}"
    base = re.split(r"[/\\]", name)[-1]
    return f"{base[: longest - _ENDING - 1]}\u2026{base[-_ENDING:]}"


def slug(word: str) -> str:
    """A verdict or a reason as a CSS class."""
    return "is-" + "".join(char if char.isalnum() else "-" for char in word.lower())


def tested(facts: ReportFacts) -> str:
    """What was tested, in one or two sentences."""
    size = facts.set
    images = f"{count(size.images)} images"
    who = images if size.identities is None else f"{images} of {count(size.identities)} people"
    return (
        f"{facts.method} was tested on {facts.name}: {who}, "
        f"{count(size.comparisons)} comparisons, {count(size.mated)} of them mated (one "
        f"person) and {count(size.non_mated)} non-mated (two)."
    )


def outcome(facts: ReportFacts) -> str:
    """What refusing the most uncertain comparisons buys, in words."""
    head = facts.headline
    text = (
        f"At the score threshold {number(head.score_threshold)}, {counted(head.fnmr_before)} of "
        f"the mated comparisons are missed, and {counted(head.fmr_before)} of the non-mated ones "
        f"pass (FMR target {fmr(head.fmr_target)})."
    )
    if head.fnmr_after is not None:
        left = counted(head.fnmr_after)
        text += f" Refusing the most uncertain {whole(head.refused)} leaves {left}."
    return text


def area(facts: ReportFacts) -> str:
    """The area relative to random, with what is known about its interval."""
    head = facts.headline
    name, interval = area_name(head.area_limit), head.interval
    if head.relative_area is None:
        return f"{name} relative to random is undefined: there is no false non-match to avoid."
    text = (
        f"{name} (the area under the curve) is {number(head.relative_area, 3)} of that of "
        "refusing at random"
    )
    if interval is None:
        return text + " (1 is no better than chance; lower is better). No interval was computed."
    return (
        f"{text}, {whole(interval.confidence)} interval {number(interval.low, 3)} to "
        f"{number(interval.high, 3)} by bootstrap over {UNITS[interval.unit]} (1 is no better "
        "than chance; lower is better)."
    )


def risk_lines(facts: ReportFacts) -> list[str]:
    """The threshold for a stated risk and its facts, without the set's name; [] without one."""
    risk = facts.risk_control
    if risk is None:
        return []
    return str(risk["in_words"]).removeprefix(f"{risk['name']}: ").splitlines()
