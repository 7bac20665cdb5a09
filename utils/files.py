"""Files are written whole or not at all, and hashed, in one way.

A file is made under a temporary name in its own folder and takes its place when it is complete: a
crash, a full disk or a second writer leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, overload

Json: TypeAlias = "str | int | float | bool | None | list[Json] | dict[str, Json]"
MOST_UNPACKED = 10  # times an archive's own size, beyond a GiB
MOST_JSON = 1 << 25  # bytes of a JSON file, which takes 24 times as much memory at most
# What a reader meets in content that keeps none of its format's rules, beside a ValueError.
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
TEMPORARY = ".*.tmp*"  # pattern of temporary names, which a killed process leaves behind


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path, with the suffix of `path`, that takes its place when all went well.

    What is made there is a file or a folder. A folder that exists already is kept: another process
    was faster. A link is followed; a device or a pipe, such as /dev/stdout, is written directly.

    Raises:
        OSError: the path cannot be written.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        if not (temporary.is_dir() and path.is_dir()):
            temporary.replace(path)
    finally:
        remove(temporary)


@overload
def atomic_file(
    path: str | Path, mode: Literal["wb"] = "wb"
) -> AbstractContextManager[IO[bytes]]: ...
@overload
def atomic_file(path: str | Path, mode: Literal["w"]) -> AbstractContextManager[IO[str]]: ...
def atomic_file(
    path: str | Path, mode: Literal["wb", "w"] = "wb"
) -> AbstractContextManager[IO[bytes]] | AbstractContextManager[IO[str]]:
    r"""Open a file that takes the place of `path` when all went well; its folder is made.

    Mode "w" is for text in UTF-8, with `\n` as it is written; a file name that is not UTF-8 keeps
    its bytes. An OSError names `path`.
    """
    return _atomic_file(Path(path), mode)


@contextmanager
def _atomic_file(path: Path, mode: str) -> Iterator[IO[str]]:
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "surrogateescape"}
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    with atomic_path(path) as temporary:
        try:
            file = temporary.open(mode, **text)  # type: ignore[call-overload]
        except OSError as error:
            error.filename = str(path)
            raise
        with file:
            yield file
            file.flush()
            if temporary.is_file():
                os.fsync(file.fileno())


@overload
def open_input(path: str | Path) -> IO[bytes]: ...
@overload
def open_input(path: str | Path, encoding: str, errors: str = "strict") -> IO[str]: ...
def open_input(
    path: str | Path, encoding: str | None = None, errors: str | None = None
) -> IO[bytes] | IO[str]:
    """Open a file to read its bytes, or its text with line ends as they are.

    Only regular files are read: a pipe could be waited for, and a device read, without end.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    mode, newline = ("rb", None) if encoding is None else ("r", "")
    return open(path, mode, -1, encoding, errors, newline, opener=_open_regular)  # noqa: PTH123, SIM115


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


class Origin:
    """Reads the files that a folder or a list (`path`) names, and tells a missing one from all."""

    def __init__(self, path: str | Path | None = None) -> None:
        self._places = () if path is None else (str(path),)
        self._last = self._places

    def read(self, path: str, largest: int | None = None) -> bytes:
        """Return the bytes of a file, of at most so many.

        Raises:
            ValueError: it cannot be read; the reason, without its name.
            OSError: nor is the folder, or the file that was read before it, still there: a disk or
                a folder is gone, not a file.
        """
        try:
            with open_input(path) as file:
                size = os.fstat(file.fileno()).st_size
                if largest is not None and size > largest:
                    raise ValueError(f"too large: {size} bytes, more than {largest}")
                content = file.read()
        except OSError as error:
            for seen in self._places + self._last:
                try:
                    os.stat(seen)  # noqa: PTH116 - names that are no text
                except OSError as gone:
                    why = f"{gone.strerror}; so it was for {path}"
                    raise OSError(f"{seen} is gone while it is read ({why})") from error
            raise ValueError(error.strerror or str(error)) from error
        self._last = (path,)
        return content


def check_archive(path: str | Path) -> None:
    """Raise ValueError for a zip archive that is damaged, or unpacks to far more than its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged archive ({error})") from error
    if unpacked > MOST_UNPACKED * Path(path).stat().st_size + (1 << 30):
        raise ValueError(f"{path} would unpack to {unpacked} bytes: refused")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text; ValueError where it is not one, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def read_json(path: str | Path) -> Any:
    """Return the value that a JSON file in UTF-8 holds.

    Raises:
        ValueError: damaged, larger than `MOST_JSON` or nested too deeply; names the file.
        OSError: it cannot be read.
    """
    with open_input(path) as file:
        text = file.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise ValueError(f"{path} has more than {MOST_JSON} bytes: refused")
    try:
        return parse_json(text.decode())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text; see `atomic_file`."""
    with atomic_file(path, "w") as file:
        file.write(text)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def require_folder(folder: Path) -> None:
    """Raise OSError where the folder that a job has made is gone, before it is made once more."""
    if not folder.is_dir():
        raise OSError(f"{folder} is gone while it is written: the same command begins it anew")


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; ValueError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(name: str) -> str:
    """Replace what may not stand in a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


@contextmanager
def naming(path: str | Path, *damage: type[Exception]) -> Iterator[None]:
    """Put a file's name before the message of a ValueError that lacks it.

    Where what a file holds is made into something, `*DAMAGE` are ValueErrors too.
    """
    try:
        yield
    except damage as error:
        kind = type(error).__name__
        raise ValueError(f"{path} is damaged, or of another kind ({kind}: {error})") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
