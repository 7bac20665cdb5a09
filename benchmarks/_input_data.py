"""Makes the data of benchmarks/input.py: rendered faces, a pack of tiny records, empty files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import encode_jpeg
from data.rec.format import MAGIC
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces

IMAGES_PER_IDENTITY = 20
LONG_AGO = 1_700_000_000  # time of change: an index is not kept of a file that just changed

_HEAD = [
    ("magic", "<u4"),
    ("length", "<u4"),
    ("flag", "<u4"),
    ("label", "<f4"),
    ("id", "<u8"),
    ("id2", "<u8"),
]
_IMAGE = np.dtype([*_HEAD, ("image", "S4")])
_RANGE = np.dtype([*_HEAD, ("first", "<f4"), ("end", "<f4")])


def rendered(count: int) -> list[bytes]:
    """Return JPEGs (quality 95) of rendered faces."""
    faces = SyntheticFaces(-(-count // IMAGES_PER_IDENTITY), IMAGES_PER_IDENTITY, seed=0)
    return [encode_jpeg(faces.read(row)) for row in range(count)]


def write_pack(folder: Path, jpegs: list[bytes], records: int) -> Path:
    """Write a pack of so many records, which repeat the JPEGs; it is on the disk on return."""
    with RecordWriter(folder / "train") as writer:
        for row in range(records):
            writer.write_image(row // IMAGES_PER_IDENTITY, jpegs[row % len(jpegs)])
    path = folder / "train.rec"
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    _age(path)
    return path


def write_folder(folder: Path, jpegs: list[bytes], images: int) -> Path:
    """Write a folder per identity, with the same images in the same order as the pack."""
    for row in range(images):
        path = folder / f"{row // IMAGES_PER_IDENTITY:07d}" / f"{row % IMAGES_PER_IDENTITY:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpegs[row % len(jpegs)])
    return folder


def write_tiny_records(folder: Path, images: int, identities: int) -> Path:
    """Write a pack in insightface's layout whose images are 4 bytes: 36 bytes a record.

    Headers, identity records and `.idx` are real; only the images and so the distances are not.
    """
    rng = np.random.default_rng(0)
    bounds = np.sort(rng.choice(np.arange(1, images), identities - 1, replace=False))
    bounds = np.concatenate([[0], bounds, [images]])
    faces = _records(_IMAGE, images, first=1)
    faces["label"], faces["image"] = np.repeat(np.arange(identities), np.diff(bounds)), b"tiny"
    people = _records(_RANGE, identities, first=images + 1)
    people["flag"], people["first"], people["end"] = 2, bounds[:-1] + 1, bounds[1:] + 1
    start = _records(_RANGE, 1, first=0)
    start["flag"], start["first"], start["end"] = 2, images + 1, images + 1 + identities
    path = folder / "tiny.rec"
    with path.open("wb") as file:
        for part in (start, faces, people):
            part.tofile(file)
    sizes = np.repeat([_RANGE.itemsize, _IMAGE.itemsize, _RANGE.itemsize], [1, images, identities])
    _write_index(path.with_suffix(".idx"), np.cumsum(sizes) - sizes)
    _age(path)
    return path


def write_names(folder: Path, folders: int, images: int) -> Path:
    """Write folders of empty files: a listing reads names alone."""
    for number in range(folders):
        inner = folder / f"{number:07d}"
        inner.mkdir(parents=True)
        for image in range(images):
            (inner / f"{image:03d}.jpg").touch()
        os.utime(inner, (LONG_AGO, LONG_AGO))
    return folder


def _records(kind: np.dtype[np.void], count: int, first: int) -> NDArray[np.void]:
    records = np.zeros(count, dtype=kind)
    records["magic"], records["length"] = MAGIC, kind.itemsize - 8
    records["id"] = np.arange(first, first + count)
    return records


def _write_index(path: Path, offsets: NDArray[np.int64]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for at in range(0, len(offsets), 100_000):
            some = offsets[at : at + 100_000].tolist()
            file.write("".join([f"{key}\t{offset}\n" for key, offset in enumerate(some, at)]))


def _age(path: Path) -> None:
    for file in (path, path.with_suffix(".idx")):
        os.utime(file, (LONG_AGO, LONG_AGO))
