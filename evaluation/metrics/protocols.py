"""Evaluation protocols by name: which switches they set, and the same in words for every report.

Two numbers from different protocols cannot be compared, so a report always says which one it used.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from evaluation.metrics.comparisons import Fuse

Threshold = Literal["fixed", "per_subset"]
Rule = Literal["nearest", "conservative", "interpolated", "starting_error"]
ReadAt = Literal["kept_score", "threshold", "above_threshold"]
DiscardOver = Literal["all", "mated", "each_kind", "images"]
Ties = Literal["keep", "together"]
Grid = Literal["percent", "by_5", "exact"]
Area = Literal["trapezoid", "step"]
AreaEnds = Literal["at_limit", "before_limit"]
Subtract = Literal["nothing", "half_square", "optimum"]
Divide = Literal["nothing", "start", "random"]

_WORDS: dict[str, dict[str, str]] = {
    "fuse": {
        "max": "the larger of its two images'",
        "mean": "the mean of its two images'",
        "sum": "the sum of its two images'",
        "product": "the product of its two images'",
    },
    "discard_over": {
        "all": "pairs of both kinds are discarded together",
        "mated": "only mated pairs are discarded",
        "each_kind": "mated and non-mated pairs are discarded in equal proportion",
        "images": "images are discarded (an image's uncertainty is the largest of its rows'), and "
        "every pair with them",
    },
    "ties": {
        "keep": "those up to the interpolated percentile are kept, ties with them",
        "together": "ties leave together, once the discard fraction has room for all of them",
    },
    "threshold": {
        "fixed": "one score threshold for the curve, found on all pairs",
        "per_subset": "score threshold found again on the kept pairs at each discard fraction",
    },
    "rule": {
        "nearest": "the threshold is the one whose FMR is nearest to the target (it may exceed it)",
        "conservative": "the threshold is the lowest one with FMR <= target",
        "interpolated": "the threshold lies on the line between the two scores whose FMR enclose "
        "the target",
        "starting_error": "the threshold is the one whose FNMR without discard is nearest to "
        "{start_fnmr:g} (the FMR target is not used)",
    },
    "read_at": {
        "kept_score": "FNMR is read at the kept score nearest to it",
        "threshold": "FNMR counts the kept mated scores below it",
        "above_threshold": "FNMR counts the kept mated scores at or below it",
    },
    "grid": {
        "percent": "discard fractions 0 to 0.99 by 0.01",
        "by_5": "discard fractions 0 to 0.95 by 0.05",
        "exact": "discard fractions with one step per distinct uncertainty",
    },
    "area": {"trapezoid": "areas by trapezoids", "step": "areas under steps"},
    "area_ends": {
        "at_limit": "up to {limits}",
        "before_limit": "up to the last fraction below {limits}",
    },
    "subtract": {
        "nothing": "",
        "half_square": ", less e min(e, limit) / 2 with e = FNMR without discard",
        "optimum": ", less the area of the best possible order",
    },
    "divide": {
        "nothing": "",
        "start": ", divided by FNMR without discard",
        "random": ", divided by the area of random discard",
    },
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The switches of one protocol; without any it is `original`.

    Attributes:
        name: under which it is found.
        threshold: score threshold of the FNMR curve: "fixed" on all pairs, or found again
            "per_subset", on the pairs that are kept at each discard fraction.
        rule: which threshold: FMR "nearest" to the target, "conservative" (the lowest with FMR <=
            target), "interpolated", or "starting_error" (FNMR without discard nearest to
            `start_fnmr`, whatever the FMR).
        start_fnmr: of "starting_error".
        read_at: where FNMR is counted under a fixed threshold: at the kept score nearest to it
            ("kept_score"), below the "threshold", or with scores equal to it as errors
            ("above_threshold").
        discard_over: pairs of both kinds together ("all"), "mated" pairs alone, both kinds in equal
            proportion ("each_kind"), or "images" with all their pairs.
        fuse: how the uncertainties of two images become the pair's.
        ties: "keep" all pairs up to the interpolated percentile, or let equal uncertainties leave
            "together" when the fraction has room for the whole group.
        grid: discard fractions: "percent" (0 to .99), "by_5" (0 to .95), or "exact" (one step per
            distinct uncertainty).
        area: "trapezoid" between the points, or "step" (a value holds until the next point).
        area_ends: "at_limit", or "before_limit" at the last point below it.
        limits: discard fractions up to which areas are taken.
        subtract: from an area: "nothing", "half_square" (e min(e, limit) / 2) or "optimum" (the
            exact area of the best possible order).
        divide: what is left by "nothing", "start" (e) or "random" (the area of random discard).

    Raises:
        ValueError: an unknown value, or switches that contradict each other.
    """

    name: str
    threshold: Threshold = "fixed"
    rule: Rule = "nearest"
    start_fnmr: float = 0.05
    read_at: ReadAt = "kept_score"
    discard_over: DiscardOver = "all"
    fuse: Fuse = "max"
    ties: Ties = "keep"
    grid: Grid = "percent"
    area: Area = "trapezoid"
    area_ends: AreaEnds = "before_limit"
    limits: tuple[float, ...] = (0.3, 1.0)
    subtract: Subtract = "nothing"
    divide: Divide = "nothing"

    def __post_init__(self) -> None:
        for name, values in SWITCHES.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"protocol {self.name}: unknown {name} {getattr(self, name)!r} (known: "
                    f"{', '.join(values)})"
                )
        if not 0 < self.start_fnmr < 1:
            raise ValueError(
                f"protocol {self.name}: start_fnmr {self.start_fnmr} is not between 0 and 1"
            )
        if not self.limits or not all(0 < limit <= 1 for limit in self.limits):
            raise ValueError(
                f"protocol {self.name}: limits {self.limits} must be one or more discard fractions "
                "above 0, up to 1"
            )
        self._check_pairs()

    @property
    def prints_original(self) -> bool:
        """Whether the original's printed block can be made: only threshold and fuse may differ."""
        same = Protocol(name=self.name, threshold=self.threshold, fuse=self.fuse)
        return self == same

    def switches(self) -> dict[str, Any]:
        """Return every switch by name, in plain types for JSON, and the same in words."""
        return {**asdict(self), "limits": list(self.limits), "in_words": self.describe()}

    def describe(self, scores: str = "") -> str:
        """Say in words what is measured: every switch, and before them what the scores are."""
        words = [scores, *self._sentences()] if scores else self._sentences()
        return f"protocol {self.name}: {'; '.join(words)}"

    def _sentences(self) -> list[str]:
        limits = ", ".join(f"{limit:g}" for limit in self.limits)
        word = {
            name: words[getattr(self, name)].format(limits=limits, start_fnmr=self.start_fnmr)
            for name, words in _WORDS.items()
        }
        read = (
            ""
            if self.threshold == "per_subset" and self.read_at == "kept_score"
            else (f" ({word['read_at']})")
        )
        pair = f"a pair's uncertainty is {word['fuse']}"
        images = self.discard_over == "images"
        return [
            word["discard_over"] if images else f"{pair}; {word['discard_over']}",
            word["ties"],
            word["threshold"] + read,
            word["rule"],
            f"{word['area']} over {word['grid']}, {word['area_ends']}{word['subtract']}"
            f"{word['divide']}",
        ]

    def _check_pairs(self) -> None:
        for this, that, reason in _CONTRADICTIONS:
            if all(getattr(self, name) == value for name, value in (this, that)):
                raise ValueError(
                    f"protocol {self.name}: {this[0]} {this[1]!r} does not go with {that[0]} "
                    f"{that[1]!r}: {reason}"
                )


_CONTRADICTIONS = (
    (
        ("grid", "exact"),
        ("ties", "keep"),
        "a step per distinct uncertainty means that ties leave 'together'",
    ),
    (
        ("grid", "exact"),
        ("threshold", "per_subset"),
        "a threshold per step costs time that grows with the square of the pairs: use 'percent'",
    ),
    (
        ("rule", "starting_error"),
        ("threshold", "per_subset"),
        "every point of such a curve would be start_fnmr: use 'fixed'",
    ),
    (
        ("discard_over", "images"),
        ("subtract", "optimum"),
        "an image takes several pairs with it, so the best order of images is not known",
    ),
    (
        ("discard_over", "images"),
        ("fuse", "sum"),
        "a pair is kept if both its images are, so only 'max' has a meaning",
    ),
    (
        ("discard_over", "images"),
        ("fuse", "mean"),
        "a pair is kept if both its images are, so only 'max' has a meaning",
    ),
    (
        ("discard_over", "images"),
        ("fuse", "product"),
        "a pair is kept if both its images are, so only 'max' has a meaning",
    ),
)

SWITCHES: dict[str, tuple[str, ...]] = {
    one.name: get_args(get_type_hints(Protocol)[one.name])
    for one in fields(Protocol)
    if one.name in _WORDS
}

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="original"),
        Protocol(name="original-mcdropout", threshold="per_subset"),
        Protocol(name="original-mcdropout-sum", threshold="per_subset", fuse="sum"),
        Protocol(name="lightqnet", limits=(1.0,), subtract="half_square"),
        Protocol(
            name="crfiqa",
            threshold="per_subset",
            read_at="above_threshold",
            ties="together",
            grid="by_5",
            area_ends="at_limit",
            limits=(0.3, 0.95),
        ),
        Protocol(
            name="iso29794",
            rule="conservative",
            read_at="threshold",
            discard_over="mated",
            ties="together",
            grid="exact",
            area="step",
            area_ends="at_limit",
            limits=(0.2, 0.3),
        ),
        Protocol(
            name="nist",
            rule="starting_error",
            start_fnmr=0.01,
            read_at="threshold",
            discard_over="mated",
            ties="together",
            grid="exact",
            area="step",
            area_ends="at_limit",
            limits=(0.2, 0.3),
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        ValueError: there is none of that name; the message lists those that exist.
    """
    if name not in PROTOCOLS:
        close = difflib.get_close_matches(name, PROTOCOLS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown protocol {name!r}{hint} (known: {', '.join(PROTOCOLS)})")
    return PROTOCOLS[name]
