"""Finished parts of a long scoring run, in a folder beside its output, so that it can go on.

For scoring/score_images.py. A part has the rows of consecutive inputs and is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from photos.sources import Item
from scoring.columns import plain_text
from scoring.writers import as_line

ABOUT = "about.json"
LOCK = "lock"
_SHOWN = 60  # characters of a setting in a message


class Parts:
    """The parts of one output.

    Args:
        out: the output; the folder is its name with `.parts`.
        about: all that rows depend on, as JSON; compared on a later start.

    Attributes:
        settings: short hash of `about`; it stands in the output too.
        count: of finished parts that are known.
    """

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self._about = json.loads(as_line(about))
        self._discarded = out.with_name(f"{out.name}.parts.old")
        self.count = 0
        self._lock: int | None = None
        self.settings = f"settings {digest(self._about)}"

    def is_finished(self) -> bool:
        """Whether the output is there and was made with these settings; nothing is left to do.

        What a crash left of parts that are not needed any more is removed.

        Raises:
            ValueError: the output is there and was made with others, or by something else.
        """
        _remove(self._discarded)
        if self.folder.exists() or not self.out.exists():
            return False
        if self.settings.encode() in _ends(self.out):
            return True
        raise ValueError(
            f"{self.out} is there already, made in another way: --restart overwrites it, or name "
            "another --out"
        )

    def open(self, *, restart: bool = False) -> None:
        """Make the folder, or take up the one that is there.

        Args:
            restart: throw away the parts that are there.

        Raises:
            ValueError: it was made with other settings (named), holds other files, or another
                process is writing it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        file = self.folder / ABOUT
        known = (LOCK, f"{ABOUT}.tmp")
        if not file.exists() and any(path.name not in known for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder} holds other files: name another --out")
        if restart and file.exists():
            self.discard()
            self.open()
            return
        if not file.exists():
            _write(file, json.dumps(self._about, indent=1) + "\n")
            return
        try:
            there = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}): give --restart") from error
        for name in sorted({*there, *self._about}):
            if there.get(name) != self._about.get(name):
                raise ValueError(self._differs(name, there.get(name), self._about.get(name)))

    def _differs(self, name: str, old: Any, new: Any) -> str:
        shown = [
            text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            for text in (repr(old), repr(new))
        ]
        return (
            f"{self.folder} was begun with {name} {shown[0]}, not {shown[1]}: give what it was "
            "begun with, or --restart to begin anew, or another --out"
        )

    def resume(self, items_from: Callable[[int], Iterator[Item]]) -> tuple[int, Iterator[Item]]:
        """Find where to go on.

        Args:
            items_from: gives the inputs from a number on.

        Returns:
            How many inputs finished parts have, and the inputs after them.

        Raises:
            ValueError: the input before these is another than when the parts were made.
        """
        done, last = 0, None
        while (facts := self._facts(self.count)) is not None:
            done, last = done + facts["inputs"], facts["last"]
            self.count += 1
        for path in self.folder.glob("part-*.jsonl"):  # after one that somebody has deleted
            if int(path.stem.removeprefix("part-")) >= self.count:
                path.unlink()
        if not done:
            return 0, items_from(0)
        items = items_from(done - 1)
        found = next(items, None)
        if found is None or _name(found) != last:
            raise ValueError(
                f"the inputs have changed since {self.folder} was begun (files were added, removed "
                "or renamed): --restart begins anew"
            )
        return done, items

    def add(self, items: Sequence[Item], rows: Sequence[Mapping[str, Any]]) -> None:
        """Store the part that comes next."""
        facts = {"inputs": len(items), "last": _name(items[-1]), "rows": len(rows)}
        lines = [as_line(facts), *map(as_line, rows)]
        _write(self._path(self.count), "\n".join(lines) + "\n")
        self.count += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of all parts in order; ValueError where one is damaged."""
        for number in range(self.count):
            path = self._path(number)
            with path.open(encoding="utf-8") as file:
                facts = json.loads(next(file))
                left = facts["rows"]
                for line in file:
                    yield json.loads(line)
                    left -= 1
            if left:
                raise ValueError(f"{path} is damaged: delete it and give the same command")

    def discard(self) -> None:
        """Remove the folder; a crash meanwhile leaves nothing that looks like parts."""
        _remove(self._discarded)
        if self.folder.exists():
            self.folder.replace(self._discarded)
        self.close()
        _remove(self._discarded)

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        """Keep other processes out; where the file system has no locks, nothing does."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise ValueError(f"{self.folder}: another process is writing it") from error

    def _facts(self, number: int) -> dict[str, Any] | None:
        path = self._path(number)
        if not path.exists():
            return None
        try:
            with path.open(encoding="utf-8") as file:
                facts = json.loads(file.readline())
            return {name: facts[name] for name in ("inputs", "last", "rows")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: delete it and give the same command") from error

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.jsonl"


def _name(item: Item) -> list[str | int | None]:
    return [plain_text(item.file), item.index]


def digest(value: Any) -> str:
    """Return a short hash of plain values, to compare them by."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _ends(path: Path) -> bytes:
    """First and last bytes of a file: its header lies in one of them, whatever the format."""
    size = 1 << 16
    with path.open("rb") as file:
        first = file.read(size)
        file.seek(max(0, path.stat().st_size - size))
        return first + file.read(size)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
