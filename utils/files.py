"""Files are written whole or not at all, by one process at a time, and hashed, in one way.

A file is made under a temporary name in its own folder and takes its place when it is complete and
on the disk: a crash, a power cut, a full disk or a second writer leaves the old file or the new
one, never half of one. A lock beside it keeps a second writer away, and tells which temporary files
are those of killed processes. Paths that lists name, and links in folders, stay in one folder where
`--within` asks for it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Json: TypeAlias = "str | int | float | bool | None | list[Json] | dict[str, Json]"
MOST_UNPACKED = 10  # times an archive's own size, beyond a GiB
MOST_MEMBERS = 20_000  # of an archive
MOST_JSON = 1 << 25  # bytes of a JSON file, which takes 24 times as much memory at most
# What a reader meets in content that keeps none of its format's rules, beside a ValueError.
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
_SHOWN = 300  # letters of another library's message
LOCK = ".lock"  # of a folder
PATIENCE = 30.0  # seconds, for another process to finish a file
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_bound: list[Path] = []  # the folder of `--within`; empty where any path may be read
_LEFTOVER = re.compile(r"\.(?:(.+)\.lock|(.+?)(?:\.[0-9a-f]{12})?\.tmp(\..*)?)")


@contextmanager
def sole_writer(target: Path, lock: Path | None = None, patience: float = 0) -> Iterator[bool]:
    """Keep other processes from writing a folder, or a file.

    Yields whether that is so: on a file system without locks nothing keeps others out.

    Args:
        target: a folder, which is made; with a lock of another name, anything.
        lock: the file that is locked, and there meanwhile; `LOCK` in the folder.
        patience: seconds to wait for another process.

    Raises:
        ValueError: another process is writing it.
        OSError: the lock cannot be made there.
    """
    from filelock import FileLock, Timeout  # whose import --help need not wait for

    lock = lock or target / LOCK
    file, is_held = FileLock(lock, timeout=patience, thread_local=False), True
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file.acquire()
    except Timeout:
        raise ValueError(
            f"{target}: another process is writing it; wait for it, or name another place"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(target)) from error
        is_held = False
    try:
        yield is_held
    finally:
        try:
            if os.name != "nt":  # which removes nothing that is open
                lock.unlink(missing_ok=True)
        finally:
            file.release()
        if os.name == "nt":
            with suppress(OSError):  # somebody else has it
                lock.unlink()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left of a file, or of all: temporary files and locks.

    Those of live processes stay.
    """
    for path in list(folder.glob(".*")):
        match = _LEFTOVER.fullmatch(path.name)
        target = folder / (match[1] or match[2] + (match[3] or "")) if match else folder
        if match and name in (None, target.name):
            with suppress(ValueError), sole_writer(target, _lock_of(target)) as is_held:
                if is_held and path != _lock_of(target):
                    remove(path)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path, with the suffix of `path`, that takes its place when all went well.

    What is made there is a file or a folder. A folder that exists already is kept: another process
    was faster. A link is followed; a device or a pipe, such as /dev/stdout, is written directly.

    Raises:
        ValueError: another process is writing it, for longer than `PATIENCE`.
        OSError: the path cannot be written; it is named.
    """
    path = Path(path)
    if path.is_symlink():
        path = Path(os.path.realpath(path))
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _blaming(path, path):
            yield path
        return
    with sole_writer(path, _lock_of(path), PATIENCE) as is_held:
        unique = "" if is_held else f".{uuid.uuid4().hex[:12]}"
        temporary = path.with_name(f".{path.stem}{unique}.tmp{path.suffix}")
        remove(temporary)  # of a process that was killed
        try:
            with _blaming(path, temporary):
                yield temporary
                if not (temporary.is_dir() and path.is_dir()):
                    _sync(temporary)
                    temporary.replace(path)
                    _sync_folder(path.parent)
        finally:
            remove(temporary)


@contextmanager
def _blaming(path: Path, temporary: Path) -> Iterator[None]:
    """Have an OSError that names no file, or the temporary one, name `path`."""
    try:
        yield
    except OSError as error:
        if not str(error.filename or temporary).startswith(str(temporary)):
            raise
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync(path: Path) -> None:
    """Have a file, or a folder and all in it, on the disk."""
    if path.is_dir():
        for each in path.iterdir():
            _sync(each)
        _sync_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    with atomic_path(path) as temporary, temporary.open(mode, **text) as file:  # type: ignore[call-overload]
        yield file


@overload
def open_input(path: str | Path) -> io.BufferedReader: ...
@overload
def open_input(path: str | Path, encoding: str, errors: str = "strict") -> io.TextIOWrapper: ...
def open_input(
    path: str | Path, encoding: str | None = None, errors: str | None = None
) -> io.BufferedReader | io.TextIOWrapper:
    """Open a file to read its bytes, or its text with line ends as they are.

    Only regular files are read: a pipe could be waited for, and a device read, without end.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    file: io.BufferedReader = io.BufferedReader(_NamedFile(path, opener=_open_regular))
    return file if encoding is None else io.TextIOWrapper(file, encoding, errors, newline="")


class _NamedFile(io.FileIO):
    """A file whose errors, as of a disk that fails, have its name."""

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a regular file; OSError where it cannot be read."""
    with open_input(path) as file:
        return file.read()


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


def check_archive(path: str | Path) -> list[str]:
    """Return the names in a zip archive; none for any other file.

    Raises:
        ValueError: it is damaged, or unpacks to far more than its size.
        OSError: it cannot be read.
    """
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            members = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
        except (*DAMAGE, ValueError, OSError) as error:
            raise ValueError(f"{path}: damaged archive ({error})") from error
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"{path} has {len(members)} members, more than {MOST_MEMBERS}: refused")
    if not all(0 <= member.header_offset < size for member in members):
        raise ValueError(
            f"{path}: damaged archive (it says that it has more than its {size} bytes)"
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > MOST_UNPACKED * size + (1 << 30):
        raise ValueError(f"{path} would unpack to {unpacked} bytes: refused")
    return [member.filename for member in members]


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


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
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
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_folder(entry: os.DirEntry[str], suffixes: Container[str]) -> bool:
    """Whether an entry is a folder, which a link that cannot be followed may be by its name only.

    One that leads to itself is none, nor is one with a suffix of files: whoever reads it will say
    what is wrong.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP and Path(entry.name).suffix.lower() not in suffixes:
            raise
        return False


def file_name(name: str) -> str:
    """Replace what may not stand in a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def visible(text: str, kept: str = "") -> str:
    r"""Text with everything invisible but `kept` spelled out, as in \n, \x1b or \u202e.

    Undecodable bytes of a file name appear as \udc80 to \udcff.
    """
    unseen = {
        char
        for char in set(text)
        if not (char.isprintable() or char in kept or unicodedata.category(char) == "Zs")
    }
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in unseen})


@contextmanager
def naming(path: str | Path, *damage: type[Exception]) -> Iterator[None]:
    """Put a file's name before the message of a ValueError that lacks it.

    Where what a file holds is made into something, `*DAMAGE` are ValueErrors too.
    """
    try:
        yield
    except damage as error:
        what = f"{type(error).__name__}: {error}"[:_SHOWN]
        raise ValueError(f"{path} is damaged, or of another kind ({what})") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def stay_within(folder: str | Path | None) -> None:
    """From now on refuse paths that lead out of a folder; None: any path may be read.

    Raises:
        ValueError: no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"--within {folder}: no such folder")
    _bound[:] = [] if folder is None else [Path(folder).resolve()]


def is_bounded() -> bool:
    """Whether paths are checked; what an earlier start has cached was not."""
    return bool(_bound)


def check_path(path: str | Path, where: str) -> None:
    """Raise ValueError for a path that leads out: an absolute one, by `..`, or by a link.

    Args:
        path: as it will be opened.
        where: the list and the line that name it.
    """
    if _bound and not Path(os.path.realpath(path)).is_relative_to(_bound[0]):
        raise ValueError(f"{where}: {path} lies outside of {_bound[0]} (--within)")
