"""From the checked columns of a score file to `Comparisons`: rows of images, and what contradicts.

Public through evaluation.sets.score_files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.sets._score_columns import Chosen, Ids, flags, numbers
from evaluation.sets._score_formats import Source

ROUNDING = 1e-4  # relative; one image's uncertainties may differ by as much between batches


@dataclass(frozen=True)
class Read:
    """Checked columns by their names in the file, and where each row stands."""

    columns: dict[str, NDArray[Any]]
    images: Ids
    people: Ids
    where: Callable[[int], str]


def gather(source: Source, chosen: Chosen) -> Read:
    """Read and check the chosen columns chunk by chunk."""
    parts: dict[str, list[NDArray[Any]]] = defaultdict(list)
    images, people = Ids(), Ids()
    starts: list[int] = []
    places: list[Callable[[int], str]] = []
    rows = 0
    for columns, where in source.chunks((*chosen.numbers, chosen.mated, *chosen.ids)):
        for name in chosen.numbers:
            parts[name].append(numbers(columns[name], name, where))
        parts[chosen.mated].append(flags(columns[chosen.mated], chosen.mated, where))
        for names, ids in ((chosen.images, images), (chosen.identities, people)):
            if names:
                both = ids.add(columns[names[0]], columns[names[1]], names, where)
                for side, name in enumerate(names):
                    parts[name].append(both[:, side])
        starts.append(rows)
        places.append(where)
        rows += len(parts[chosen.mated][-1])
    if not rows:
        raise ValueError("no comparison in it")
    table = {name: np.concatenate(some) for name, some in parts.items()}
    for names, ids in ((chosen.images, images), (chosen.identities, people)):
        table.update({name: ids.finish(table[name]) for name in names})

    def place_of(row: int) -> str:
        which = bisect_right(starts, row) - 1
        return places[which](row - starts[which])

    return Read(table, images, people, place_of)


def build(name: str, read: Read, chosen: Chosen, extras: dict[str, float]) -> Comparisons:
    """Join the columns; ValueError for what contradicts itself, with its place in the file."""
    scores = read.columns[chosen.score]
    mated = read.columns[chosen.mated]
    for kind, none in (("mated", not mated.any()), ("non-mated", bool(mated.all()))):
        if none:
            raise ValueError(
                f"no {kind} comparison among {len(mated)} ({chosen.mated}): error rates need both "
                "kinds"
            )
    pairs, uncertainty, image, identity = _rows(mated, read, chosen)
    return Comparisons(
        name,
        -scores if chosen.score_sign < 0 else scores,
        mated,
        pairs,
        uncertainty,
        identity,
        image,
        int(extras.get("unlisted", 0)),
        float(extras.get("listed_from", -np.inf)),
    )


Rows = tuple[
    NDArray[np.int32],
    NDArray[np.float32],
    NDArray[np.int64] | None,
    NDArray[np.int64] | None,
]


def _rows(mated: NDArray[np.bool_], read: Read, chosen: Chosen) -> Rows:
    """Return pairs, and the uncertainty, image and identity of each row that they name."""
    sides = [read.columns[column] for column in chosen.reliability]
    if chosen.reliability_sign < 0:
        sides = [-side for side in sides]
    image = _interleaved([read.columns[column] for column in chosen.images])
    identity = _interleaved([read.columns[column] for column in chosen.identities])
    if identity is not None:
        _check_labels(mated, identity, read, chosen)
    elif image is None and len(sides) == 1:
        own = np.arange(len(mated), dtype=np.int32)
        return np.stack([own, own], axis=1), sides[0], None, None
    uncertainty = _interleaved([sides[0], sides[-1]])
    if image is not None:
        return _per_image(image, identity, uncertainty, read, chosen)
    return np.arange(2 * len(mated), dtype=np.int32).reshape(-1, 2), uncertainty, None, identity


def _per_image(
    image: NDArray[np.int64],
    identity: NDArray[np.int64] | None,
    uncertainty: NDArray[np.float32],
    read: Read,
    chosen: Chosen,
) -> Rows:
    """Give each image one row; each side keeps its own where the file has one number per pair."""
    ids, row_of = compact(image)
    if identity is not None:
        _check_image(row_of, identity, 0, "identities", chosen.identities, image, read)
    pairs = np.arange(len(image), dtype=np.int32).reshape(-1, 2)
    if len(chosen.reliability) == 1:
        return pairs, uncertainty, image, identity
    if first_unequal(row_of, uncertainty, 0) is not None:
        names = chosen.reliability
        _check_image(row_of, uncertainty, ROUNDING, "values", names, image, read)
        return pairs, uncertainty, image, identity
    first = np.empty(len(ids), np.int64)
    first[row_of[::-1]] = np.arange(len(row_of))[::-1]
    people = None if identity is None else identity[first]
    return row_of.astype(np.int32).reshape(-1, 2), uncertainty[first], ids, people


def _check_image(
    row_of: NDArray[np.int64],
    values: NDArray[Any],
    tolerance: float,
    what: str,
    columns: tuple[str, ...],
    image: NDArray[np.int64],
    read: Read,
) -> None:
    side = first_unequal(row_of, values, tolerance)
    if side is None:
        return
    before = int(np.argmax(row_of == row_of[side]))
    shown = [_shown(read, columns[place % 2], place // 2) for place in (before, side)]
    raise ValueError(
        f"image {read.images.name(int(image[side]))!r} has two {what}: {columns[before % 2]} is "
        f"{shown[0]} in {read.where(before // 2)} and {columns[side % 2]} is {shown[1]} in "
        f"{read.where(side // 2)}; one image has one"
    )


def _shown(read: Read, column: str, row: int) -> str:
    value = read.columns[column][row]
    return f"{value:.6g}" if value.dtype.kind == "f" else repr(read.people.name(int(value)))


def _check_labels(
    mated: NDArray[np.bool_], identity: NDArray[np.int64], read: Read, chosen: Chosen
) -> None:
    same = identity[0::2] == identity[1::2]
    if (same != mated).any():
        row = int(np.argmax(same != mated))
        first, second = (read.people.name(int(identity[2 * row + side])) for side in (0, 1))
        raise ValueError(
            f"{read.where(row)}: {chosen.mated} is {int(mated[row])}, but the identities are "
            f"{first!r} and {second!r}: mend one of them"
        )


def _interleaved(sides: list[NDArray[Any]]) -> Any:
    return np.stack(sides, axis=1).ravel() if sides else None


def compact(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted distinct numbers, and the place of each number among them."""
    low, high = int(ids.min()), int(ids.max())
    if high - low > 4 * len(ids):
        distinct, place = np.unique(ids, return_inverse=True)
        return distinct, place
    there = np.zeros(high - low + 1, np.bool_)
    there[ids - low] = True
    return np.flatnonzero(there) + low, (np.cumsum(there) - 1)[ids - low]


def first_unequal(row_of: NDArray[np.int64], values: NDArray[Any], tolerance: float) -> int | None:
    """Place of the first value that differs from the first value of its row; None if none does."""
    first = np.empty(int(row_of.max()) + 1, values.dtype)
    first[row_of[::-1]] = values[::-1]
    expected = first[row_of]
    unequal = values != expected
    if tolerance:
        unequal &= np.abs(values - expected) > tolerance * np.abs(expected)
    return int(np.argmax(unequal)) if unequal.any() else None
