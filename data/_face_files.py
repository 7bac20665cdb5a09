"""Faces in image files: a folder per identity, or a list of paths with labels.

Public through data.faces.open_faces.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import SIZE, decode_into

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


class FileFaces:
    """Image files with labels.

    Paths are kept in one block of bytes: 17 M Python strings would take over 1.5 GB.

    Args:
        root: folder that the paths are relative to.
        entries: (path, label) pairs; labels are any whole numbers, and are numbered 0..C-1 in the
            order in which they first come.
    """

    def __init__(self, root: Path, entries: Iterable[tuple[str, int]]) -> None:
        self._root = str(root)
        self._block = bytearray()
        ends, labels = array("q", [0]), array("i")
        numbers: dict[int, int] = {}
        for path, label in entries:
            self._block += os.fsencode(path)
            ends.append(len(self._block))
            labels.append(numbers.setdefault(label, len(numbers)))
        self._ends = ends
        self.labels = np.array(labels, dtype=np.int32)
        self.num_classes = len(numbers)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the image's path."""
        relative = os.fsdecode(bytes(self._block[self._ends[row] : self._ends[row + 1]]))
        return os.path.join(self._root, relative)  # noqa: PTH118 - a Path costs 5 us an image

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
    faces = FileFaces(root, _folder_entries(root))
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
    faces = FileFaces(path.parent, _list_entries(path))
    if not len(faces):
        raise ValueError(f"{path}: no images listed")
    return faces


def _folder_entries(root: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    for label, folder in enumerate(folders):
        with os.scandir(root / folder) as entries:
            images = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "."
            )
        for image in images:
            yield f"{folder}/{image}", label


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
