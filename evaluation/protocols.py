"""Evaluation protocols by name: which switches they set, and the same in words for every report.

Two numbers from different protocols cannot be compared, so a report always says which one it used.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from evaluation.scores import Fuse


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The switches of one protocol.

    Attributes:
        name: under which it is found.
        threshold: score threshold of the FNMR curve: "fixed" on all pairs, or found again
            "per_subset", on the pairs that are kept at each discard fraction.
        fuse: how the uncertainties of two images become the pair's: "max" or "sum".
    """

    name: str
    threshold: Literal["fixed", "per_subset"] = "fixed"
    fuse: Fuse = "max"

    def describe(self) -> str:
        """Say in words what is measured."""
        threshold = {
            "fixed": "one score threshold for the curve, found on all pairs (FNMR is read at the "
            "kept score nearest to it)",
            "per_subset": "score threshold found again on the kept pairs at each discard fraction",
        }[self.threshold]
        fuse = {"max": "the larger of its two images'", "sum": "the sum of its two images'"}
        return (
            f"protocol {self.name}: cosine scores; a pair's uncertainty is {fuse[self.fuse]}; "
            "pairs of both kinds are discarded together, those up to the percentile are kept, ties "
            f"with them; {threshold}; the threshold is the one whose FMR is nearest to the target "
            "(it may exceed it); areas by trapezoids over discard fractions 0 to 0.99 by 0.01"
        )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="original"),
        Protocol(name="original-mcdropout", threshold="per_subset"),
        Protocol(name="original-mcdropout-sum", threshold="per_subset", fuse="sum"),
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
