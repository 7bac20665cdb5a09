"""The top of a contact sheet as HTML: the model in words, counts, histogram, what can be seen.

For report.sheet.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from report import _words as words
from report._markup import Markup, join, section, table, tag, with_small
from report._sheet_faces import plain, slug
from report._sheet_histogram import COLOUR, histogram
from report._sheet_tally import BINS, Tally

_DEMO = "DEMO"
_PARTED = re.compile(r";(?![^()]*\))")  # not inside brackets
_LEAST_TO_COUNT = 10  # faces; of fewer the cards say all


def head(header: str, title: str, tally: Tally) -> Markup:
    """Title, the model's line in its parts, and a warning where its label says DEMO."""
    parts = [plain(one.strip()) for one in _PARTED.split(header) if one.strip()]
    labels = [one for one in parts if _DEMO in one]
    lines = tag("ul", *(tag("li", one) for one in parts if one not in labels), class_="model")
    over = tag("p", "Contact sheet, from worst to best", class_="over")
    demo = _demo(labels) if labels else Markup("")
    return tag("header", over, tag("h1", plain(title) or _found(tally)), demo, lines)


def summary(tally: Tally, sampled: NDArray[np.float64]) -> Markup:
    """Counts; with more than a handful of faces the histogram and the table of reasons."""
    if tally.faces < _LEAST_TO_COUNT:
        return _tiles(tally)
    overview = tag("div", _spread(tally, sampled), _seen(tally), class_="overview")
    return join([_tiles(tally), overview])


def _found(tally: Tally) -> str:
    return f"{words.count(tally.faces)} {'face' if tally.faces == 1 else 'faces'}"


def _demo(labels: list[str]) -> Markup:
    return tag(
        "div",
        tag("h2", "This is a demo model"),
        *(tag("p", one) for one in labels),
        tag("p", "Decide nothing about real people by its numbers."),
        class_="warnings demo",
        role="note",
    )


def _tiles(tally: Tally) -> Markup:
    found = [("face scored" if tally.faces == 1 else "faces scored", tally.faces, "", "")]
    for verdict in tally.given:
        many = tally.verdicts[verdict]
        found.append((verdict, many, words.share(many / tally.faces, 2), slug(verdict)))
    found += [
        (label, tally.statuses[status], "", "")
        for status, label in (("no face", "without a face"), ("unreadable", "unreadable"))
        if tally.statuses[status]
    ]
    tiles = [
        tag(
            "li",
            tag("b", words.count(many)),
            tag("span", f"{label}, {share}" if share else label),
            class_=f"tile {kind}".strip(),
        )
        for label, many, share, kind in found
    ]
    return tag("ul", *tiles, class_="tiles")


def _spread(tally: Tally, sampled: NDArray[np.float64]) -> Markup:
    counts = tally.histogram()
    if counts:
        return _of_quality(counts, tally)
    if len(sampled) == 0 or np.ptp(sampled) == 0:
        return Markup("")
    edges = np.linspace(sampled.max(), sampled.min(), BINS + 1)
    many = np.histogram(sampled, edges[::-1])[0][::-1]
    ranges = [f"uncertainty {high:.4g} to {low:.4g}" for high, low in pairwise(edges)]
    ends = [words.number(float(one)) for one in edges[[0, BINS // 2, BINS]]]
    of = "all faces"
    if len(sampled) < tally.faces:
        of = f"{words.count(len(sampled))} faces drawn at random"
    caption = f"Uncertainty of {of}; the most uncertain on the left."
    drawn = histogram({"": many}, ranges, ends, caption)
    return section("spread", "Uncertainty", drawn, tag("p", caption, class_="note"))


def _of_quality(counts: dict[str, NDArray[np.int64]], tally: Tally) -> Markup:
    width = 100 // BINS
    ranges = [f"quality {low} to {low + width - 1}" for low in range(0, 100, width)]
    ranges[-1] = f"quality {100 - width} to 100"
    total = tally.faces - tally.without_quality
    title = f"Histogram of the quality of {words.count(total)} faces, worst on the left"
    drawn = histogram(counts, ranges, ("0", "25", "50", "75", "100"), title, even=total / BINS)
    keys = [tag("li", tag("i", style=f"background: {COLOUR[one]}"), one) for one in counts if one]
    caption = (
        "Quality is a rank among the faces of the calibration set, 100 = best. Faces like those "
        "would all reach the dashed line; a heap on the left means that yours are poorer."
    )
    if tally.without_quality:
        caption += f" {words.count(tally.without_quality)} faces have no quality."
    key = tag("ul", *keys, class_="key") if keys else Markup("")
    return section("spread", "Quality", drawn, key, tag("p", caption, class_="note"))


def _seen(tally: Tally) -> Markup:
    """Reasons against verdicts, as shares of the faces with that verdict."""
    columns = tally.given if len(tally.given) > 1 else []
    rows = []
    for reason in tally.reasons():
        by_verdict = {one: tally.seen[reason, one] for one in tally.verdicts}
        rows.append(_row(reason, by_verdict, columns, tally))
    rows.append(_row("nothing of these", dict(tally.plain), columns, tally))
    shown = table("Faces with each reason", ["reason", "all", *columns], rows)
    caption = (
        "Simple measures of the pixels and the landmarks, apart from the model; a face may have "
        "several, and a good photo can have one."
    )
    return section("seen", "What can be seen", shown, tag("p", caption, class_="note"))


def _row(name: str, found: dict[str, int], columns: list[str], tally: Tally) -> list[Markup | str]:
    total = sum(found.values())
    cells = [with_small(words.share(total / tally.faces, 2), words.count(total))]
    for one in columns:
        many = found.get(one, 0)
        cells.append(with_small(words.share(many / tally.verdicts[one], 2), words.count(many)))
    return [name, *cells]
