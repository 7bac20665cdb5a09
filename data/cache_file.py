"""Arrays that took long to compute, in a file next to what they describe or in a cache folder.

Used for the index of a pack and the listing of a folder. A cache file that is stale, cut short,
damaged or written by another program is ignored; one that cannot be written costs time only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from utils.files import DAMAGE, atomic_file, open_input, read_bytes

FORMAT = 1
SUFFIX = ".faceuq-index"

_MAGIC = b"faceuq\r\n"
_START = struct.Struct("<8sQQ")  # magic, bytes of the JSON header that follows, its CRC-32
_ALIGNED = 64

Key = Mapping[str, object]
Arrays = dict[str, NDArray[Any]]
Value = TypeVar("Value")

log = logging.getLogger("faceuq")


def load(source: Path, key: Key, make: Callable[[Arrays], Value]) -> Value | None:
    """Return what `make` makes of the arrays that were stored for a file or folder.

    The key says what they depend on (sizes, times), in JSON's types; it has to equal the stored
    one. None without a match, or where the file holds something else.
    """
    for path in _places(source):
        try:
            content = read_bytes(path)  # copied: a mapped file could be cut off under its reader
        except OSError:
            continue
        with suppress(ValueError, SyntaxError, *DAMAGE):  # SyntaxError: of np.dtype
            arrays = _parse(content, key)
            if arrays is not None:
                return make(arrays)
        log.info("%s no longer fits %s, or is damaged: rebuilding it", path, source)
    return None


def store(source: Path, key: Key, arrays: Arrays) -> None:
    """Store 1-D arrays for the next start: whole or not at all, whoever else does the same."""
    why = "files of other programs are in its place"
    for path in _places(source):
        if _is_foreign(path):
            continue
        try:
            _write(path, key, arrays, mode=source.stat().st_mode & 0o666 | 0o600)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
        else:
            log.info("stored the index of %s in %s for the next start", source, path)
            return
    log.info("cannot store the index of %s for the next start: %s", source, why)


def stamp(path: Path) -> list[int]:
    """Return [size, time of the last change in ns] of a file, as keys have it."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _places(source: Path) -> list[Path]:
    """Return where a cache may be: next to the source, and in the user's cache folder."""
    source = source.resolve()
    near = source / SUFFIX if source.is_dir() else source.with_name(source.name + SUFFIX)
    home = _cache_home()
    name = hashlib.sha256(os.fsencode(source)).hexdigest()[:32]
    return [near] if home is None else [near, home / "face-uncertainty" / (name + SUFFIX)]


def _cache_home() -> Path | None:
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in some containers
        return None


def _is_foreign(path: Path) -> bool:
    """Say whether there is a file that this module did not write."""
    try:
        with open_input(path) as file:
            return file.read(len(_MAGIC)) != _MAGIC
    except OSError:
        return path.exists()


def _write(path: Path, key: Key, arrays: Arrays, mode: int) -> None:
    blocks = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described, offset, check = [], 0, 0
    for name, block in blocks.items():
        described.append([name, block.dtype.str, len(block), offset])
        offset += block.nbytes + -block.nbytes % _ALIGNED
        check = zlib.crc32(_bytes(block), check)
    header = json.dumps({"format": FORMAT, "key": key, "arrays": described, "check": check})
    head = header.encode()
    head += b" " * (-(_START.size + len(head)) % _ALIGNED)
    with atomic_file(path) as file:
        file.write(_START.pack(_MAGIC, len(head), zlib.crc32(head)) + head)
        for block in blocks.values():
            file.write(_bytes(block))
            file.write(bytes(-block.nbytes % _ALIGNED))
        Path(file.name).chmod(mode)  # who may read the source may read this


def _bytes(block: NDArray[np.generic]) -> memoryview:
    return block.view(np.uint8).data if block.size else memoryview(b"")


def _parse(content: bytes, key: Key) -> Arrays | None:
    if len(content) < _START.size:
        return None
    magic, length, check = _START.unpack_from(content)
    end = _START.size + length
    head = content[_START.size : end]
    if magic != _MAGIC or zlib.crc32(head) != check:
        return None
    header = json.loads(head)
    if header["format"] != FORMAT or header["key"] != json.loads(json.dumps(key)):
        return None
    arrays, check = {}, 0
    for name, kind, count, offset in header["arrays"]:
        dtype = np.dtype(kind)
        if dtype.kind not in "iuf":
            return None
        if end + offset + count * dtype.itemsize > len(content):
            return None
        arrays[name] = np.frombuffer(content, dtype, count, end + offset)
        check = zlib.crc32(_bytes(arrays[name]), check)
    return arrays if check == header["check"] else None
