"""Score files: comparisons and qualities from any tool, as CSV, NPZ or Parquet, read and written.

A column's name says what it holds and which direction is better; docs/formats.md has the list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from data.labelled_pairs import pairs_that_count
from evaluation.metrics.comparisons import Comparisons, notes_of
from evaluation.metrics.thresholds import Caution
from utils.arrays import Array
from utils.files import naming
from utils.tables import (
    Column,
    Table,
    assess_failures,
    codes_of,
    exact,
    read_table,
    write_table,
)

SCORES = {"score": 1, "similarity": 1, "distance": -1}
MATED = ("mated", "issame", "same", "genuine", "label")
RELIABILITY = {"uncertainty": 1, "quality": -1}
ROLES = (*RELIABILITY, "image", "identity")
ROUNDING = 1e-4  # relative; one image's uncertainties may differ by as much between batches
_MEANING = "1 for a mated comparison (one person) and 0 for a non-mated one"

Ids: TypeAlias = "NDArray[np.int64]"


def read_scores(path: str | Path) -> Comparisons:
    """Read comparisons, labels and uncertainties that any tool wrote.

    Columns (in any order and case; further ones are not read): `score` or `similarity` (larger =
    more alike) or `distance` (smaller = more alike, its sign is turned); `mated` (or `issame`,
    `same`, `genuine`, `label`), 1 or 0; `uncertainty_a` and `uncertainty_b` of the two images, or
    `quality_a` and `quality_b`, whose sign is turned, or one `uncertainty` or `quality` for each
    comparison; optionally `image_a` and `image_b`, `identity_a` and `identity_b`, names or whole
    numbers.

    Numbers are kept as float32, or as float64 where that would make different ones equal. An image
    compared with itself and a repeated pair are left out, and failures to assess an image count as
    the worst value, each noted with the count (`Comparisons.notes`). Nothing in the file is run.

    Raises:
        ValueError: no such file or no such kind of file, missing or doubled columns, values that
            are not finite numbers or labels, an image with two uncertainties or two identities,
            a label that contradicts the identities, or comparisons of one class only. The message
            names the file, the line or row, and the value.
    """
    path = Path(path)
    with naming(path):
        table = read_table(path, "score file")
        return _Reader(table, find_columns(table.columns)).comparisons()


def write_scores(path: str | Path, comparisons: Comparisons) -> None:
    """Write a file that `read_scores` and other tools read.

    Columns: score, mated, uncertainty_a and uncertainty_b (or one uncertainty, where comparisons
    have one each), image_a and image_b, identity_a and identity_b where they are known.

    Args:
        path: ends in .csv, .npz or .parquet; its folder is made.
        comparisons: what to write.

    Raises:
        ValueError: another ending, an image whose rows differ in uncertainty, or a CSV of
            comparisons that are not all listed.
    """
    first, second = comparisons.pairs.T
    columns: dict[str, Array] = {
        "score": comparisons.scores,
        "mated": comparisons.mated.astype(np.int8),
    }
    if np.array_equal(first, second):
        columns["uncertainty"] = comparisons.uncertainty[first]
    else:
        columns["uncertainty_a"] = comparisons.uncertainty[first]
        columns["uncertainty_b"] = comparisons.uncertainty[second]
    for kind, ids in (("image", comparisons.image), ("identity", comparisons.identity)):
        if ids is not None:
            columns[f"{kind}_a"], columns[f"{kind}_b"] = ids[first], ids[second]
    image = comparisons.image
    if image is not None:
        row = _first_unequal(_compact(image)[1], comparisons.uncertainty, ROUNDING)
        if row is not None:
            raise ValueError(
                f"{path}: image {image[row]} has another uncertainty in each of its rows (a "
                "sampled estimate?), and a score file has one per image: store mu, sigma_sq and "
                "issame as .npz instead"
            )
    unlisted = comparisons.unlisted
    if unlisted and Path(path).suffix.lower() == ".csv":
        raise ValueError(
            f"{path}: CSV cannot say that {unlisted} non-mated comparisons are not listed: write "
            ".npz or .parquet, or draw a sample of them instead of all"
        )
    stated = {"unlisted": unlisted, "listed_from": comparisons.listed_from} if unlisted else {}
    write_table(path, columns, stated, "score file")


@dataclass(frozen=True)
class ScoreColumns:
    """The columns that are read, by the names that they have in the file.

    Attributes:
        score: the comparison score.
        score_sign: -1 for a distance.
        mated: whether both sides show one person.
        reliability: one column per pair, or two, of sides a and b.
        reliability_sign: -1 for qualities.
        images: image_a and image_b, or none.
        identities: identity_a and identity_b, or none.
    """

    score: str
    score_sign: int
    mated: str
    reliability: tuple[str, ...]
    reliability_sign: int
    images: tuple[str, ...]
    identities: tuple[str, ...]


def find_columns(names: Sequence[str]) -> ScoreColumns:
    """Find the columns by their names, in any order and case.

    Raises:
        ValueError: a column that is missing (with those that exist and near names), or two that
            say the same thing.
    """
    by_name = {name.lower(): name for name in names}
    known = {*SCORES, *MATED, *(f"{kind}{side}" for kind in ROLES for side in ("", "_a", "_b"))}
    for name in names:
        if name.lower() in known and name != by_name[name.lower()]:
            raise ValueError(f"two columns are called {name!r} and {by_name[name.lower()]!r}")

    def require(what: str, expected: Sequence[str]) -> list[str]:
        present = [name for name in expected if name in by_name]
        if not present:
            raise ValueError(_missing(what, expected, names))
        return present

    def two_sides(kind: str) -> tuple[str, ...]:
        expected = (f"{kind}_a", f"{kind}_b")
        present = [name for name in expected if name in by_name]
        if len(present) == 1:
            [missing] = set(expected) - set(present)
            raise ValueError(_missing(f"{missing}, which {present[0]} needs", [missing], names))
        return tuple(by_name[name] for name in present)

    scores = require(" or ".join(SCORES), list(SCORES))
    if len(scores) > 1:
        raise ValueError(f"columns {' and '.join(scores)} are both scores: keep one of them")
    mated = require(" or ".join(MATED), MATED)[0]
    choices: list[tuple[tuple[str, ...], int]] = []
    for kind, sign in RELIABILITY.items():
        choices += [((by_name[kind],), sign)] if kind in by_name else []
        choices += [(sides, sign)] if (sides := two_sides(kind)) else []
    if len(choices) > 1:
        both = " and ".join(", ".join(columns) for columns, _ in choices)
        raise ValueError(f"columns {both} say the same thing twice: keep one of them")
    if not choices:
        expected = [f"{kind}{side}" for kind in RELIABILITY for side in ("_a", "_b", "")]
        what = "uncertainty or quality (or the same with _a and _b)"
        raise ValueError(_missing(what, expected, names))
    return ScoreColumns(
        by_name[scores[0]],
        SCORES[scores[0]],
        by_name[mated],
        *choices[0],
        two_sides("image"),
        two_sides("identity"),
    )


def _missing(what: str, expected: Sequence[str], names: Sequence[str]) -> str:
    sides = [f"{kind}_{side}" for kind in (*RELIABILITY, "image", "identity") for side in "ab"]
    known = {*SCORES, *MATED, *RELIABILITY, *sides}
    hint = "".join(
        f"; is {name!r} meant as {close!r}?"
        for name in names
        if name.lower() not in known
        for close in get_close_matches(name.lower(), expected, n=1, cutoff=0.7)
    )
    return f"no column {what} (it has: {', '.join(names) or 'none'}){hint}"


class _Names:
    """Numbers for the names in two columns, kept over several chunks.

    Whole numbers keep their value; anything else is numbered in the order in which it comes.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._are_numbers = True

    def add(self, sides: Sequence[Column]) -> Ids:
        """(n, 2) numbers of both sides; ValueError for a name that is empty or a fraction."""
        arrays = [side.values for side in sides if isinstance(side.values, np.ndarray)]
        for side in sides:
            if isinstance(side.values, np.ndarray) and side.values.dtype.kind == "f":
                raise ValueError(
                    f"{side.name} holds {side.values.dtype}: use text or whole numbers as names"
                )
        if len(arrays) == 2 and all(array.dtype.kind in "iu" for array in arrays):
            return np.stack(arrays, axis=1).astype(np.int64)
        places, names = codes_of(sides)
        if "" in names:
            row, side = np.argwhere(places == names.index(""))[0]
            raise ValueError(f"{sides[side].where(int(row))}: {sides[side].name} is empty")
        codes = [self._codes.setdefault(name, len(self._codes)) for name in names]
        return np.array(codes, np.int64)[places]

    def finish(self, values: Ids) -> Ids:
        """Return the numbers themselves where every name was a whole number, else the codes."""
        if not self._codes:
            return values
        own = [int(name) for name in self._codes if name.removeprefix("-").isdecimal()]
        same = [str(number) for number in own] == list(self._codes)
        self._are_numbers = same and max(map(abs, own), default=0) < 1 << 62
        return np.array(own, np.int64)[values] if self._are_numbers else values

    def name(self, value: int) -> str:
        """Return what the file calls a number that `finish` gave."""
        return str(value) if self._are_numbers else self._names[value]

    @cached_property
    def _names(self) -> list[str]:
        return list(self._codes)


class _Reader:
    """Reads the columns of a score file, checks them, and joins them to `Comparisons`."""

    def __init__(self, table: Table, columns: ScoreColumns) -> None:
        self.table, self.columns = table, columns
        self.images, self.people = _Names(), _Names()
        numbers = (columns.score, *columns.reliability)
        ids = ((columns.images, self.images), (columns.identities, self.people))
        parts: dict[str, list[Array]] = defaultdict(list)
        for chunk in table.chunks((*numbers, columns.mated, *columns.images, *columns.identities)):
            for name in numbers:
                parts[name].append(chunk[name].numbers(np.float64))
            parts[columns.mated].append(chunk[columns.mated].flags(_MEANING))
            for names, numbering in ids:
                if names:
                    both = numbering.add([chunk[name] for name in names])
                    for side, name in enumerate(names):
                        parts[name].append(both[:, side])
        if not parts[columns.mated] or not sum(map(len, parts[columns.mated])):
            raise ValueError("no comparison in it")
        self.values = {name: np.concatenate(some) for name, some in parts.items()}
        self.values |= {name: exact(self.values[name]) for name in numbers}
        for names, numbering in ids:
            self.values |= {name: numbering.finish(self.values[name]) for name in names}
        self.notes: list[Caution] = []
        failures = assess_failures(
            [self.values[name] for name in columns.reliability],
            "quality" if columns.reliability_sign < 0 else "uncertainty",
        )
        if failures:
            self._note("failures", sentence=failures)
        self.rows = np.arange(len(self.values[columns.mated]))
        if columns.images:
            self._leave_out_repetitions()

    def _leave_out_repetitions(self) -> None:
        """Keep the pairs that count, where rows name two images; see `pairs_that_count`."""
        sides = np.stack([self.values[name] for name in self.columns.images], axis=1)
        if (sides[:, 0] == sides[:, 1]).all():  # a comparison's name, as `write_scores` has it
            return

        def names(row: int) -> list[str]:
            return [self.images.name(image) for image in sides[row].tolist()]

        codes, mated = _compact(sides.ravel())[1], self.values[self.columns.mated]
        counts, left_out = pairs_that_count(codes.reshape(-1, 2), mated, self._where, names)
        self.notes += notes_of(self.table.path.name, left_out)
        self.rows = self.rows[counts]
        self.values = {name: values[counts] for name, values in self.values.items()}

    def _note(self, kind: str, **facts: float | str) -> None:
        self.notes.append(Caution(kind, {"file": self.table.path.name, **facts}))

    def _where(self, row: int) -> str:
        return self.table.where(int(self.rows[row]))

    def comparisons(self) -> Comparisons:
        """Join the columns; ValueError for what contradicts itself, with its place in the file."""
        columns = self.columns
        scores, mated = self.values[columns.score], self.values[columns.mated]
        if not mated.any():
            raise ValueError(f"no mated comparison among {len(mated)} ({columns.mated})")
        pairs, uncertainty, image, identity = self._rows(mated)
        image_name, person_name = self.images.name, self.people.name  # without `self`, its columns
        return Comparisons(
            self.table.path.stem,
            -scores if columns.score_sign < 0 else scores,
            mated,
            pairs,
            uncertainty,
            identity,
            image,
            *self._unlisted(),
            notes=tuple(self.notes),
            name_of="row {}".format if image is None else lambda row: image_name(int(image[row])),
            person_of=None if identity is None else lambda row: person_name(int(identity[row])),
        )

    def _unlisted(self) -> tuple[int, float]:
        metadata = self.table.metadata
        count, start = float(metadata.get("unlisted", 0)), float(metadata.get("listed_from", "inf"))
        if count == 0:
            return 0, -np.inf
        if not (0 < count < 1 << 53 and count == count // 1 and np.isfinite(start)):
            raise ValueError(
                f"unlisted is {count:g} and listed_from {start:g}: write how many non-mated "
                "comparisons are not listed, and a score above all of theirs"
            )
        return int(count), start

    def _rows(
        self, mated: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], Ids | None, Ids | None]:
        """Return pairs, and the uncertainty, image and identity of each row that they name.

        Each image gets one row, but each side its own where the file has one number per pair.
        """
        reliability = self.columns.reliability
        images, people = self.columns.images, self.columns.identities
        image = self._both_sides(images) if images else None
        identity = self._both_sides(people) if people else None
        sides = self._both_sides((reliability[0], reliability[-1]))
        uncertainty = -sides if self.columns.reliability_sign < 0 else sides
        pairs = np.arange(len(uncertainty), dtype=np.int32).reshape(-1, 2)
        if identity is not None:
            self._check_labels(mated, identity)
        if image is None:
            if identity is None and len(reliability) == 1:
                own = np.arange(len(mated), dtype=np.int32)
                return np.stack([own, own], axis=1), uncertainty[0::2], None, None
            return pairs, uncertainty, None, identity
        ids, row_of = _compact(image)
        if identity is not None:
            self._check_image(row_of, identity, 0, "identities", people)
        if len(reliability) == 1:
            return pairs, uncertainty, image, identity
        if _first_unequal(row_of, uncertainty, 0) is not None:
            self._check_image(row_of, sides, ROUNDING, "values", reliability)
            return pairs, uncertainty, image, identity
        first = np.empty(len(ids), np.int64)
        first[row_of[::-1]] = np.arange(len(row_of))[::-1]
        identity = None if identity is None else identity[first]
        return row_of.astype(np.int32).reshape(-1, 2), uncertainty[first], ids, identity

    def _both_sides(self, names: Sequence[str]) -> Array:
        """(2N,) values of two columns in turn."""
        return np.stack([self.values[name] for name in names], axis=1).ravel()

    def _check_image(
        self, row_of: Ids, values: Array, tolerance: float, what: str, names: Sequence[str]
    ) -> None:
        side = _first_unequal(row_of, values, tolerance)
        if side is None:
            return
        before = int(np.argmax(row_of == row_of[side]))
        image = self.values[self.columns.images[side % 2]][side // 2]
        first, second = (
            f"{names[place % 2]} is {self._shown(values[place])} in {self._where(place // 2)}"
            for place in (before, side)
        )
        raise ValueError(
            f"image {self.images.name(int(image))!r} has two {what}: {first} and {second}; an "
            "image has one"
        )

    def _shown(self, value: np.generic) -> str:
        is_number = value.dtype.kind == "f"
        return f"{value:.6g}" if is_number else repr(self.people.name(int(value)))

    def _check_labels(self, mated: NDArray[np.bool_], identity: Ids) -> None:
        wrong = (identity[0::2] == identity[1::2]) != mated
        if wrong.any():
            row = int(np.argmax(wrong))
            first, second = (self.people.name(int(identity[2 * row + side])) for side in (0, 1))
            raise ValueError(
                f"{self._where(row)}: {self.columns.mated} is {int(mated[row])}, but the "
                f"identities are {first!r} and {second!r}: correct one of them"
            )


def _compact(ids: Ids) -> tuple[Ids, Ids]:
    """Sorted distinct numbers, and the place of each number among them."""
    low, high = int(ids.min()), int(ids.max())
    if high - low > 4 * len(ids):
        distinct, place = np.unique(ids, return_inverse=True)
        return distinct, place
    is_used = np.zeros(high - low + 1, np.bool_)
    is_used[ids - low] = True
    return np.flatnonzero(is_used) + low, (np.cumsum(is_used) - 1)[ids - low]


def _first_unequal(row_of: Ids, values: Array, tolerance: float) -> int | None:
    """Place of the first value that differs from the first value of its row; None if none does."""
    first = np.empty(int(row_of.max()) + 1, values.dtype)
    first[row_of[::-1]] = values[::-1]
    expected = first[row_of]
    unequal = values != expected
    if tolerance:
        unequal &= np.abs(values - expected) > tolerance * np.abs(expected)
    return int(np.argmax(unequal)) if unequal.any() else None
