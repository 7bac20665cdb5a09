"""The page of doubtful faces of a set that was cut out of photos: several, cut, turned, unsure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.images import encode_jpeg
from photos.face_set import DOUBTS, FaceSet, PhotoRow, picture
from report.page import JPEG_QUALITY, render
from utils.files import write_text

FILE_NAME = "doubtful.html"
MOST_FACES, MOST_NAMES = 60, 200  # that are shown of each doubt, or listed
_SIDE = 160  # pixels of a picture


class Group(NamedTuple):
    """Faces with one doubt, of which the first are shown with a JPEG, empty where there is none."""

    doubt: str
    total: int
    shown: Sequence[tuple[PhotoRow, bytes]]


def write_doubtful(faces: FaceSet) -> Path | None:
    """Write `doubtful.html` beside the faces; return its path, or None where nothing is doubtful.

    A face with several doubts is shown under the first of them.
    """
    path = faces.options.out / FILE_NAME
    without = [row for row in faces.rows if not row.faces]
    groups = [
        Group(doubt, len(rows), [(row, _jpeg(row)) for row in rows[:MOST_FACES]])
        for doubt in DOUBTS
        if (rows := [row for row in faces.rows if row.doubts[:1] == (doubt,)])
    ]
    if not groups and not without:
        path.unlink(missing_ok=True)
        return None
    page = render(
        "doubtful.html",
        summary=faces.summary().splitlines(),
        photos=len(faces.rows),
        groups=groups,
        without=without,
        listed=without[:MOST_NAMES],
    )
    write_text(path, page)
    return path


def _jpeg(row: PhotoRow) -> bytes:
    pixels = picture(row, _SIDE)
    return b"" if pixels is None else encode_jpeg(pixels, JPEG_QUALITY)
