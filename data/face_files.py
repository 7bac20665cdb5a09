"""Faces in image files: a folder per identity, or a list of paths with labels.

Public through data.faces.open_faces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import SIZE, decode_into
from data.listing import Listing
from data.listing_cache import folder_listing, list_file_listing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


class FileFaces:
    """Image files with labels.

    Args:
        root: folder that the paths are relative to.
        entries: (path, label) pairs, whose labels are any whole numbers and are numbered 0..C-1 in
            the order in which they first come; or a listing.
    """

    def __init__(self, root: Path, entries: Iterable[tuple[str, int]] | Listing) -> None:
        self._root = str(root)
        self._listing = entries if isinstance(entries, Listing) else Listing.of(entries)
        self.labels, self.num_classes = self._listing.labels, self._listing.num_classes

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the image's path."""
        path = self._listing.path(row)
        return os.path.join(self._root, path)  # noqa: PTH118 - a Path costs 5 us an image

    def encoded(self, row: int) -> bytes:
        """Return the file's bytes; ValueError naming it where it cannot be read."""
        try:
            with open(self.name(row), "rb") as file:  # noqa: PTH123 - as above
                return file.read()
        except OSError as error:
            raise ValueError(f"{self.name(row)}: {error.strerror}") from error

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return (112, 112, 3) RGB; ValueError naming the file where it cannot be read."""
        out = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        self.read_into(row, out)
        return out

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3)."""
        encoded = self.encoded(row)
        try:
            decode_into(encoded, out)
        except ValueError as error:
            raise ValueError(f"{self.name(row)}: {error}") from error

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Do nothing: to announce a file it would have to be opened, which is what takes long."""


def folder_faces(root: Path) -> FileFaces:
    """Find the images in the folders of a folder; identities and images sorted by name.

    Raises:
        ValueError: no folder in it holds an image.
    """
    faces = FileFaces(root, folder_listing(root, SUFFIXES))
    if not len(faces):
        raise ValueError(
            f"{root}: no images; expected one folder per identity with files ending in "
            f"{' '.join(SUFFIXES)}, or one .rec pack"
        )
    return faces


def list_faces(path: Path) -> FileFaces:
    """Read a list of images: `path label`, or insightface's `key<TAB>label<TAB>path`, per line.

    Relative paths start at the list's folder; a path may contain spaces.

    Raises:
        ValueError: a line that is neither (with its number), or no line at all.
    """
    faces = FileFaces(path.parent, list_file_listing(path, lambda: _list_entries(path)))
    if not len(faces):
        raise ValueError(f"{path}: no images listed")
    return faces


def _list_entries(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_line(line.strip("\r\n"), f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text file: {error.reason}") from error


def _parse_line(line: str, where: str) -> tuple[str, int]:
    fields = line.strip().split("\t")
    if len(fields) == 3:  # also aligned, path, label, as insightface's packer reads
        key_first = _whole(fields[1]) is not None
        image, label = (fields[2], fields[1]) if key_first else (fields[1], fields[2])
    else:
        image, _, label = line.strip().replace("\t", " ").rpartition(" ")
    number = _whole(label)
    if number is None or not image.strip():
        raise ValueError(
            f"{where}: expected `path label` or `key<TAB>label<TAB>path` with a whole number as "
            f"label, found {line[:80]!r}"
        )
    return image.strip(), number


def _whole(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
