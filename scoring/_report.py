"""The contact sheet of scoring/score_images.py: rows while they pass, pictures at the end.

The photos of the faces that are shown are read once more, so that a run that was stopped in between
has the sheet of one that was not, and nothing but numbers has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.images import to_112
from evaluation.face_score import FaceScore
from photos.align import align
from photos.decode import Photo
from photos.sources import Sources, read_ahead
from report.sheet import SheetBuilder
from scoring._job import AHEAD, Chunk, called
from scoring.columns import face_score

FILE_NAME = "contact_sheet.html"
Face = tuple[int, int]  # number of the input, number of the face in it


def report_path(text: str) -> Path:
    """Return the file that `--report` names: itself, or one in the folder.

    Raises:
        ValueError: a file is where the folder should be, or the reverse.
    """
    path = Path(text)
    if path.suffix.lower() in (".html", ".htm"):
        if path.is_dir():
            raise ValueError(f"--report {path}: names a file, but a folder is there")
        return path
    if path.is_file():
        raise ValueError(f"--report {path}: names a folder or an .html file, but a file is there")
    return path / FILE_NAME


class Report:
    """Takes rows, and writes the sheet.

    Args:
        path: of the sheet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sheet = SheetBuilder()
        self._inputs = 0

    def add_chunk(self, chunk: Chunk) -> None:
        """Add scored inputs, with their pixels."""
        for score in chunk.scores:
            self._sheet.add(score, called(chunk.items[score.image]))

    def watched(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Pass flat rows on, and add them."""
        for row in rows:
            self._inputs += row["face"] <= 0  # the first row of an input
            name = row["file"] if row["index"] is None else f"{row['file']}[{row['index']}]"
            self._sheet.add(face_score(row, self._inputs - 1), name)
            yield row

    def write(self, header: str, sources: Sources | None = None, workers: int = 1) -> None:
        """Write the sheet.

        Args:
            header: see `SheetBuilder.write`.
            sources: what the rows came from, for faces without pixels.
            workers: threads that read it.

        Raises:
            OSError: it cannot be written.
        """
        if sources is None:
            self._sheet.write(self.path, header)
            return
        wanted: dict[Face, FaceScore] = {}

        def noted(score: FaceScore, name: str) -> None:
            wanted[score.image, score.face] = score

        draft = self.path.with_name(f".{self.path.name}.draft")
        self._sheet.write(draft, header, pixels=noted)
        draft.unlink()
        found = _pictures(wanted, sources, workers)
        self._sheet.write(
            self.path, header, pixels=lambda score, name: found.get((score.image, score.face))
        )


def _pictures(
    wanted: Mapping[Face, FaceScore], sources: Sources, workers: int
) -> dict[Face, NDArray[np.uint8]]:
    """Read these faces; one whose photo is not there any more is left out."""
    faces: dict[int, list[int]] = {}
    for image, face in wanted:
        faces.setdefault(image, []).append(face)
    order = sorted(faces)
    items = (item for number, item in enumerate(_until(sources, order)) if number in faces)
    found = {}
    for image, (_, photo) in zip(order, read_ahead(items, workers, AHEAD * workers), strict=False):
        if isinstance(photo, Photo):
            for face in faces[image]:
                found[image, face] = _cut(photo, wanted[image, face])
    return found


def _until(sources: Sources, order: list[int]) -> Iterator[Any]:
    for number, item in enumerate(sources):
        if not order or number > order[-1]:
            return
        yield item


def _cut(photo: Photo, score: FaceScore) -> NDArray[np.uint8]:
    if score.landmarks is None:
        return to_112(photo.pixels)
    return align(photo.pixels, score.landmarks / photo.scale)
