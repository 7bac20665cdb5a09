"""A contact sheet: scored faces from worst to best on one HTML page, with what can be seen in them.

score_images writes it; `SheetBuilder` takes any number of rows in little memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from report import words
from report.face_score import NOT_COMPUTED, FaceScore
from report.page import render
from report.sheet_rows import BINS, VERDICTS, Groups, Picks, Pixels, Shown, Tally
from utils.files import write_text

__all__ = ["Pixels", "SheetBuilder"]

COLOUR = {
    "refuse": "var(--bad)",
    "ask again": "var(--warn)",
    "accept": "var(--good)",
    "": "var(--curve)",
}
FEWEST_TO_COUNT = 10  # faces; of fewer the cards say all
_WIDTH, _HEIGHT, _GAP = 600, 120, 3  # of the histogram


class SheetBuilder:
    """Takes rows one by one and keeps what the page shows of them.

    That is the worst and the best faces, a random sample for the even steps between, counts, and
    the first images without a face. Equal rows in equal order give equal pages.

    Args:
        worst: faces with the largest uncertainty to show.
        between: faces to show at even steps of rank between those and the best.
        best: faces with the smallest uncertainty to show.
        failures: images without a face, and unreadable ones, to list of each kind.
    """

    def __init__(
        self, *, worst: int = 120, between: int = 60, best: int = 60, failures: int = 200
    ) -> None:
        self._picks = Picks(worst, between, best)
        self._tally = Tally(failures)

    def add(self, score: FaceScore, name: str) -> None:
        """Add a row: a face of the photo of that name, or why there is none.

        Its pixels (`aligned`) may be missing, and may be overwritten afterwards.
        """
        self._tally.add(score, name)
        if score.status == "scored":
            self._picks.add(score, name)

    def write(
        self, path: str | Path, header: str, *, title: str = "", pixels: Pixels | None = None
    ) -> Path:
        """Write the page, whole or not at all; more rows may be added afterwards.

        Args:
            path: of the HTML file, which is returned; its folder is made.
            header: model, direction and thresholds, parted by semicolons. Where it says DEMO, the
                page warns.
            title: its heading; by default the number of faces.
            pixels: asked for the faces shown that came without pixels, as after a resumed run.

        Raises:
            ValueError: `path` is a folder, or no row was added.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path}: a contact sheet is a file (.html), but a folder is there")
        if not self._tally.statuses:
            raise ValueError(f"{path}: no row was scored, so there is nothing to show")
        write_text(path, self._page(header, title, pixels))
        return path

    def _page(self, header: str, title: str, pixels: Pixels | None) -> str:
        tally, groups = self._tally, self._picks.groups(pixels)
        faces = list(chain.from_iterable(groups))
        reasons = sorted({reason for face in faces for reason in face.score.reasons})
        shown_verdicts = {face.score.verdict for face in faces}
        verdicts = [verdict for verdict in VERDICTS if verdict in shown_verdicts]
        model = re.split(r";(?![^()]*\))", header)  # not inside brackets
        has_overview = tally.faces >= FEWEST_TO_COUNT
        return render(
            "sheet.html",
            title=title,
            model=[words.visible(part.strip()) for part in model if part.strip()],
            tally=tally,
            has_overview=has_overview,
            histogram=_histogram(tally, self._picks.sampled()) if has_overview else None,
            reasons=[*tally.by_reason(), ("none of the above", tally.without_reason)],
            groups=_titled(groups, tally.faces),
            choices=[
                ("verdict", "Verdict", verdicts if len(shown_verdicts) > 1 else []),
                ("reason", "What can be seen", reasons),
            ],
            classes=sorted(map(words.slug, (*verdicts, *reasons))),
            not_computed=NOT_COMPUTED,
            failures=[
                ("no face", "Images without a face"),
                ("unreadable", "Images that could not be read"),
            ],
        )


def _titled(groups: Groups, total: int) -> list[tuple[str, list[Shown]]]:
    """Headings and faces of each group that has any; "" where all faces are shown."""
    if not (groups.between or groups.best):
        return [("", groups.worst)] if groups.worst else []
    of_all = words.count(total)
    headings = (
        f"The {words.count(len(groups.worst))} worst of {of_all}",
        f"Between them: {words.count(len(groups.between))} at even steps",
        f"The {words.count(len(groups.best))} best of {of_all}",
    )
    return [(text, faces) for text, faces in zip(headings, groups, strict=True) if faces]


@dataclass(frozen=True)
class _Bar:
    """A part of a column, in pixels from the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class _Histogram:
    """Stacked columns in the colours of the verdicts."""

    heading: str
    title: str  # what a screen reader says
    columns: list[tuple[str, list[_Bar]]]  # what each holds, and its parts from below
    ends: Sequence[str]  # texts below the axis, evenly spread
    even: float | None  # y of a dashed line
    key: list[tuple[str, str]]  # verdicts and their colours
    caption: str
    width: int = _WIDTH
    height: int = _HEIGHT


def _histogram(tally: Tally, sampled: NDArray[np.float64]) -> _Histogram | None:
    """Of quality where faces have one, else of a sample of uncertainties; None without either."""
    counts = tally.quality_counts()
    if counts:
        return _of_quality(counts, tally)
    if len(sampled) == 0 or np.ptp(sampled) == 0:
        return None
    edges = np.linspace(sampled.max(), sampled.min(), BINS + 1)
    column = np.histogram(sampled, edges[::-1])[0][::-1]
    ranges = [f"uncertainty {high:.4g} to {low:.4g}" for high, low in pairwise(edges)]
    source = "all faces"
    if len(sampled) < tally.faces:
        source = f"{words.count(len(sampled))} faces drawn at random"
    caption = f"Uncertainty of {source}; the most uncertain on the left."
    return _Histogram(
        heading="Uncertainty",
        title=caption,
        columns=_columns({"": column}, ranges, float(column.max())),
        ends=[words.number(float(edge)) for edge in edges[[0, BINS // 2, BINS]]],
        even=None,
        key=[],
        caption=caption,
    )


def _of_quality(counts: Mapping[str, NDArray[np.int64]], tally: Tally) -> _Histogram:
    width = 100 // BINS
    ranges = [f"quality {low} to {low + width - 1}" for low in range(0, 100, width)]
    ranges[-1] = f"quality {100 - width} to 100"
    total = tally.faces - tally.without_quality
    even = total / BINS
    top = max(float(np.sum(list(counts.values()), axis=0).max()), even, 1.0)
    caption = (
        "Quality is a rank among the faces of the calibration set, 100 = best. Faces like those "
        "would all reach the dashed line; a heap on the left means that yours are of lower quality."
    )
    if tally.without_quality:
        caption += f" Without quality: {words.plural(tally.without_quality, 'face')}."
    return _Histogram(
        heading="Quality",
        title=f"Histogram of the quality of {words.count(total)} faces, worst on the left",
        columns=_columns(counts, ranges, top),
        ends=("0", "25", "50", "75", "100"),
        even=_HEIGHT - even / top * (_HEIGHT - 4),
        key=[(verdict, COLOUR[verdict]) for verdict in counts if verdict],
        caption=caption,
    )


def _columns(
    counts: Mapping[str, NDArray[np.int64]], ranges: Sequence[str], top: float
) -> list[tuple[str, list[_Bar]]]:
    """Columns of the verdicts' counts, with what each holds; a column of `top` is the highest."""
    step = _WIDTH / len(ranges)
    columns = []
    for place, name in enumerate(ranges):
        parts = Counter({verdict: int(bins[place]) for verdict, bins in counts.items()})
        text = f"{name}: {words.plural(parts.total(), 'face')}"
        if details := ", ".join(f"{key} {words.count(n)}" for key, n in parts.items() if key and n):
            text += f" ({details})"
        bars, base = [], float(_HEIGHT)
        for verdict, many in parts.items():
            if many:
                height = many / top * (_HEIGHT - 4)
                base -= height
                bars.append(_Bar(place * step, base, step - _GAP, height, COLOUR[verdict]))
        columns.append((text, bars))
    return columns
