"""Photos from wherever they are: files, folders, lists, `.bin`, `.rec`, Parquet and videos.

A folder's source holds the names of one folder, and of those above it, at a time.
"""

# A Path costs 5 us a file, and does not keep a path as the user wrote it:
# ruff: noqa: PTH114, PTH116, PTH118, PTH120, PTH122, PTH123

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from photos.decode import Photo
from photos.packs import (
    VIDEO_SUFFIXES,
    Item,
    PackSource,
    ParquetSource,
    Source,
    VideoSource,
    reason,
    refused,
)
from utils.long_work import prefetch
from utils.tables import csv_rows, text_lines

__all__ = ["Item", "Sources", "open_sources", "read_ahead"]

LIST_SUFFIXES = frozenset((".txt", ".lst", ".csv"))
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


class Sources:
    """All items of some inputs, in the order of the inputs; may be gone through repeatedly.

    Attributes:
        skipped: number of files in folders that are not photos, by suffix, most frequent first;
            complete once all items were iterated over.
    """

    def __init__(self, sources: Sequence[Source], skipped: Counter[str]) -> None:
        self._sources = sources
        self._skipped = skipped

    @property
    def skipped(self) -> dict[str, int]:
        """See above."""
        return dict(self._skipped.most_common())

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    def items(self, skip: int = 0) -> Iterator[Item]:
        """Yield the items after the first `skip`, which are not read: to resume after a stop."""
        self._skipped.clear()
        done = 0
        for source in self._sources:
            for item in source.items(max(skip - done, 0)):
                done += 1
                if item is not None:
                    yield item

    def count(self) -> int | None:
        """Return the number of items, None with a video; lists folders, opens packs and lists."""
        counts = [source.count() for source in self._sources]
        return None if None in counts else sum(count or 0 for count in counts)


def open_sources(inputs: str | Path | Sequence[str | Path], *, every: int = 1) -> Sources:
    """Open photos, folders, lists, packs and videos. Nothing is read before it is needed.

    Args:
        inputs: photos of any suffix; folders, with all photos and `.rec` packs in them; `.txt`,
            `.lst` or `.csv` lists; `.bin` sets; `.rec` packs; `.parquet` files; videos.
        every: of a video, every so many frames, beginning with the first.

    Raises:
        ValueError: an input that does not exist, a Parquet file without photos, or no input at all.
    """
    if every < 1:
        raise ValueError(f"every = {every}: take every frame (1), every second (2), or so")
    paths = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if not paths:
        raise ValueError("no photos: name files, folders, lists, .bin, .rec or videos")
    skipped: Counter[str] = Counter()
    return Sources([_open(str(path), every, skipped) for path in paths], skipped)


def read_ahead(
    items: Iterable[Item], workers: int, depth: int
) -> Iterator[tuple[Item, Photo | ValueError]]:
    """Load items in threads, and yield them in order with their photo or the reason for none.

    Items are iterated over in the calling thread; at most `depth` are being loaded or wait to be
    taken.

    Raises:
        ValueError: fewer than one thread or item.
    """
    return prefetch(_load, items, workers, depth)


def _load(item: Item) -> tuple[Item, Photo | ValueError]:
    try:
        return item, item.load()
    except ValueError as error:
        return item, error


def _open(path: str, every: int, skipped: Counter[str]) -> Source:
    if Path(path).is_dir():
        return FolderSource(path, skipped)
    if not Path(path).exists():
        raise ValueError(
            f"no such input: {path} (a photo, folder, list, .bin, .rec, .parquet or video)"
        )
    suffix = Path(path).suffix.lower()
    if suffix in LIST_SUFFIXES:
        return ListSource(path)
    if suffix in (".parquet", ".pq"):
        return ParquetSource(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path, every)
    return PackSource(path) if suffix in (".bin", ".rec") else PhotoSource(path)


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
        done = 0
        for entry in self._walk(self.skipped):
            for item in (entry,) if isinstance(entry, Item) else entry.items(max(skip - done, 0)):
                yield item if done >= skip else None
                done += 1

    def count(self) -> int:
        """List everything, and return the number of items."""
        return sum(
            1 if isinstance(entry, Item) else entry.count() for entry in self._walk(Counter())
        )

    def _walk(self, skipped: Counter[str]) -> Iterator[Item | PackSource]:
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
                yield PackSource(os.path.join(folder, name))
            else:
                yield Item(os.path.join(folder, name))


@dataclass(frozen=True)
class ListSource:
    """The photos that a `.txt`, `.lst` or `.csv` file lists, relative to its folder.

    One path a line; empty lines and lines that start with # are left out; of fields between tabs
    the first that is not a number. In a `.csv` the column called path, file, image or filename, or
    the first where there is no such heading.
    """

    path: str

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield an item for each line, whether its file exists or not."""
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
        """Yield each path, or "" and the reason."""
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
