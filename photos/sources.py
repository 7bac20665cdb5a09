"""Photos from wherever they are: files, folders, lists, `.bin`, `.rec`, Parquet and videos.

Each is a source of items, which are read when they are needed. A folder's source holds the names of
one folder, and of those above it, at a time. What is damaged gives items that say so.
"""

# A Path costs 5 us a file, does not keep a path as the user wrote it, and fails on very long ones:
# ruff: noqa: PTH110, PTH112, PTH114, PTH116, PTH118, PTH120, PTH122, PTH123

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import decode, to_112
from data.listing import parse_line
from data.rec.index import pack_key
from data.rec.reader import RecordPack
from data.verification import Image, read_bin
from photos.decode import Photo, from_array, read_photo
from utils.files import MOST_UNPACKED, Origin, check_path, is_folder, open_input
from utils.long_work import prefetch
from utils.tables import csv_rows, require_pyarrow, text_lines

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile, RowGroupMetaData

LIST_SUFFIXES = frozenset((".txt", ".lst", ".csv", ".tsv"))
PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for group in (
        ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "tif", "tiff", "gif", "bmp"),
        ("dib", "avif", "heic", "heif", "hif", "jp2", "j2k", "jpf", "jpx", "ppm", "pgm", "pbm"),
        ("pnm", "psd", "qoi", "sgi", "pcx", "ico"),
    )
    for suffix in group
)
VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for group in (
        ("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4"),
        ("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
    for suffix in group
)
COLUMNS = ("path", "file", "image", "filename", "image_path", "file_name", "name")  # of a CSV
IDENTITIES = ("identity", "person", "subject", "person_id", "subject_id", "name", "label", "class")
CHECKED_LINES = 100  # of a list, of which one must name a file
ERRORS = "surrogateescape"  # file names that are not UTF-8 keep their bytes
LONGEST_FILE = 1 << 30  # bytes
_LONGEST_PATH = 4096  # letters; what is longer is rather the content of a file
_MISSING = 0.1  # of the frames that the file announces; announcements are often a little off
_OPEN = 2  # packs that stay open after they were read: one, and the one that follows
_LARGE_COLUMN = 1 << 26  # bytes of a group of rows
_IMAGES_AT_ONCE, _PATHS_AT_ONCE = 16, 8192  # rows of a Parquet file

_Identity = tuple[int, int]  # device and number of a folder
_Open = tuple[str, _Identity, Iterator[str]]  # and the names that are still to come
_Positions = range | NDArray[np.int32]


@dataclass(frozen=True)
class Item:
    """A photo, a face of a pack, or a frame of a video. Can be pickled.

    Attributes:
        file: path of the photo, pack or video, as the user or the folder names it.
        index: row of a `.bin`, `.rec` or `.parquet`, frame of a video; None for a photo.
        aligned: True for a face of a `.bin` or `.rec`; None where it is not known.
        identity: who it shows, where a list says so; else "".
    """

    file: str
    index: int | None = None
    aligned: bool | None = None
    _read: Callable[[], Photo] | None = field(default=None, repr=False, compare=False)
    identity: str = ""

    def load(self) -> Photo:
        """Read and decode; safe to call from any thread, and more than once.

        Raises:
            ValueError: why it cannot be read; without the file's name.
            OSError: what it comes from is gone, or was changed.
        """
        return load_file(self.file) if self._read is None else self._read()


class Source(Protocol):
    """One of the inputs."""

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its items in order; instead of the first `skip` of them None, without reading."""
        ...

    def count(self) -> int | None:
        """Return the number of items; None where it takes decoding to know."""
        ...


class Sources:
    """All items of some inputs, in the order of the inputs; may be gone through repeatedly.

    Attributes:
        skipped: number of files that are neither photos nor lists, by suffix, most frequent first;
            complete once all items were iterated over.
    """

    def __init__(
        self, sources: Sequence[Source], skipped: Counter[str], texts: Sequence[str] = ()
    ) -> None:
        self._sources = sources
        self._skipped = skipped
        self._texts = texts  # inputs that could be lists, but name no file

    @property
    def skipped(self) -> dict[str, int]:
        """See above."""
        return dict(self._skipped.most_common())

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    def items(self, skip: int = 0) -> Iterator[Item]:
        """Yield the items after the first `skip`, which are not read: to resume after a stop."""
        self._skipped.clear()
        self._skipped.update(os.path.splitext(path)[1].lower() for path in self._texts)
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
        ValueError: an input that does not exist, a list alone that names no file, a Parquet file
            without photos, or no input at all.
    """
    if every < 1:
        raise ValueError(f"every = {every}: take every frame (1), every second (2), or so")
    paths = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if not paths:
        raise ValueError("no photos: name files, folders, lists, .bin, .rec or videos")
    skipped: Counter[str] = Counter()
    sources: list[Source] = []
    texts: list[str] = []
    photos = Origin()
    for path in map(str, paths):
        source = _open(path, every, skipped, photos)
        if isinstance(source, ListSource) and not source.names_a_file():
            if len(paths) == 1:
                raise ValueError(
                    f"{path}: none of its first {CHECKED_LINES} lines names a file that exists; "
                    "paths start at the list's folder"
                )
            texts.append(path)
        else:
            sources.append(source)
    return Sources(sources, skipped, texts)


def _open(path: str, every: int, skipped: Counter[str], photos: Origin) -> Source:
    if os.path.isdir(path):
        return FolderSource(path, skipped)
    if not os.path.exists(path):
        name = f"{path[:50]}... ({len(path)} letters)" if len(path) > _LONGEST_PATH else path
        raise ValueError(
            f"no such input: {name} (a photo, folder, list, .bin, .rec, .parquet or video)"
        )
    suffix = Path(path).suffix.lower()
    if suffix in LIST_SUFFIXES:
        return ListSource(path)
    if suffix in (".parquet", ".pq"):
        return ParquetSource(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path, every)
    return PackSource(path) if suffix in (".bin", ".rec") else PhotoSource(path, photos)


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


def load_file(path: str, origin: Origin | None = None) -> Photo:
    """Read a photo's file; ValueError with the reason where that fails, OSError as `Origin`."""
    return read_photo((origin or Origin()).read(path, LONGEST_FILE))


def file_item(path: str, origin: Origin, identity: str = "") -> Item:
    """Return the item of a photo's file that a folder or a list names."""
    return Item(path, _read=partial(load_file, path, origin), identity=identity)


def refused(file: str, why: str, index: int | None = None, aligned: bool | None = None) -> Item:
    """Return an item whose `load` raises ValueError with this reason."""
    return Item(file, index, aligned, partial(_refuse, why))


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _return(photo: Photo) -> Photo:
    return photo


@dataclass(frozen=True)
class PhotoSource:
    """One file that was named: a photo, whatever its suffix."""

    path: str
    origin: Origin = field(default_factory=Origin)

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield it, or None."""
        yield None if skip else file_item(self.path, self.origin)

    def count(self) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class FolderSource:
    """The photos and `.rec` packs in a folder and the folders in it, sorted by name.

    Hidden files and folders are left out. A linked folder is entered unless that leads back into
    itself, or another link has led there before. One that cannot be listed is an OSError.

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
        origin = Origin(self.path)
        open_folders: list[_Open] = []
        linked: set[_Identity] = set()
        _enter(self.path, open_folders, linked, skipped)
        while open_folders:
            folder, _, names = open_folders[-1]
            name = next(names, None)
            if name is None:
                open_folders.pop()
            elif name.endswith(os.sep):
                inner = os.path.join(folder, name[: -len(os.sep)])
                _enter(inner, open_folders, linked, skipped)
            elif name.lower().endswith(".rec"):
                yield PackSource(os.path.join(folder, name))
            else:
                yield file_item(os.path.join(folder, name), origin)


def _sorted_names(folder: str, skipped: Counter[str]) -> list[str]:
    """Return the photos, packs and folders (ending in a separator) of a folder."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_symlink():
                check_path(entry.path, folder)
            if is_folder(entry, PHOTO_SUFFIXES):
                names.append(name + os.sep)
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in PHOTO_SUFFIXES or suffix == ".rec":
                names.append(name)
            else:
                skipped[suffix or "without suffix"] += 1
    names.sort()
    return names


def _enter(
    folder: str, open_folders: list[_Open], linked: set[_Identity], skipped: Counter[str]
) -> None:
    """Open a folder unless that would go round in circles; OSError where it cannot be listed."""
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
        raise OSError(f"{folder}: the folder cannot be listed ({error.strerror})") from error


@dataclass(frozen=True)
class ListSource:
    """The photos that a `.txt`, `.lst`, `.csv` or `.tsv` file lists, relative to its folder.

    One path a line; empty lines and lines that start with # are left out; of fields between tabs
    the first that is not a number. In a table (comma, semicolon or tab) the column called path,
    file, image, filename, image_path, file_name or name, else the first that has a file's name.
    Who is on a photo: a label as `data.listing.parse_line` reads it, or the column called as in
    `IDENTITIES`, or the second one where there is no heading.
    """

    path: str

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield an item for each line, whether its file exists or not."""
        folder, origin = os.path.dirname(self.path), Origin(self.path)
        for row, (name, identity, line) in enumerate(self._entries()):
            if row < skip:
                yield None
            elif name:
                path = _listed_path(folder, name)
                check_path(path, f"{self.path}:{line}")
                yield file_item(path, origin, identity)
            else:
                yield refused(self.path, f"line {line} names no photo")

    def names_a_file(self) -> bool:
        """Whether one of its first lines names a file."""
        folder = os.path.dirname(self.path)
        lines = list(islice(self._entries(), CHECKED_LINES))
        return not lines or any(not name or _exists(folder, name) for name, _, _ in lines)

    def count(self) -> int:
        """Read the list, and return the number of its paths."""
        return sum(1 for _ in self._entries())

    def unread(self) -> list[str]:
        """Headings beside that of the paths, in a table of which none is that of identities."""
        rows = self._rows() if self._is_table else iter(())
        column, who, heading, _ = _csv_layout(rows, os.path.dirname(self.path))
        return [] if who < len(heading) else [*heading[:column], *heading[column + 1 :]]

    @property
    def _is_table(self) -> bool:
        return self.path.lower().endswith((".csv", ".tsv"))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        rows = csv_rows(self.path, errors=ERRORS)
        return (row for row in rows if not row[1][0].startswith("#"))

    def _entries(self) -> Iterator[tuple[str, str, int]]:
        """Yield each path ("" where a row has none), its identity, and its line."""
        try:
            if self._is_table:
                yield from _csv_entries(self._rows(), os.path.dirname(self.path))
            else:
                path = Path(self.path)
                for number, line in enumerate(text_lines(self.path, ERRORS), start=1):
                    if line.strip() and not line.startswith("#"):
                        yield *_text_entry(line.strip(), path), number
        except ValueError as error:
            raise ValueError(f"{self.path}: not a list of paths, one a line ({error})") from error


def _listed_path(folder: str, name: str) -> str:
    """Path of a listed photo; a backslash separates folders where no file has it in its name."""
    path = os.path.join(folder, name)
    other = os.path.join(folder, name.replace("\\", "/"))
    return other if "\\" in name and not os.path.lexists(path) else path


def _text_entry(line: str, path: Path) -> tuple[str, str]:
    """Path and identity, "" where the line has no label."""
    fields = line.split("\t")
    name = next((field for field in fields if not _is_number(field)), fields[0])
    is_path = len(fields) == 1 and not _is_number(line.rpartition(" ")[2])
    if is_path or (len(fields) == 1 and _exists(str(path.parent), name)):
        return name, ""
    try:
        labelled, label = parse_line(line, path, 0)
    except ValueError:
        return name, ""
    return (name if len(fields) > 1 else labelled), str(label)


def _csv_entries(
    rows: Iterator[tuple[int, list[str]]], folder: str
) -> Iterator[tuple[str, str, int]]:
    column, who, heading, first = _csv_layout(rows, folder)
    for line, fields in chain(first, rows):
        name, identity = (
            fields[place].strip() if place < len(fields) else "" for place in (column, who)
        )
        yield name, identity, line


def _csv_layout(
    rows: Iterator[tuple[int, list[str]]], folder: str
) -> tuple[int, int, list[str], list[tuple[int, list[str]]]]:
    """Columns of paths and identities (or one that no row has), any heading, other rows read."""
    start = list(islice(rows, 1))
    head = [field.strip().lower() for _, fields in start for field in fields]
    named = [head.index(name) for name in COLUMNS if name in head]
    column, has_heading = (named[0], True) if named else (_file_column(start, folder), False)
    if column < 0 and start and not os.path.splitext(head[0])[1]:  # a heading of other words?
        start += islice(rows, 1)
        column = _file_column(start[1:], folder)
        has_heading = column >= 0
    column = max(column, 0)
    others = [head.index(name) for name in IDENTITIES if name in head]
    who = next((place for place in others if place != column), len(head) if has_heading else 1)
    heading = [field.strip() for _, fields in start[:has_heading] for field in fields]
    return column, who, heading, start[has_heading:]


def _file_column(rows: Sequence[tuple[int, list[str]]], folder: str) -> int:
    """The first column in which a row names a file; -1 where there is none."""
    fields = [field.strip() for _, row in rows for field in row]
    files = (n for n, field in enumerate(fields) if field and _exists(folder, field))
    return next(files, -1)


def _exists(folder: str, name: str) -> bool:
    return os.path.lexists(_listed_path(folder, name))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class PackSource:
    """The images of a `.bin` set in its order, or the image records of a `.rec` pack by key.

    Image 2i and 2i + 1 of a `.bin` are its pair i. Rows of a `.rec` are those of
    data.faces.PackFaces; where the pack's own structure is damaged, all records but whole ones
    without an image.
    """

    path: str

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its images; the pack is opened at the first."""
        version, number = self._version(), self.count()
        yield from repeat(None, min(skip, number))
        read = _read_rec_image if self._is_rec else _read_bin_image
        for row in range(skip, number):
            yield Item(self.path, row, True, partial(read, self.path, version, row))

    def count(self) -> int:
        """Open the pack, and return the number of images."""
        version = self._version()
        return len(
            open_rec(self.path, version)[1] if self._is_rec else open_bin(self.path, version)
        )

    @property
    def _is_rec(self) -> bool:
        return self.path.lower().endswith(".rec")

    def _version(self) -> str:
        return repr(pack_key(Path(self.path)))


@lru_cache(_OPEN)
def open_bin(path: str, version: str) -> Sequence[Image]:
    """Open a `.bin` set; OSError unless it is still of this version."""
    _check_version(path, version)
    return read_bin(path).images


def _read_bin_image(path: str, version: str, row: int) -> Photo:
    image = open_bin(path, version)[row]
    return _face(decode(image) if isinstance(image, bytes) else image)


def _check_version(path: str, version: str) -> None:
    if repr(pack_key(Path(path))) != version:
        raise OSError(f"{path} was replaced while it was read: start again when it is complete")


@lru_cache(_OPEN)
def open_rec(path: str, version: str) -> tuple[RecordPack, _Positions]:
    """Open a pack and find its images; OSError unless it is still of this version."""
    _check_version(path, version)
    pack = RecordPack(path)
    pack.require_whole()
    try:
        return pack, pack.images.positions
    except ValueError:
        rows = [row for row in range(len(pack)) if _may_be_image(pack, row)]  # reported row by row
        return pack, np.array(rows, dtype=np.int32)


def _may_be_image(pack: RecordPack, position: int) -> bool:
    try:
        return bool(pack.record_at(position).image)
    except ValueError:
        return True


def _read_rec_image(path: str, version: str, row: int) -> Photo:
    pack, positions = open_rec(path, version)
    position = int(positions[row])
    try:
        image = pack.record_at(position).image
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{path}: ")) from error
    try:
        return _face(decode(image))
    except ValueError as error:
        raise ValueError(f"key {pack.key(position)}: {error}") from error


def _face(pixels: NDArray[np.uint8]) -> Photo:
    """Return an aligned face as the rest of the project sees it: at 112x112."""
    height, width = pixels.shape[:2]
    face = to_112(pixels)
    return Photo(face, "" if face is pixels else f"resized from {width}x{height}")


class ParquetSource:
    """The rows of a Parquet file: images, or paths that start at its folder.

    Images are a column `image` (bytes, or Hugging Face's structure with `bytes`), paths a column
    `path` or `file` (text).

    Raises:
        ValueError: no such file or column, damaged, or pyarrow is not installed.
    """

    def __init__(self, path: str) -> None:
        self.path, self._origin, self._is_large = path, Origin(path), False
        require_pyarrow(f"{path}: reading Parquet")
        import pyarrow

        try:
            with self._open() as file:
                schema = file.schema_arrow
                groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
                self._groups = [group.num_rows for group in groups]
                self._is_large = _largest_column(groups, path) >= _LARGE_COLUMN
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a Parquet file, or damaged ({error})") from error
        self._column, self._holds_images = self._choose(schema)

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its rows; whole groups of rows to skip are not read."""
        import pyarrow

        row = 0
        try:
            with self._open() as file:
                for group, length in enumerate(self._groups):
                    if row + length <= skip:
                        yield from repeat(None, length)
                        row += length
                        continue
                    for value in self._values(file, group):
                        yield self._item(row, value) if row >= skip else None
                        row += 1
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}: damaged from row {row} on ({error})") from error

    def count(self) -> int:
        """Return the number of rows."""
        return sum(self._groups)

    def _open(self) -> ParquetFile:
        from pyarrow.parquet import ParquetFile

        open_input(self.path).close()  # which a pipe or a device is not
        # through a buffer a page gets the room that it claims; a small column is read as it is
        size = 1 << 20 if self._is_large else 0
        return ParquetFile(self.path, buffer_size=size, pre_buffer=False)

    def _choose(self, schema: pyarrow.Schema) -> tuple[str, bool]:
        from pyarrow import types

        for name in ("image", "path", "file"):
            if name not in schema.names:
                continue
            kind = schema.field(name).type
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return f"{name}.bytes", True
            if types.is_binary(kind) or types.is_large_binary(kind):
                return name, True
            if types.is_string(kind) or types.is_large_string(kind):
                return name, False
        raise ValueError(
            f"{self.path}: no column `image` with encoded bytes, nor `path` or `file` with text; "
            f"its columns are {', '.join(schema.names)}"
        )

    def _values(self, file: ParquetFile, group: int) -> Iterator[bytes | str | None]:
        at_once = _IMAGES_AT_ONCE if self._holds_images else _PATHS_AT_ONCE
        for batch in file.iter_batches(at_once, row_groups=[group], columns=[self._column]):
            column = batch.column(0)
            if "." in self._column:
                column = column.field("bytes")
            yield from column.to_pylist()

    def _item(self, row: int, value: bytes | str | None) -> Item:
        if value is None:
            return refused(self.path, "the row is empty", row)
        if isinstance(value, bytes):
            return Item(self.path, row, None, partial(read_photo, value))
        path = str(Path(self.path).parent / value)
        check_path(path, f"{self.path}: row {row}")
        return file_item(path, self._origin)


def _largest_column(groups: Sequence[RowGroupMetaData], path: str) -> int:
    """Bytes of the largest column of a group; ValueError where one unpacks to far more."""
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    for column in columns:
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        if unpacked > MOST_UNPACKED * packed + (1 << 30):
            raise ValueError(f"{path}: {column.path_in_schema} would unpack to {unpacked} bytes")
    return max((column.total_compressed_size for column in columns), default=0)


@dataclass(frozen=True)
class VideoSource:
    """Every n-th frame of a video, from the first; turned upright as the file says.

    Frames are decoded when they are taken, in the thread that takes them: in a video
    there is no other order.
    """

    path: str
    every: int

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its frames, and a last item that says so where the video is damaged.

        Frames to skip are decoded too: there is no other way to find those that follow.
        """
        why = _refusal(self.path)
        capture = cv2.VideoCapture() if why else cv2.VideoCapture(self.path, cv2.CAP_FFMPEG)
        frames = row = 0
        try:
            while capture.grab():
                if frames % self.every == 0:
                    yield self._item(capture, frames) if row >= skip else None
                    row += 1
                frames += 1
            announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        if not frames:
            why = why or "not a video that OpenCV can read, or damaged"
        elif frames < (1 - _MISSING) * announced:
            why = f"the video breaks off: {frames} of about {announced} frames can be read"
        if why:
            yield refused(self.path, why, frames or None) if row >= skip else None

    def count(self) -> None:
        """Return None: what a video announces is no more than a guess."""

    def _item(self, capture: cv2.VideoCapture, frame: int) -> Item:
        is_whole, bgr = capture.retrieve()
        if not is_whole:
            return refused(self.path, "the frame is damaged", frame)
        photo = from_array(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        return Item(self.path, frame, None, partial(_return, photo))


def _refusal(path: str) -> str:
    """Say why a file must not reach the decoder, which would follow a playlist; "" where it may."""
    if Path(path).exists() and not Path(path).is_file():
        return "not a regular file"
    with open_input(path) as file:
        head = file.read(256)
    if not head:
        return "empty file"
    return "a text file, not a video" if head.isascii() and b"\0" not in head else ""
