"""A folder of finished parts, so that a long run that was stopped resumes where it was.

Embeddings of a set, shards of an extraction, rows of scored photos: each part is there whole or not
at all, and a file beside the parts says what they depend on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from utils.files import (
    DAMAGE,
    LOCK,
    PATIENCE,
    Json,
    atomic_path,
    read_json,
    remove,
    remove_leftovers,
    require_folder,
    sole_writer,
    write_text,
)

_OLD_LOCK = "lock"  # of earlier versions
_SHOWN = 60  # characters of a setting in a message


class PartStore:
    """Numbered parts, each a file or a folder, made from the same settings.

    Args:
        folder: made by `claim`.
        fingerprint: all that the parts depend on.
        share: which of the parts this process makes, where several processes and machines share
            the folder, such as "2-of-4"; one process at a time has a share. By default one has the
            folder. Where two write the same part, either is kept.
        name: of a part, with a place for its number: `part-{:06d}.npz`.
        about: file in the folder that holds the fingerprint.
        finished: file in the folder that `finish` makes.
        compared: gives of a fingerprint what has to be equal on a later start; all by default.
        way_out: for messages, what to do where the folder does not fit.

    `settings` is the SHA-256 of what is compared, to be kept with the parts or the result.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Json],
        *,
        share: str = "",
        name: str = "part-{:06d}.npz",
        about: str = "about.json",
        finished: str = "finished.json",
        compared: Callable[[dict[str, Json]], dict[str, Json]] = dict,
        way_out: str = "delete it, or name another folder",
    ) -> None:
        self.folder, self._name, self._way_out = folder, name, way_out
        self._fingerprint: dict[str, Json] = json.loads(json.dumps(fingerprint))
        self._compared = compared
        self._about, self._finished = folder / about, folder / finished
        self._share = share
        self._held: ExitStack | None = None
        own = compared(self._fingerprint)
        self.settings = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()

    def claim(self, restart: bool = False) -> None:
        """Make the folder, or check that it was made with these settings.

        `restart` throws away the parts that are there, whatever they were made with.

        Raises:
            ValueError: the folder was made with other settings (named), is damaged, holds other
                files, is a file, or another process has it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(
                f"{self.folder} is a file, but a folder is needed: name another"
            ) from None
        with ExitStack() as own, ExitStack() as locks:
            if self._share:
                lock = self.folder / f".share-{self._share}{LOCK}"
                own.enter_context(sole_writer(self.folder, lock))
            patience = PATIENCE if self._share else 0
            locks.enter_context(sole_writer(self.folder, patience=patience))
            self._claim(restart)
            self._held = (own if self._share else locks).pop_all()

    def _claim(self, restart: bool) -> None:
        own = (_OLD_LOCK, self._about.name, self._finished.name)
        names = [path.name for path in self.folder.iterdir()]
        foreign = [name for name in names if name not in own and not name.startswith(".")]
        if foreign and not self._about.exists():  # another process may have made it meanwhile
            raise ValueError(f"{self.folder} holds other files: name an empty folder")
        self._remove_leftovers()
        if restart or not self._about.exists():
            self._finished.unlink(missing_ok=True)
        if restart:
            self._remove_all()
        if not self._about.exists():
            write_text(self._about, json.dumps(self._fingerprint, indent=1) + "\n")
        self._compare()

    def _compare(self) -> None:
        try:
            stored = self._compared(read_json(self._about))
        except (ValueError, *DAMAGE) as error:
            raise ValueError(f"{self._about} is damaged ({error}): {self._way_out}") from error
        own = self._compared(self._fingerprint)
        for name in {**own, **stored}:
            if stored.get(name) != own.get(name):
                old, new = (_short(value.get(name)) for value in (stored, own))
                raise ValueError(
                    f"{self.folder} was made with {name} {old}, not {new}: {self._way_out}"
                )

    def path(self, number: int) -> Path:
        """Return where a part lies."""
        return self.folder / self._name.format(number)

    def has(self, number: int) -> bool:
        """Whether a part is there; only its reader can tell whether somebody damaged it."""
        return self.path(number).exists()

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Return those of some parts that are not there."""
        return [number for number in numbers if not self.has(number)]

    def numbers(self) -> list[int]:
        """Return the numbers of all parts that are there, in order."""
        before, after = re.split(r"\{.*\}", Path(self._name).name)
        pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
        matches = (pattern.fullmatch(path.name) for path in self.path(0).parent.glob("*"))
        return sorted(int(match[1]) for match in matches if match)

    def write(self, number: int, writer: Callable[[Path], object]) -> None:
        """Write a part whole or not at all; `writer` makes a file or folder at a path."""
        require_folder(self.folder)
        with atomic_path(self.path(number)) as temporary:
            writer(temporary)

    @contextmanager
    def reading(self, number: int) -> Iterator[Path]:
        """Give the path of a part to read; what damage leads to is a ValueError with the way out.

        Raises:
            ValueError: the part is damaged.
            OSError: it cannot be read.
        """
        path = self.path(number)
        try:
            yield path
        except (ValueError, OSError, *DAMAGE) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path} is damaged: delete it and give the same command") from error

    def remove(self, number: int) -> None:
        """Remove a part, such as a damaged one, so that it is made again."""
        remove(self.path(number))

    @property
    def is_finished(self) -> bool:
        """Whether `finish` was called since the folder was begun."""
        return self._finished.exists()

    def finish(self) -> None:
        """Mark all parts as made, and remove what killed processes left behind."""
        self._remove_leftovers()
        write_text(self._finished, "{}\n")

    def discard(self) -> None:
        """Remove parts and marks, and the folder where nothing else is in it.

        A crash meanwhile leaves the first parts, or a folder that `is_finished`.
        """
        if self.folder.is_dir():
            with nullcontext() if self._held else sole_writer(self.folder):
                self._remove_all()
                self._finished.unlink(missing_ok=True)
                (self.folder / _OLD_LOCK).unlink(missing_ok=True)
        self.close()
        with suppress(OSError):  # not empty, or somebody has it already
            self.folder.rmdir()

    def close(self) -> None:
        """Let another process have the folder."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _remove_all(self) -> None:
        for number in reversed(self.numbers()):
            self.remove(number)
        self._remove_leftovers()
        self._about.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        for folder in {self.folder, self.path(0).parent}:
            remove_leftovers(folder)


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
