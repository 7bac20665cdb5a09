"""Photos in files: one that is named, those of a folder and its folders, those of a list.

Used by photos/sources.py. Holds the names of one folder, and of those above it, at a time.
"""

# A Path costs 5 us a file, and does not keep a path as it was given:
# ruff: noqa: PTH114, PTH116, PTH118, PTH120, PTH122, PTH123

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from photos.items import Item, reason, refused
from photos.packs import RecSource
from utils.tables import csv_rows, text_lines

PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for group in (
        ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "gif", "bmp"),
        ("dib", "avif", "heic", "heif", "hif", "jp2", "j2k", "jpf", "jpx", "ppm", "pgm", "pbm"),
        ("pnm", "psd", "qoi", "sgi", "pcx", "ico"),
    )
    for suffix in group
)
COLUMNS = ("path", "file", "image", "filename")  # of a CSV
ERRORS = "surrogateescape"  # file names that are not UTF-8 keep their bytes

_Identity = tuple[int, int]  # device and number of a folder
_Open = tuple[str, _Identity, Iterator[str]]  # and the names that are still to come


@dataclass(frozen=True)
class PhotoSource:
    """One file that was named: a photo, whatever its suffix."""

    path: str

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield it, or None."""
        yield None if skip else Item(self.path)

    def count(self) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class FolderSource:
    """The photos and `.rec` packs in a folder and the folders in it, sorted by name.

    Hidden files and folders are left out. A linked folder is entered unless that leads back into
    itself, or another link has led there before.

    Attributes:
        path: the folder.
        skipped: files that are neither photos nor packs are counted here, by suffix.
    """

    path: str
    skipped: Counter[str]

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its items; listing is all that those to skip cost."""
        left = skip
        for found in self._walk(self.skipped):
            for item in (found,) if isinstance(found, Item) else found.items(max(left, 0)):
                yield item if left <= 0 else None
                left -= 1

    def count(self) -> int:
        """List everything, and return the number of items."""
        return sum(
            1 if isinstance(found, Item) else found.count() for found in self._walk(Counter())
        )

    def _walk(self, skipped: Counter[str]) -> Iterator[Item | RecSource]:
        open_folders: list[_Open] = []
        linked: set[_Identity] = set()
        yield from _enter(self.path, open_folders, linked, skipped)
        while open_folders:
            folder, _, names = open_folders[-1]
            name = next(names, None)
            if name is None:
                open_folders.pop()
            elif name.endswith(os.sep):
                inner = os.path.join(folder, name[: -len(os.sep)])
                yield from _enter(inner, open_folders, linked, skipped)
            elif name.lower().endswith(".rec"):
                yield RecSource(os.path.join(folder, name))
            else:
                yield Item(os.path.join(folder, name))


@dataclass(frozen=True)
class ListSource:
    """The photos that a `.txt`, `.lst` or `.csv` file lists, relative to its folder.

    One path a line; empty lines and lines that start with # are left out; of fields between tabs
    the first that is no number. In a `.csv` the column called path, file, image or filename, or
    the first where there is no such head.
    """

    path: str

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield an item for each line, whether its file is there or not."""
        folder = os.path.dirname(self.path)
        for row, (name, why) in enumerate(self._names()):
            if row < skip:
                yield None
            elif name:
                yield Item(os.path.join(folder, name))
            else:
                yield refused(self.path, why)

    def count(self) -> int:
        """Read the list, and return the number of its paths."""
        return sum(1 for _ in self._names())

    def _names(self) -> Iterator[tuple[str, str]]:
        """Yield each path, or "" and why there is none."""
        try:
            if self.path.lower().endswith(".csv"):
                yield from _csv_names(csv_rows(self.path, separators=",", errors=ERRORS))
            else:
                yield from _text_names(text_lines(self.path, ERRORS))
        except OSError as error:
            yield "", reason(error)
        except ValueError as error:
            yield "", f"not a list of paths, one a line ({error})"


def _text_names(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.strip() and not line.startswith("#"):
            fields = line.strip().split("\t")
            yield next((field for field in fields if not _is_number(field)), fields[0]), ""


def _csv_names(rows: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[str, str]]:
    column = -1
    for line, fields in rows:
        if column < 0:
            head = [field.strip().lower() for field in fields]
            column = next((head.index(name) for name in COLUMNS if name in head), 0)
            if head[column] in COLUMNS:
                continue
        name = fields[column].strip() if column < len(fields) else ""
        yield name, f"line {line} names no photo"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sorted_names(folder: str, skipped: Counter[str]) -> list[str]:
    """Return the photos, packs and folders (ending in a separator) of a folder."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if _is_folder(entry):
                names.append(name + os.sep)
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in PHOTO_SUFFIXES or suffix == ".rec":
                names.append(name)
            else:
                skipped[suffix or "no suffix"] += 1
    names.sort()
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a row that says so, where its suffix is a photo's
        return False


def _enter(
    folder: str, open_folders: list[_Open], linked: set[_Identity], skipped: Counter[str]
) -> Iterator[Item]:
    """Open a folder unless that would go round in circles; yields a row where it cannot be."""
    try:
        about = os.stat(folder)
        identity = about.st_dev, about.st_ino
        if any(identity == above for _, above, _ in open_folders):
            return
        if open_folders and os.path.islink(folder):
            if identity in linked:
                return
            linked.add(identity)
        open_folders.append((folder, identity, iter(_sorted_names(folder, skipped))))
    except OSError as error:
        yield refused(folder, f"the folder cannot be listed: {reason(error)}")
