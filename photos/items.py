"""One input of many: where it came from, and how to read its pixels when they are needed."""

# A Path costs 5 us a file:
# ruff: noqa: PTH123

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, Protocol

from photos.decode import Photo, read_photo

LONGEST_FILE = 1 << 30  # bytes


@dataclass(frozen=True)
class Item:
    """A photo, a face of a pack, or a frame of a video. Can be pickled.

    Attributes:
        file: path of the photo, pack or video, as the user or the folder names it.
        index: row of a `.bin`, `.rec` or `.parquet`, frame of a video; None for a photo.
        aligned: True for a face of a `.bin` or `.rec`; None where it is not known.
    """

    file: str
    index: int | None = None
    aligned: bool | None = None
    _read: Callable[[], Photo] | None = field(default=None, repr=False, compare=False)

    def load(self) -> Photo:
        """Read and decode; safe to call from any thread, and more than once.

        Raises:
            ValueError: why it cannot be read; without the file's name.
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


def load_file(path: str) -> Photo:
    """Read a photo's file; ValueError with the reason where that fails."""
    try:
        # a pipe that nobody writes to would be waited for without end
        with open(path, "rb", opener=_open_without_waiting) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("not a regular file")
            if about.st_size > LONGEST_FILE:
                raise ValueError(f"too large: {about.st_size} bytes, more than {LONGEST_FILE}")
            encoded = file.read()
    except OSError as error:
        raise ValueError(reason(error)) from error
    return read_photo(encoded)


def refused(file: str, why: str, index: int | None = None, aligned: bool | None = None) -> Item:
    """Return an item whose `load` raises ValueError with this reason."""
    return Item(file, index, aligned, partial(_refuse, why))


def ready(file: str, index: int, photo: Photo) -> Item:
    """Return an item that is decoded already."""
    return Item(file, index, None, partial(_return, photo))


def reason(error: OSError) -> str:
    """Say in words why a file could not be read."""
    return error.strerror or str(error)


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _return(photo: Photo) -> Photo:
    return photo


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
