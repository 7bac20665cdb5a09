"""Columns of a score file: which ones mean what, and their values checked row by row.

Public through evaluation.sets.score_files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORES = {"score": 1, "similarity": 1, "distance": -1}
MATED = ("mated", "issame", "same", "genuine", "label")
WORDS = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}

Where = Callable[[int], str]
Raw = Sequence[str] | NDArray[Any]


@dataclass(frozen=True)
class Chosen:
    """The columns that are read, by the names that they have in the file.

    Attributes:
        score: the comparison score.
        score_sign: -1 for a distance.
        mated: whether both sides show one person.
        reliability: one column per pair, or two, of sides a and b.
        reliability_sign: -1 for qualities.
        images: image_a and image_b, or none.
        identities: identity_a and identity_b, or none.
        ignored: all others.
    """

    score: str
    score_sign: int
    mated: str
    reliability: tuple[str, ...]
    reliability_sign: int
    images: tuple[str, ...]
    identities: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns that hold numbers."""
        return (self.score, *self.reliability)

    @property
    def ids(self) -> tuple[str, ...]:
        """Columns that hold names or numbers of images and people."""
        return (*self.images, *self.identities)


def choose(names: Sequence[str]) -> Chosen:
    """Find the columns by their names, in any order and case.

    Raises:
        ValueError: a column that is missing (with those that are there and near names), or two that
            say the same thing.
    """
    there = {name.strip().lower(): name for name in names}
    scores = [name for name in SCORES if name in there]
    if len(scores) > 1:
        raise ValueError(f"columns {' and '.join(scores)} are both scores: keep one of them")
    mated = [name for name in MATED if name in there]
    for found, wanted in ((scores, list(SCORES)), (mated, list(MATED))):
        if not found:
            raise ValueError(_missing(" or ".join(wanted), wanted, names))
    reliability, sign = _reliability(there, names)
    images, identities = (_two(there, kind, names) for kind in ("image", "identity"))
    read = {scores[0], mated[0], *reliability, *images, *identities}
    return Chosen(
        there[scores[0]],
        SCORES[scores[0]],
        there[mated[0]],
        tuple(there[name] for name in reliability),
        sign,
        tuple(there[name] for name in images),
        tuple(there[name] for name in identities),
        tuple(name for key, name in there.items() if key not in read),
    )


def numbers(raw: Raw, column: str, where: Where) -> NDArray[np.float32]:
    """(n,) finite float32; ValueError names the first row that is none."""
    array = np.asarray(raw)
    if array.dtype.kind not in "fiub":
        array = _parsed(array, column, where)
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(
            f"{where(row)}: {column} is {array[row]}: every comparison needs a finite number; "
            "leave out rows that have none"
        )
    return values


def flags(raw: Raw, column: str, where: Where) -> NDArray[np.bool_]:
    """(n,) booleans from 0/1 or true/false; ValueError names the first row that is neither."""
    array = np.asarray(raw)
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind in "fiu":
        sound = (array == 0) | (array == 1)
        values = array == 1
    else:
        words = [WORDS.get(str(word).strip().lower()) for word in array.tolist()]
        sound = np.array([word is not None for word in words], np.bool_)
        values = np.array([bool(word) for word in words], np.bool_)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"{where(row)}: {column} is {str(array[row])!r}: write 1 for a mated comparison (one "
            "person) and 0 for a non-mated one"
        )
    return values


class Ids:
    """Numbers for the names in two columns, kept over several chunks.

    Whole numbers keep their value; anything else is numbered in the order in which it comes.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._whole = True

    def add(
        self, first: Raw, second: Raw, columns: tuple[str, ...], where: Where
    ) -> NDArray[np.int64]:
        """(n, 2) numbers of both sides; ValueError for a name that is empty or a fraction."""
        sides = [np.asarray(side) for side in (first, second)]
        for side, column in zip(sides, columns, strict=True):
            if side.dtype.kind == "f":
                raise ValueError(f"{column} holds {side.dtype}: use text or whole numbers as names")
        if all(side.dtype.kind in "iu" for side in sides):
            return np.stack(sides, axis=1).astype(np.int64)
        codes = self._codes
        names = [
            str(name).strip()
            for both in zip(sides[0].tolist(), sides[1].tolist(), strict=True)
            for name in both
        ]
        if "" in names:
            place = names.index("")
            raise ValueError(f"{where(place // 2)}: {columns[place % 2]} is empty")
        found = (codes.setdefault(name, len(codes)) for name in names)
        return np.fromiter(found, np.int64, len(names)).reshape(-1, 2)

    def finish(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers themselves where every name was a whole number, else the codes."""
        own = [int(name) for name in self._codes if name.removeprefix("-").isdecimal()]
        same = [str(number) for number in own] == list(self._codes)
        self._whole = same and max(map(abs, own), default=0) < 1 << 62
        return np.array(own, np.int64)[values] if self._codes and self._whole else values

    def name(self, value: int) -> str:
        """Return what the file calls a number that `finish` gave."""
        return str(value) if self._whole else list(self._codes)[value]


def _reliability(there: dict[str, str], names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    signs = {"uncertainty": 1, "quality": -1}
    found: list[tuple[str, tuple[str, ...]]] = []
    for kind in signs:
        if kind in there:
            found.append((kind, (kind,)))
        if two := _two(there, kind, names):
            found.append((kind, two))
    if len(found) > 1:
        both = " and ".join(", ".join(columns) for _, columns in found)
        raise ValueError(f"columns {both} say the same thing twice: keep one of them")
    if not found:
        wanted = [f"{kind}{side}" for kind in signs for side in ("_a", "_b", "")]
        raise ValueError(
            _missing("uncertainty or quality (or the same with _a and _b)", wanted, names)
        )
    kind, columns = found[0]
    return columns, signs[kind]


def _two(there: dict[str, str], kind: str, names: Sequence[str]) -> tuple[str, ...]:
    wanted = (f"{kind}_a", f"{kind}_b")
    missing = [name for name in wanted if name not in there]
    if len(missing) == 1:
        other = wanted[wanted[0] == missing[0]]
        raise ValueError(_missing(f"{missing[0]} beside {other}", missing, names))
    return () if missing else wanted


def _missing(what: str, wanted: Sequence[str], names: Sequence[str]) -> str:
    near = {
        name: close[0]
        for name in names
        if (close := get_close_matches(name.strip().lower(), wanted, n=1, cutoff=0.7))
        and close[0] != name.strip().lower()
    }
    hint = "".join(f"; is {name!r} meant as {close!r}?" for name, close in near.items())
    return f"no column {what} (columns there: {', '.join(names) or 'none'}){hint}"


def _parsed(array: NDArray[Any], column: str, where: Where) -> NDArray[np.float64]:
    try:
        return array.astype(np.float64)
    except (ValueError, TypeError):
        for row, value in enumerate(array.tolist()):
            try:
                float(value)
            except (ValueError, TypeError):
                message = f"{where(row)}: {column} is {value!r}, which is no number"
                raise ValueError(message) from None
        raise
