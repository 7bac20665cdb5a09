"""The contact sheet of a scoring job: rows while they pass, pictures at the end.

The photos of the faces that are shown are read once more, so that a run that was stopped in between
has the sheet of one that was not, and nothing but numbers has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import to_112
from photos.align import align
from photos.decode import Photo
from photos.sources import Sources
from report.sheet import FaceScore, SheetBuilder
from scoring.rows import Row, face_score
from scoring.scorer import Scores, load_items

FILE_NAME = "contact_sheet.html"
Face = tuple[int, int]  # number of the input, number of the face in it


def sheet_path(path: Path) -> Path:
    """Return the file that `--report` names: itself, or one in the folder.

    Raises:
        ValueError: a file is where the folder should be, or the reverse.
    """
    if path.suffix.lower() in (".html", ".htm"):
        if path.is_dir():
            raise ValueError(f"--report {path}: names a file, but a folder is there")
        return path
    if path.is_file():
        raise ValueError(f"--report {path}: names a folder or an .html file, but a file is there")
    return path / FILE_NAME


class ContactSheet:
    """Takes rows, and writes the sheet to a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sheet = SheetBuilder()
        self._inputs = 0

    def add(self, scores: Scores) -> None:
        """Add scored inputs, with their pixels."""
        for score in scores:
            self._sheet.add(score, scores.sources[score.image].display_name)

    def watched(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass flat rows on, and add them."""
        for row in rows:
            self._inputs += row["face"] <= 0  # the first row of an input
            name = row["file"] if row["index"] is None else f"{row['file']}[{row['index']}]"
            self._sheet.add(face_score(row, self._inputs - 1), name)
            yield row

    def write(self, header: str, sources: Sources | None = None, workers: int = 1) -> None:
        """Write the sheet; `sources` has the photos of rows that came without pixels.

        Raises:
            OSError: it cannot be written.
        """
        if sources is None:
            self._sheet.write(self.path, header)
            return
        shown: dict[Face, FaceScore] = {}

        def note(score: FaceScore, name: str) -> None:
            shown[score.image, score.face] = score

        self._sheet.page(header, pixels=note)
        pictures = _pictures(shown, sources, workers)
        self._sheet.write(
            self.path, header, pixels=lambda score, name: pictures.get((score.image, score.face))
        )


def _pictures(
    shown: dict[Face, FaceScore], sources: Sources, workers: int
) -> dict[Face, NDArray[np.uint8]]:
    """Read these faces; one whose photo is not there any more is left out."""
    faces: dict[int, list[FaceScore]] = {}
    for (image, _), score in shown.items():
        faces.setdefault(image, []).append(score)
    items = islice(sources, max(faces, default=-1) + 1)
    needed = (item for number, item in enumerate(items) if number in faces)
    pictures = {}
    for number, loaded in zip(sorted(faces), load_items(needed, workers), strict=False):
        if isinstance(loaded.photo, Photo):
            for score in faces[number]:
                pictures[number, score.face] = _cut(loaded.photo, score)
    return pictures


def _cut(photo: Photo, score: FaceScore) -> NDArray[np.uint8]:
    if score.landmarks is None:
        return to_112(photo.pixels)
    return align(photo.pixels, score.landmarks / photo.scale)
