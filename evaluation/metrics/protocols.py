"""Evaluation protocols by name, and the switches that they set.

Two numbers from different protocols cannot be compared, so a report always says which one it used.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints

from evaluation.metrics.comparisons import Fuse
from evaluation.metrics.thresholds import Rule

Threshold = Literal["fixed", "per_subset"]
ReadAt = Literal["kept_score", "threshold", "above_threshold"]
DiscardOver = Literal["all", "mated", "each_kind", "images"]
Ties = Literal["keep", "together"]
Grid = Literal["percent", "by_5", "exact"]
Area = Literal["trapezoid", "step"]
AreaEnds = Literal["at_limit", "before_limit"]
Subtract = Literal["nothing", "half_square", "optimum"]
Divide = Literal["nothing", "start", "random"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The switches of one protocol; without any it is `original`.

    Attributes:
        name: of the preset.
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
            exact area of the ideal order).
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

    @property
    def reports_efficiency(self) -> bool:
        """Whether results have NIST's efficiency, as it goes with a threshold of NIST's kind."""
        return self.rule == "starting_error"

    def switches(self) -> dict[str, object]:
        """Return every switch by name, in plain types for JSON."""
        return {**asdict(self), "limits": list(self.limits)}

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
    *(
        (
            ("discard_over", "images"),
            ("fuse", fuse),
            "a pair is kept if both its images are, so only 'max' has a meaning",
        )
        for fuse in ("sum", "mean", "product")
    ),
)

SWITCHES: dict[str, tuple[str, ...]] = {
    name: get_args(hint)
    for name, hint in get_type_hints(Protocol).items()
    if get_origin(hint) is Literal
}

_ISO = Protocol(
    name="iso29794",
    rule="conservative",
    read_at="threshold",
    discard_over="mated",
    ties="together",
    grid="exact",
    area="step",
    area_ends="at_limit",
    limits=(0.2, 0.3),
)
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
        _ISO,
        replace(_ISO, name="pauc", divide="random"),
        replace(_ISO, name="nist", rule="starting_error", start_fnmr=0.01),
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
