"""A small stacked histogram as SVG, in the colours of the verdicts; drawn for contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from report._markup import Markup, tag
from report._words import count as counted

COLOUR = {
    "refuse": "var(--bad)",
    "ask again": "var(--warn)",
    "accept": "var(--good)",
    "": "var(--curve)",
}
_WIDTH, _HEIGHT, _GAP = 600, 120, 3


def histogram(
    counts: Mapping[str, NDArray[np.int64]],
    ranges: Sequence[str],
    ends: Sequence[str],
    title: str,
    even: float | None = None,
) -> Markup:
    """Bars, with the numbers at both ends and in the middle below them.

    Args:
        counts: for each verdict ("" for none) how many are in each of the n bins.
        ranges: n texts, what each bin holds.
        ends: what stands below the axis, evenly spread.
        title: what a screen reader says.
        even: height of a dashed line.
    """
    total = np.sum(list(counts.values()), axis=0)
    top = max(float(total.max(initial=0)), even or 0.0, 1.0)
    step = _WIDTH / len(total)
    drawn: list[Markup] = []
    for place, name in enumerate(ranges):
        parts = {verdict: int(each[place]) for verdict, each in counts.items() if each[place]}
        said = ", ".join(f"{one} {counted(many)}" for one, many in parts.items() if one)
        label = f"{name}: {counted(int(total[place]))} faces" + (f" ({said})" if said else "")
        bars, base = [tag("title", label)], float(_HEIGHT)
        for verdict, many in parts.items():
            height = many / top * (_HEIGHT - 4)
            base -= height
            bars.append(_bar(place * step, base, step - _GAP, height, verdict))
        drawn.append(tag("g", *bars))
    if even is not None:
        y = f"{_HEIGHT - even / top * (_HEIGHT - 4):.1f}"
        drawn.append(tag("line", x1="0", x2=str(_WIDTH), y1=y, y2=y, class_="even"))
    axis = tag("line", x1="0", x2=str(_WIDTH), y1=str(_HEIGHT), y2=str(_HEIGHT), class_="axis")
    picture = tag(
        "svg",
        *drawn,
        axis,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + 1}",
        role="img",
        aria_label=title,
        preserveAspectRatio="none",
    )
    below = tag("p", *(tag("span", one) for one in ends), class_="ends")
    return tag("div", picture, below, class_="histogram")


def _bar(x: float, y: float, width: float, height: float, verdict: str) -> Markup:
    return tag(
        "rect",
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        width=f"{width:.1f}",
        height=f"{height:.1f}",
        fill=COLOUR[verdict],
    )
