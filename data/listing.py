"""Paths of many images with their labels: from folders or a list file, or from a cache file.

Paths lie in one block of memory: 17 M Python strings would take over 1.5 GB. Only folders that
changed since the last time are listed again.
"""

from __future__ import annotations

import logging
import os
import re
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import cache_file
from utils.files import check_path, is_bounded, is_folder, naming
from utils.tables import text_lines

log = logging.getLogger("faceuq")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
SMALLEST_CACHED = 20_000  # images; fewer are listed in a moment, and leave no file behind
_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")  # MXNet writes labels as 5.000000
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
SETTLED = 2.0  # seconds since a change; times of files are too coarse to tell two apart
SECONDS_BETWEEN_LINES = 10.0  # of the log
NESTED = (
    "images lie deeper than identity/image, such as %s; the folder at the top is their identity"
)
CHECKED = 100  # images of a list, of which one must exist


class Listing:
    """N paths and labels.

    Args:
        block: uint8, the paths one after the other, as the file system has them.
        ends: (N,) where each path ends in the block.
        labels: (N,) int32, 0..C-1, every one of which occurs.
        numbers: (C,) what a list calls its labels; None for 0..C-1.
    """

    def __init__(
        self,
        block: NDArray[np.uint8],
        ends: NDArray[np.integer],
        labels: NDArray[np.int32],
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        self.block, self.ends, self.labels = block, ends, labels
        self.num_classes = int(labels.max(initial=-1)) + 1
        self.numbers = np.arange(self.num_classes) if numbers is None else numbers

    @classmethod
    def of(cls, entries: Iterable[tuple[str, int]]) -> Listing:
        """Gather (path, label) pairs; any whole numbers become 0..C-1, in order of appearance."""
        block, ends, labels = bytearray(), array("q"), array("i")
        numbers: dict[int, int] = {}
        for path, label in entries:
            block += os.fsencode(path)
            ends.append(len(block))
            labels.append(numbers.setdefault(label, len(numbers)))
        return cls(
            np.frombuffer(block, dtype=np.uint8),
            _small_ends(ends),
            np.array(labels, dtype=np.int32),
            np.array(list(numbers), dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """Return a path."""
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.block[start : int(self.ends[row])].tobytes())


def _small_ends(ends: array[int] | NDArray[np.int64]) -> NDArray[np.integer]:
    """Return places in a block as uint32 where they fit, which 17 M paths of 200 bytes do."""
    places = np.asarray(ends, dtype=np.int64)
    return places.astype(np.uint32) if not len(places) or places[-1] < 1 << 32 else places


class _Folders:
    """The images in each folder of a root, as bytes and lengths that can be reused in parts.

    Attributes:
        names: of the folders, sorted, joined by 0 bytes.
        changed: (F,) their times of change in ns; -1 where that is too recent to be relied on.
        counts: (F,) images in each.
        block: paths below the root, one after the other.
        ends: (N,) where each path ends.
    """

    def __init__(self, arrays: cache_file.Arrays) -> None:
        self.arrays = arrays
        self.names: bytes = arrays["names"].tobytes()
        self.changed, self.counts = arrays["changed"], arrays["counts"]
        self.block, self.ends = arrays["block"], arrays["ends"]

    def listing(self) -> Listing:
        """Return all images; folders without any get no label."""
        counts = self.counts[self.counts > 0]
        labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return Listing(self.block, self.ends, labels)

    def by_name(self) -> dict[bytes, tuple[int, slice]]:
        """Return each folder's time of change and rows."""
        ends = np.cumsum(self.counts).tolist()
        return {
            name: (changed, slice(end - count, end))
            for name, changed, count, end in zip(
                self.names.split(b"\0"),
                self.changed.tolist(),
                self.counts.tolist(),
                ends,
                strict=True,
            )
        }

    def part(self, rows: slice) -> tuple[bytes, NDArray[np.int64]]:
        """Return the paths of some rows and the length of each."""
        ends = self.ends[rows].astype(np.int64)
        start = int(self.ends[rows.start - 1]) if rows.start else 0
        stop = int(ends[-1]) if len(ends) else start
        return self.block[start:stop].tobytes(), np.diff(ends, prepend=start)


def folder_listing(root: Path) -> Listing:
    """List the images in the folders of a folder; folders and images sorted by name.

    Cost: a look at every folder, and a listing of those that changed since the last time.

    Raises:
        ValueError: no folder in it holds an image.
    """
    started = time.time()
    names, changed = _scan(root)
    key = {"kind": "folder", "suffixes": list(SUFFIXES)}
    cached = None if is_bounded() else cache_file.load(root, key, _Folders)
    if cached and cached.names == b"\0".join(names) and np.array_equal(cached.changed, changed):
        return cached.listing()
    folders = _list(root, names, changed, cached)
    if not len(folders.ends):
        flat = [path.name for path in root.iterdir() if path.suffix.lower() in SUFFIXES]
        if flat:
            above = root.parent if root.name else root.resolve().parent
            raise ValueError(
                f"{root}: its images, such as {min(flat)}, lie directly in it; expected one folder "
                f"per identity: if {root.resolve().name} is one of them, give the folder that "
                f"holds it, {above}"
            )
        raise ValueError(
            f"{root}: no images; expected one folder per identity with files ending in "
            f"{' '.join(SUFFIXES)}, or one .rec pack"
        )
    folders.changed[changed > (started - SETTLED) * 1e9] = -1
    if len(folders.ends) >= SMALLEST_CACHED:
        cache_file.store(root, key, folders.arrays)
    return folders.listing()


def list_file_listing(path: Path) -> Listing:
    """Read a list of images: `path label`, or insightface's `key<TAB>label<TAB>path`, per line.

    A path may contain spaces; boxes and landmarks behind the label are not read. The text is UTF-8
    or UTF-16. A file that has not changed since comes from the cache.

    Raises:
        ValueError: a line that is neither, or is not text (with its number), no line at all, or
            images of which none exists.
    """
    stamp = cache_file.stamp(path)
    names = ("block", "ends", "labels", "numbers")
    key = {"kind": "numbered list", "list": stamp}
    cached = cache_file.load(path, key, lambda arrays: Listing(*(arrays[name] for name in names)))
    if cached is not None and not is_bounded():
        return cached
    listing = Listing.of(_list_entries(path))
    if not len(listing):
        raise ValueError(f"{path}: no images listed")
    first = [listing.path(row) for row in range(min(len(listing), CHECKED))]
    if not any(_exists(path.parent, image) for image in first):
        raise ValueError(
            f"{path}: none of its first {len(first)} images exists, such as {first[0]!r}; paths "
            f"start at the list's folder, {path.parent}"
        )
    if len(listing) >= SMALLEST_CACHED and time.time() - stamp[1] / 1e9 >= SETTLED:
        cache_file.store(path, key, {name: getattr(listing, name) for name in names})
    return listing


def _scan(root: Path) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the names of the folders of a folder, sorted, and their times of change."""
    with os.scandir(root) as entries:
        folders = sorted(
            (entry.name, entry.stat().st_mtime_ns)
            for entry in _checked(entries)
            if is_folder(entry, SUFFIXES) and entry.name[0] != "."
        )
    return [os.fsencode(name) for name, _ in folders], np.array(
        [changed for _, changed in folders], dtype=np.int64
    )


def _list(
    root: Path, names: list[bytes], changed: NDArray[np.int64], cached: _Folders | None
) -> _Folders:
    known = {} if cached is None else cached.by_name()
    block, lengths, counts = bytearray(), array("q"), array("i")
    nested, example = 0, ""
    changed = changed.copy()
    logged = time.monotonic()
    for name, time_of_change in zip(names, changed.tolist(), strict=True):
        before, rows = known.get(name, (None, slice(0)))
        if cached is not None and before == time_of_change:
            paths, sizes = cached.part(rows)
            block += paths
            lengths.frombytes(sizes.tobytes())
            counts.append(len(sizes))
        else:
            paths_below = list(_images(root, os.fsdecode(name)))
            images = [os.fsencode(path) for path in paths_below]
            block += b"".join(images)
            lengths.extend(map(len, images))
            counts.append(len(images))
            deeper = [path for path in paths_below if path.count("/") > 1]
            if deeper:  # a change in there does not change this folder's time
                nested += len(deeper)
                example = example or deeper[0]
                changed[len(counts) - 1] = -1
        if time.monotonic() - logged > SECONDS_BETWEEN_LINES:
            logged = time.monotonic()
            done = f"{len(lengths)} images in {len(counts)} of {len(names)} folders"
            log.info("listing %s: %s", root, done)
    if nested:
        log.warning("%s: %d " + NESTED, root, nested, example)
    return _Folders(
        {
            "names": np.frombuffer(b"\0".join(names), dtype=np.uint8),
            "changed": changed,
            "counts": np.array(counts, dtype=np.int32),
            "block": np.frombuffer(block, dtype=np.uint8),
            "ends": _small_ends(np.cumsum(np.array(lengths, dtype=np.int64))),
        }
    )


def _checked(entries: Iterable[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    for entry in entries:
        if entry.is_symlink():
            check_path(entry.path, os.path.dirname(entry.path))  # noqa: PTH120 - 5 us
        yield entry


def _images(root: Path, folder: str) -> Iterator[str]:
    """Paths of the images in a folder, sorted, then of those in the folders in it."""
    with os.scandir(root / folder) as scan:
        entries = sorted(
            (entry.name, is_folder(entry, SUFFIXES))
            for entry in _checked(scan)
            if entry.name[0] != "."
        )
    for name, is_below in entries:
        if not is_below and name.lower().endswith(SUFFIXES):
            yield f"{folder}/{name}"
    for name, is_below in entries:
        if is_below and not (root / folder / name).is_symlink():
            yield from _images(root, f"{folder}/{name}")


def _list_entries(path: Path) -> Iterator[tuple[str, int]]:
    with naming(path):
        for number, line in enumerate(text_lines(path), start=1):
            if line.strip():
                image, label = parse_line(line, path, number)
                if is_bounded():
                    check_path(path.parent / image, f"{path}:{number}")
                yield image, label


def parse_line(line: str, path: Path, number: int) -> tuple[str, int]:
    """Return the image and the label of a line; ValueError where it has no label.

    Columns that are numbers stand around the image's path: before it a key, or a key and labels
    (MXNet's im2rec); behind it the label, then a box and landmarks (insightface's packer).
    """
    is_tabbed = line.strip().count("\t") > 1
    fields = [field.strip() for field in line.split("\t" if is_tabbed else None)]
    texts = [place for place, field in enumerate(fields) if not _NUMBER.fullmatch(field)]
    image, label = "", ""
    if is_tabbed or (len(texts) == 1 and len(fields) > 2 and texts[0] < 2):
        place = texts[0] if len(texts) == 1 else -1
        if not texts and len(fields) == 3:  # a path that is a number: key, label, path
            place = 2
        if place == 0 or place == 1:
            image, label = fields[place], fields[place + 1]
        elif place > 1 and place == len(fields) - 1:
            image, label = fields[place], fields[1]
    elif len(texts) and texts[0] == 2 and all(map(_WHOLE.fullmatch, fields[:2])):
        image, label = line.split(maxsplit=2)[2].strip(), fields[1]
    if not is_tabbed and (not image or path.suffix != ".lst"):
        spaced, _, last = line.strip().replace("\t", " ").rpartition(" ")
        if _WHOLE.fullmatch(last) and (not image or _exists(path.parent, spaced.strip())):
            image, label = spaced.strip(), last
    if not image or not _WHOLE.fullmatch(label):
        raise ValueError(
            f"{path}:{number}: expected `path label` or `key<TAB>label<TAB>path` with a whole "
            f"number as label, found {len(fields)} columns: {line.strip()[:80]!r}"
        )
    if "\\" in image and not _exists(path.parent, image):
        image = image.replace("\\", "/")
    return image, int(label.partition(".")[0])


def _exists(root: Path, image: str) -> bool:
    return os.path.exists(root / image)  # noqa: PTH110 - that of Path raises for a long name
