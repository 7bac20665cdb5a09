"""Arrays of NumPy's files, `.npz` and `.npy`: numbers and text, of no more bytes than there are.

A header is compared with what follows before there is memory for it, and nothing is unpickled.
"""

from __future__ import annotations

import math
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from utils.files import DAMAGE, check_archive, naming, open_input

Array: TypeAlias = "NDArray[Any]"
_KINDS = "biufcSU"  # of dtypes: numbers and text
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Archive:
    """The arrays of an open `.npz` file.

    Attributes:
        names: of them.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        self.names = list(self._members)
        if len(self.names) < len(archive.infolist()):
            raise ValueError("two of its arrays have one name")

    def size(self, name: str) -> int:
        """Return the bytes of an array, with its header."""
        return self._members[name].file_size

    def read(self, name: str) -> Array:
        """Return an array; ValueError where it is damaged, or neither numbers nor text."""
        with naming(f"array {name}", *DAMAGE):
            with self._archive.open(self._members[name]) as file:
                _check_header(file, self.size(name))
            with self._archive.open(self._members[name]) as file:
                array: Array = npy.read_array(file, allow_pickle=False)
            if array.dtype.kind == "U" and array.size:
                kind = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
                if array.ravel().view(kind).max() > sys.maxunicode:
                    raise ValueError("what should be text is not")
        return array


@contextmanager
def open_npz(path: str | Path) -> Iterator[Archive]:
    """Open an `.npz` file; ValueError, with its name, where that or reading it fails."""
    with naming(path, *DAMAGE), open_input(path) as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("not an .npz file (or one that was cut off)")
        check_archive(path)
        with zipfile.ZipFile(file) as archive:
            yield Archive(archive)


def read_npz(path: str | Path, names: Sequence[str]) -> dict[str, Array]:
    """Read named arrays of an `.npz` file; ValueError where one is missing, or as `Archive`."""
    with open_npz(path) as archive:
        missing = [name for name in names if name not in archive.names]
        if missing:
            has = ", ".join(archive.names) or "nothing"
            raise ValueError(f"no array {', '.join(missing)} (it has: {has})")
        return {name: archive.read(name) for name in names}


def npz_names(path: str | Path) -> list[str]:
    """Names of the arrays of an `.npz` file; ValueError where it is not one."""
    with open_npz(path) as archive:
        return archive.names


def read_npy(path: str | Path, rows: NDArray[np.integer] | None = None) -> Array:
    """Return the array of an `.npy` file, or some of its rows, of which no others are then read.

    Bytes are copied: a mapped file that is cut off while somebody looks at it ends the process.

    Raises:
        ValueError: damaged, cut off before a row, or neither numbers nor text; names the file.
        OSError: it cannot be read.
    """
    with naming(path, *DAMAGE), open_input(path) as file:
        shape, is_fortran, dtype = _check_header(file, os.fstat(file.fileno()).st_size)
        if rows is None or is_fortran or not shape:
            file.seek(0)
            array: Array = npy.read_array(file, allow_pickle=False)
            return array if rows is None else array[rows]
        start, length = file.tell(), math.prod(shape[1:]) * dtype.itemsize
        content = np.empty((len(rows), length), np.uint8)
        for row, target in zip(rows.tolist(), content, strict=True):
            file.seek(start + row * length)
            if file.readinto(target.data) < length:
                raise ValueError(f"it is cut off, or has no row {row}")
        return content.view(dtype).reshape(-1, *shape[1:])


def _check_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Compare the header of an array with the bytes that there are, itself included.

    Returns shape, whether it is in Fortran's order, and dtype.

    Raises:
        ValueError: it is damaged, or says more.
    """
    try:
        version = npy.read_magic(file)
        shape, is_fortran, dtype = _HEADERS[version](file)
    except (*DAMAGE, ValueError, SyntaxError, TokenError) as error:
        raise ValueError("its header is damaged") from error
    if dtype.hasobject:
        raise ValueError("it holds pickled objects: refused")
    if dtype.kind not in _KINDS:
        raise ValueError(f"it holds {dtype.kind}, not numbers or text")
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError("its header is damaged (shape)")
    if math.prod(shape) * max(1, dtype.itemsize) > size:
        raise ValueError(f"its header says {shape} of {dtype}, which is more than there is")
    return shape, is_fortran, dtype
