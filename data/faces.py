"""The faces to train on: who is in which image, and how to read one.

`open_faces` takes a folder per identity, a list file, a `.rec` pack, `synthetic:...`, or several.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import SIZE, Sizes, decode, decode_into, encode_jpeg, fingerprint, to_112
from data.listing import Listing, folder_listing, list_file_listing
from data.rec.format import RecordWriter
from data.rec.reader import RecordPack
from utils.files import Origin, naming


class Faces(Protocol):
    """N labelled images of C identities.

    Attributes:
        labels: (N,) 0..C-1, every one of which occurs; int32, which saves 70 MB for 17 M images,
            or int64.
        num_classes: C.
        sizes: of the images that were decoded.
    """

    labels: NDArray[Any]
    num_classes: int
    sizes: Sizes

    def __len__(self) -> int:
        """Return N."""
        ...

    def name(self, row: int) -> str:
        """Return what a message calls this image: its path, or pack and key."""
        ...

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return (112, 112, 3) RGB; ValueError naming the image where it cannot be read."""
        out = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
        self.read_into(row, out)
        return out

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3), which is undefined after an error."""
        ...

    def fingerprint(self, row: int) -> int:
        """Return 64 bits that rows share whose encoded images are equal (`images.fingerprint`)."""
        return fingerprint(self.name(row).encode("utf-8", "surrogateescape"))

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Announce to the system that these rows will be read soon; returns at once."""
        return


class Images(Protocol):
    """M images in a fixed order, decoded a few at a time."""

    @property
    def sizes(self) -> Sizes:
        """Of the images that were decoded."""

    def __len__(self) -> int:
        """Return M."""

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (n, 112, 112, 3) RGB; ValueError names one that is damaged."""

    def fingerprint(self, row: int) -> int:
        """64 bits that rows share whose images are equal, found without decoding them."""

    def image_name(self, row: int) -> str:
        """What messages and score files call an image."""


class FaceImages:
    """The images of any `Faces`, their names without the folder `root`."""

    def __init__(self, faces: Faces, root: Path | None = None) -> None:
        self.faces = faces
        self._prefix = "" if root is None else f"{root}/"

    @property
    def sizes(self) -> Sizes:
        """Of the images that were decoded."""
        return self.faces.sizes

    def __len__(self) -> int:
        return len(self.faces)

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (n, 112, 112, 3) RGB; ValueError names one that is damaged."""
        rows = range(start, min(stop, len(self)))
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
        for place, row in enumerate(rows):
            batch[place] = self.faces.read(row)
        return batch

    def fingerprint(self, row: int) -> int:
        """Return what rows of equal encoded images share; ValueError names one that is missing."""
        return self.faces.fingerprint(row)

    def image_name(self, row: int) -> str:
        """Return the path below the root, or the key in a pack."""
        name = self.faces.name(row)
        _, is_packed, key = name.rpartition(": key ")
        return key if is_packed else name.removeprefix(self._prefix)


class ClassIndex(NamedTuple):
    """The rows of each class: those of class c are `rows[starts[c]:starts[c + 1]]`.

    Attributes:
        rows: (N,) int32 (int64 beyond 2^31 images), ascending within a class; a range where the
            labels are sorted.
        starts: (C + 1,) int64.
    """

    rows: range | NDArray[np.integer]
    starts: NDArray[np.int64]


def people_of(
    labels: NDArray[np.integer], names: Sequence[str], numbers: NDArray[np.integer] | None
) -> NDArray[np.str_]:
    """(N,) what to call the person of each image, so that two sources can be matched.

    The top folder of the images' names where folders and labels go together one to one, as in a
    folder per identity; else the number that the source itself has for the label ("#17").

    Args:
        labels: (N,) 0..C-1.
        names: (N,) image names.
        numbers: (C,) the source's own; None where they are lost: then people are called "?17", and
            no other source can be matched with them.
    """
    folders = [re.split(r"[/\\]", name)[0] if re.search(r"[/\\]", name) else "" for name in names]
    pairs = set(zip(folders, labels.tolist(), strict=True))
    if len(pairs) == len({folder for folder, _ in pairs}) == len({label for _, label in pairs}):
        return np.array(folders, np.str_)
    known = labels if numbers is None else numbers[labels]
    return np.array([f"{'?' if numbers is None else '#'}{number}" for number in known.tolist()])


def class_index(labels: NDArray[np.integer]) -> ClassIndex:
    """Index rows by class, from labels (N,) 0..C-1, whole numbers of any type.

    Cost: 0.05 s for 17 M sorted labels, a few seconds for unsorted ones.
    """
    if (labels[1:] >= labels[:-1]).all():
        return ClassIndex(range(len(labels)), _sorted_starts(labels))
    starts = np.zeros(int(labels.max(initial=-1)) + 2, dtype=np.int64)
    np.cumsum(np.bincount(labels), out=starts[1:])
    kind = np.int32 if len(labels) < 1 << 31 else np.int64
    return ClassIndex(np.argsort(labels, kind="stable").astype(kind), starts)


def _sorted_starts(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return (C + 1,) where each class of sorted labels starts."""
    firsts = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    firsts = np.concatenate([[0] if len(labels) else [], firsts]).astype(np.int64)
    present = labels[firsts].astype(np.int64)
    starts = np.full(int(present[-1]) + 2 if len(present) else 1, len(labels), dtype=np.int64)
    # a class without rows starts where the next one does
    starts[: len(starts) - 1] = firsts[np.searchsorted(present, np.arange(len(starts) - 1))]
    return starts


def open_faces(source: str | Sequence[str]) -> Faces:
    """Open a source of faces, or several joined, whose identities are kept apart.

    Args:
        source: a folder with one folder per identity; a folder that holds one `.rec` pack; a
            `.rec` file; a list file (`path label` or insightface's `key<TAB>label<TAB>path` per
            line, paths relative to its folder); `synthetic:identities=200,images=20,seed=1`.

    Raises:
        ValueError: nothing usable; the message says what was expected.
    """
    if isinstance(source, str):
        return _open_source(source)
    if not source:
        raise ValueError("no source of faces: name a folder, a list, a .rec pack or synthetic:...")
    parts = [_open_source(part) for part in source]
    return parts[0] if len(parts) == 1 else JoinedFaces(parts)


class FileFaces(Faces):
    """Image files with labels. Reading ahead does nothing: to announce a file takes opening it.

    Paths are relative to `root`; entries are (path, label) pairs, whose labels are any whole
    numbers and are numbered 0..C-1 in the order in which they first come, or a listing.
    """

    def __init__(self, root: Path, entries: Iterable[tuple[str, int]] | Listing) -> None:
        self._root, self._origin = str(root), Origin(root)
        self._listing = entries if isinstance(entries, Listing) else Listing.of(entries)
        self.labels, self.num_classes = self._listing.labels, self._listing.num_classes
        self.numbers = self._listing.numbers
        self.sizes = Sizes()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the image's path."""
        path = self._listing.path(row)
        return os.path.join(self._root, path)  # noqa: PTH118 - a Path costs 5 us an image

    def encoded(self, row: int) -> bytes:
        """Return the file's bytes; see `Origin.read`."""
        name = self.name(row)
        with naming(name):
            return self._origin.read(name)

    def fingerprint(self, row: int) -> int:
        """Return what files of equal bytes share."""
        return fingerprint(self.encoded(row))

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3)."""
        encoded = self.encoded(row)
        try:
            self.sizes.add(*decode_into(encoded, out))
        except ValueError as error:
            raise ValueError(f"{self.name(row)}: {error}") from error


class PackFaces(Faces):
    """Images of a `.rec` pack.

    Raises:
        ValueError: no pack, a corrupt one, or one without images.
    """

    def __init__(self, path: str | Path) -> None:
        self.pack = RecordPack(path)
        self.pack.require_whole()
        self._positions, labels = self.pack.images
        if not len(labels):
            raise ValueError(f"{path}: no image records")
        self.labels = _compact(labels)
        self.num_classes = int(self.labels.max()) + 1
        self.numbers: NDArray[np.integer] = np.empty(self.num_classes, np.int64)
        self.numbers[self.labels] = labels
        self.sizes = Sizes()

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the pack's path and the record's key."""
        return f"{self.pack.path}: key {self.pack.key(int(self._positions[row]))}"

    def encoded(self, row: int) -> bytes:
        """Return the image as it stands in the pack."""
        return self.pack.record_at(int(self._positions[row])).image

    def fingerprint(self, row: int) -> int:
        """Return what records of equal images share."""
        with self.pack.image_view(int(self._positions[row])) as encoded:
            return fingerprint(encoded)

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3)."""
        with self.pack.image_view(int(self._positions[row])) as encoded:
            try:
                self.sizes.add(*decode_into(encoded, out))
            except ValueError as error:
                raise ValueError(f"{self.name(row)}: {error}") from error

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Let the system fetch the records of these rows; returns at once."""
        positions = self._positions
        self.pack.read_ahead(
            positions.start + rows if isinstance(positions, range) else positions[rows]
        )


class JoinedFaces(Faces):
    """Several sources as one; a source's classes follow those of the sources before it."""

    def __init__(self, parts: Sequence[Faces]) -> None:
        self.parts, self.sizes = tuple(parts), Sizes()
        for part in parts:
            part.sizes = self.sizes
        classes = np.cumsum([0, *(part.num_classes for part in parts)])
        self._starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        self.labels = np.concatenate(
            [part.labels + first for part, first in zip(parts, classes[:-1].tolist(), strict=True)]
        )
        self.num_classes = int(classes[-1])

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return the name that the image has in its own source."""
        part, inner = self._locate(row)
        return part.name(inner)

    def fingerprint(self, row: int) -> int:
        """Return that of the image in its own source."""
        part, inner = self._locate(row)
        return part.fingerprint(inner)

    def read_into(self, row: int, out: NDArray[np.uint8]) -> None:
        """Do what `read` does, into `out` (112, 112, 3)."""
        part, inner = self._locate(row)
        part.read_into(inner, out)

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Announce to each source its rows."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(which).tolist():
            self.parts[number].read_ahead(rows[which == number] - self._starts[number])

    def _locate(self, row: int) -> tuple[Faces, int]:
        which = bisect_right(self._starts, row) - 1
        return self.parts[which], row - self._starts[which]


def _open_source(source: str) -> Faces:
    if source.startswith("synthetic:"):
        from data.rendered import SyntheticFaces, synthetic_options  # needed for them alone

        return SyntheticFaces(**synthetic_options(source, SyntheticFaces))
    path = Path(source)
    if path.is_dir():
        packs = sorted(path.glob("*.rec"))
        if len(packs) > 1:
            raise ValueError(f"{path} holds several packs; name one: {', '.join(map(str, packs))}")
        return PackFaces(packs[0]) if packs else FileFaces(path, folder_listing(path))
    if not path.exists():
        raise ValueError(
            f"no faces at {source}: expected a folder with one folder per identity, a list file, a "
            ".rec pack or synthetic:..."
        )
    if path.suffix == ".rec":
        return PackFaces(path)
    return FileFaces(path.parent, list_file_listing(path))


def _compact(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Number the labels that occur 0..C-1, in their order; themselves where they are that."""
    if (labels[1:] >= labels[:-1]).all():
        new = labels[1:] != labels[:-1]
        if labels[0] == 0 and labels[-1] == np.count_nonzero(new):
            return labels
        return np.cumsum(np.concatenate([[False], new]), dtype=np.int32)
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def write_pack(faces: Faces, prefix: str | Path, quality: int = 95) -> None:
    """Pack faces identity by identity into `.rec`, `.idx`, `.lst` and `property` by `RecordWriter`.

    Images of 112x112 that are encoded already are stored as they are, byte for byte; others are
    resized and encoded as JPEG of this quality.

    Raises:
        ValueError: an image that cannot be read (named).
    """
    rows, _ = class_index(faces.labels)
    with RecordWriter(prefix) as writer:
        for row in map(int, tqdm(rows, desc=str(prefix), unit="image", disable=None)):
            encoded = _encoded(faces, row, quality)
            writer.write_image(int(faces.labels[row]), encoded, faces.name(row))
    faces.sizes.warn(str(prefix))


def _encoded(faces: Faces, row: int, quality: int) -> bytes:
    if not isinstance(faces, (FileFaces, PackFaces)):
        return encode_jpeg(faces.read(row), quality)
    encoded = faces.encoded(row)
    try:
        image = decode(encoded)
    except ValueError as error:
        raise ValueError(f"{faces.name(row)}: {error}") from error
    faces.sizes.add(*image.shape[:2])
    resized = to_112(image)
    return encoded if resized is image else encode_jpeg(resized, quality)
