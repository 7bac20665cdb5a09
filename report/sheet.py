"""A contact sheet: scored faces from worst to best on one HTML page, with what can be seen in them.

score_images writes it; `SheetBuilder` takes any number of rows in little memory.
"""

from __future__ import annotations

import heapq
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.images import decode, encode_jpeg
from report import words
from report.page import Explain, map_pictures, render
from utils.files import visible, write_text

__all__ = ["Pixels", "SheetBuilder"]

COLOUR = {
    "refuse": "var(--bad)",
    "ask again": "var(--warn)",
    "accept": "var(--good)",
    "": "var(--curve)",
}
FEWEST_TO_COUNT = 10  # faces; of fewer the cards say all
_WIDTH, _HEIGHT, _GAP = 600, 120, 3  # of the histogram
Status = Literal["scored", "no face", "unreadable"]
Verdict = Literal["accept", "ask again", "refuse", ""]
NO_FACE = -1  # face index of a row that says why there is no face
NOT_COMPUTED = 255  # ISO/IEC 29794-1: no quality could be computed
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
JPEG_QUALITY = 88
BINS = 20  # of quality, five numbers each; 100 is in the last
VERDICTS = ("refuse", "ask again", "accept")  # worst first, as the sheet
FAILED = ("no face", "unreadable")
_SAMPLED = 16  # faces sampled for each one shown between the worst and the best


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
        self,
        path: str | Path,
        header: str,
        *,
        title: str = "",
        pixels: Pixels | None = None,
        explain: Explain | None = None,
    ) -> Path:
        """Write the page, whole or not at all; more rows may be added afterwards.

        Args:
            path: of the HTML file, which is returned; its folder is made.
            header: model, direction and thresholds, parted by semicolons. Where it says DEMO, the
                page warns.
            title: its heading; by default the number of faces.
            pixels: asked for the faces shown that came without pixels, as after a resumed run.
            explain: as `LoadedModel.explain`: each face is shown with what raises its uncertainty.

        Raises:
            ValueError: `path` is a folder, or no row was added.
        """
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path}: a contact sheet is a file (.html), but a folder is there")
        if not self._tally.statuses:
            raise ValueError(f"{path}: no row was scored, so there is nothing to show")
        write_text(path, self.page(header, title, pixels, explain))
        return path

    def page(
        self,
        header: str,
        title: str = "",
        pixels: Pixels | None = None,
        explain: Explain | None = None,
    ) -> str:
        """Return the page; see `write`."""
        tally, groups = self._tally, self._picks.groups(pixels)
        faces = list(chain.from_iterable(groups))
        jpegs = list({face.jpeg: None for face in faces if face.jpeg})
        maps = map_pictures([decode(jpeg) for jpeg in jpegs] if explain else [], explain)
        reasons = sorted({reason for face in faces for reason in face.score.reasons})
        shown_verdicts = {face.score.verdict for face in faces}
        verdicts = [verdict for verdict in VERDICTS if verdict in shown_verdicts]
        model = re.split(r";(?![^()]*\))", header)  # not inside brackets
        has_overview = tally.faces >= FEWEST_TO_COUNT
        return render(
            "sheet.html",
            title=title,
            model=[visible(part.strip()) for part in model if part.strip()],
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
            maps=dict(zip(jpegs, maps, strict=False)),
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


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a person can see in an aligned grey face, and in the photo that it was found in."""

    sharpness: float  # variance of the Laplacian; small = blurred
    brightness: float  # mean, 0..255
    contrast: float  # standard deviation
    eye_distance: float | None = None  # in pixels of the photo
    yaw: float | None = None  # degrees turned, from the landmarks, positive to the viewer's right
    roll: float | None = None  # degrees tilted, positive clockwise
    uneven: float | None = None  # logarithm of how much more light one side of the face gives
    outside: float | None = None  # share of the aligned face beyond the border of the photo


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceScore:
    """One face of one image, or the reason why an image has none.

    Without calibration, percentile and probability are NaN and the verdict is "". An aligned input
    has no box, landmarks and detection. `sigma_sq` is of models that give variances per dimension.
    What "accept" means, and what it does not: see `Decision`.
    """

    image: int  # its number in the input, from 0
    face: int = NO_FACE  # its number in the image, largest first, from 0
    status: Status = "scored"
    note: str = ""  # what was done to the image or what is wrong with it
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom; upright photo
    landmarks: NDArray[np.float32] | None = None  # (5, 2) x, y in the order of `LANDMARKS`
    photo_size: tuple[float, float] | None = None  # width and height of the upright photo
    detection: float | None = None  # confidence of the detector, 0..1
    uncertainty: float = float("nan")  # larger = less reliable
    quality: int = NOT_COMPUTED  # 0..100, 100 = best
    percentile: float = float("nan")  # of the calibration set's images with lower uncertainty
    # that a mated comparison is missed when this is the face of lower quality of the two
    p_false_non_match: float = float("nan")
    verdict: Verdict = ""
    reasons: tuple[str, ...] = ()  # what may be the cause, as in "blurred"; the worst first
    measures: Measures | None = None
    embedding: NDArray[np.float32] | None = field(default=None, repr=False)  # (D,), not normalised
    sigma_sq: NDArray[np.float32] | None = field(default=None, repr=False)  # (D,)
    aligned: NDArray[np.uint8] | None = field(default=None, repr=False)  # (112, 112, 3) RGB


# Returns the aligned face, uint8 (112, 112, 3) RGB, of a row without pixels; None where it cannot.
Pixels = Callable[[FaceScore, str], NDArray[np.uint8] | None]


class Tally:
    """Counts rows by status, and faces by verdict ("" for none), reason and quality.

    Args:
        failures: names with what happened to remember for each status of `FAILED`.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {}  # verdicts of the faces with each
        self.without_reason: Counter[str] = Counter()
        self.quality = {verdict: np.zeros(BINS, np.int64) for verdict in (*VERDICTS, "")}
        self.without_quality = 0
        self.failures: dict[str, list[tuple[str, str]]] = {status: [] for status in FAILED}

    def add(self, score: FaceScore, name: str) -> None:
        """Count one row."""
        self.statuses[score.status] += 1
        if score.status != "scored":
            if len(self.failures[score.status]) < self._limit:
                self.failures[score.status].append((name, score.note))
            return
        self.verdicts[score.verdict] += 1
        for reason in score.reasons:
            self.reasons.setdefault(reason, Counter())[score.verdict] += 1
        if not score.reasons:
            self.without_reason[score.verdict] += 1
        if score.quality == NOT_COMPUTED:
            self.without_quality += 1
        else:
            self.quality[score.verdict][min(score.quality * BINS // 100, BINS - 1)] += 1

    @property
    def faces(self) -> int:
        """Faces scored."""
        return self.statuses["scored"]

    @property
    def used_verdicts(self) -> list[str]:
        """Verdicts that occur, the worst first."""
        return [verdict for verdict in VERDICTS if self.verdicts[verdict]]

    def by_reason(self) -> list[tuple[str, Counter[str]]]:
        """Faces of each verdict with each reason, the most frequent first."""
        return sorted(self.reasons.items(), key=lambda row: (-row[1].total(), row[0]))

    def quality_counts(self) -> dict[str, NDArray[np.int64]]:
        """The counts of quality for each verdict that has any."""
        return {verdict: bins for verdict, bins in self.quality.items() if bins.any()}


@dataclass(frozen=True, eq=False)
class Shown:
    """One face of the sheet."""

    score: FaceScore  # without pixels and embedding
    name: str  # of the photo
    jpeg: bytes  # empty where it came without pixels


class Groups(NamedTuple):
    """Faces from worst to best; all of them in `worst` where there are few."""

    worst: list[Shown]
    between: list[Shown]
    best: list[Shown]


_Ranked = tuple[float, int, Shown]  # badness; minus the place in order of arrival; no two are equal


class Picks:
    """Keeps the extremes and a random sample of what is added; equal input, equal picks.

    The numbers of faces to show are those of `report.sheet.SheetBuilder`.
    """

    def __init__(self, worst: int, between: int, best: int) -> None:
        self.between = between
        self.shown = worst + between + best
        self.count = 0
        self._random = random.Random(0)
        self._worst = _Largest(worst)
        self._best = _Largest(best)
        self._sample = _Largest(max(self.shown, _SAMPLED * between))

    def add(self, score: FaceScore, name: str) -> None:
        """Look at a scored face; its pixels are encoded where it is kept for now."""
        badness = math.inf if math.isnan(score.uncertainty) else score.uncertainty
        place, self.count = self.count, self.count + 1
        keys = (
            (self._worst, (badness, -place)),
            (self._best, (-badness, place)),
            (self._sample, (self._random.random(), place)),
        )
        takers = [(group, key) for group, key in keys if group.takes(key)]
        if takers:
            face = (badness, -place, _shown(score, name))
            for group, key in takers:
                group.put(key, face)

    def groups(self, pixels: Pixels | None = None) -> Groups:
        """What is shown of the faces so far; `pixels` is asked for those without a picture."""
        sample = self._sample.in_order()
        if self.count <= self.shown:
            return Groups(_with_pictures(sample, pixels), [], [])
        worst, best = self._worst.in_order(), self._best.in_order()
        outer = {place for _, place, _ in (*worst, *best)}
        inner = [face for face in sample if face[1] not in outer]
        steps = np.linspace(0, len(inner) - 1, min(self.between, len(inner))).round().astype(int)
        middle = [inner[step] for step in steps.tolist()]
        return Groups(*(_with_pictures(group, pixels) for group in (worst, middle, best)))

    def sampled(self) -> NDArray[np.float64]:
        """Finite uncertainties of a random sample: of all faces where there are few."""
        faces = self._sample.in_order()
        values = np.array([face.score.uncertainty for *_, face in faces], np.float64)
        return values[np.isfinite(values)]


class _Largest:
    """The `size` faces with the largest keys."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[tuple[float, int], _Ranked]] = []

    def takes(self, key: tuple[float, int]) -> bool:
        return len(self._heap) < self.size or (self.size > 0 and key > self._heap[0][0])

    def put(self, key: tuple[float, int], face: _Ranked) -> None:
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (key, face))
        else:
            heapq.heapreplace(self._heap, (key, face))

    def in_order(self) -> list[_Ranked]:
        return sorted((face for _, face in self._heap), key=lambda face: face[:2], reverse=True)


def _with_pictures(group: list[_Ranked], pixels: Pixels | None) -> list[Shown]:
    faces = [face for *_, face in group]
    if pixels is None:
        return faces
    return [
        face if face.jpeg else _shown(face.score, face.name, pixels(face.score, face.name))
        for face in faces
    ]


def _shown(score: FaceScore, name: str, pixels: NDArray[np.uint8] | None = None) -> Shown:
    pixels = score.aligned if pixels is None else pixels
    jpeg = b"" if pixels is None else encode_jpeg(pixels, JPEG_QUALITY)
    return Shown(replace(score, aligned=None, embedding=None), name, jpeg)
