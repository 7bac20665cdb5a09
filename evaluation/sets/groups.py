"""Groups of people or of photos, as a table names them: one grouping for each of its columns.

The first line of the file names the columns: `path` (or `image`, `key`) or `person` (or `identity`)
says whose row it is, and every other column is a grouping; docs/evaluate.md has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import Caution
from utils.files import naming
from utils.tables import csv_rows

KEYS = dict.fromkeys(("path", "image", "key"), "paths") | dict.fromkeys(
    ("person", "identity"), "people"
)
PHOTO = "photo:"  # before the name of a column: of photos, not of people
UNKNOWN = ("", "?", "-", "na", "n/a", "nan", "none", "null", "unknown")
MOST_GROUPS = 20  # of a column; names or ages would make a group of every person


@dataclass(frozen=True)
class Grouping:
    """One grouping of the M images of a set.

    Attributes:
        name: of the column.
        groups: names of the G groups that occur, in alphabetical order.
        place: (M,) which of them each image is in; -1 where that is unknown.
        cautions: what was left out.
    """

    name: str
    groups: tuple[str, ...]
    place: NDArray[np.int64]
    cautions: tuple[Caution, ...] = ()


@dataclass(frozen=True)
class _GroupFile:
    """What a file says.

    Attributes:
        path: of the file.
        kind: what its rows are about, "paths" or "people".
        values: column -> key -> value, "" where that is unknown.
    """

    path: Path
    kind: str
    values: Mapping[str, Mapping[str, str]]


def read_groupings(path: str | Path, comparisons: Comparisons) -> tuple[Grouping, ...]:
    """Read a file of groups, and say which group each image of a set is in.

    Args:
        path: CSV, as the module's docstring says.
        comparisons: of the set.

    Raises:
        ValueError: no such file or a damaged one, no key or several, a key with two values, a
            column of too many groups, people whose names the set does not know, no key that occurs
            in the set, or a person in two groups of a column that is not called `photo:...`. The
            message names the file, and the line or the person.
    """
    file = _read(Path(path))
    with naming(file.path):
        keys = _keys(comparisons, file.kind)
        known = next(iter(file.values.values()))
        absent, missing = len(known.keys() - set(keys)), sum(key not in known for key in keys)
        if missing == len(keys):
            raise ValueError(
                f"none of its {len(known)} {file.kind} is in {comparisons.name}, whose first is "
                f"{keys[0]!r} (the file's: {next(iter(known))!r})"
            )
        facts: dict[str, float | str] = {"file": file.path.name, "kind": file.kind}
        notes = [
            *_note("groups_absent", absent, len(known), facts),
            *_note("groups_missing", missing, len(keys), facts),
        ]
        groupings = []
        for column, values in file.values.items():
            of_images = [values.get(key, "") for key in keys]
            groups = tuple(sorted(set(of_images) - {""}))
            places = {"": -1} | {group: place for place, group in enumerate(groups)}
            place = np.array([places[value] for value in of_images], np.int64)
            empty = int((place < 0).sum()) - missing
            own = [*notes, *_note("groups_unknown", empty, len(keys), {**facts, "column": column})]
            grouping = Grouping(column, groups, place, tuple(own))
            if not column.startswith(PHOTO):
                _check_people(grouping, comparisons)
            groupings.append(grouping)
        return tuple(groupings)


def _note(kind: str, count: int, total: int, facts: Mapping[str, float | str]) -> list[Caution]:
    return [Caution(kind, {**facts, "count": count, "total": total})] if count else []


def _read(path: Path) -> _GroupFile:
    if not path.is_file():
        raise ValueError(f"no file of groups {path}")
    with naming(path):
        rows = csv_rows(path)
        heading = [name.strip() for name in next(rows, (0, []))[1]]
        keys = [name for name in heading if name.lower() in KEYS]
        if len(keys) != 1 or len(heading) < 2 or len(set(heading)) < len(heading):
            raise ValueError(
                f"its first line names the columns {', '.join(heading) or '(none)'}: give one of "
                f"{', '.join(KEYS)}, and a column of another name for each grouping"
            )
        at = heading.index(keys[0])
        values: dict[str, dict[str, str]] = {name: {} for name in heading if name != keys[0]}
        for line, fields in rows:
            if len(fields) != len(heading):
                raise ValueError(
                    f"line {line}: {len(fields)} fields, but the first line has {len(heading)}"
                )
            key = _plain(fields[at])
            for name, field in zip(heading, fields, strict=True):
                if name == keys[0]:
                    continue
                value = "" if field.strip().lower() in UNKNOWN else field.strip()
                before = values[name].setdefault(key, value)
                if before != value:
                    raise ValueError(
                        f"line {line}: {key!r} has {name} {value!r}, but {before!r} in a line "
                        "above: a row of two groups; keep one"
                    )
        for name, column in values.items():
            distinct = len(set(column.values()) - {""})
            if not distinct or distinct > MOST_GROUPS:
                raise ValueError(
                    f"column {name} has {distinct} groups; 1 to {MOST_GROUPS} can be compared: "
                    "join values (ages to ranges), or remove the column"
                )
    return _GroupFile(path, KEYS[keys[0].lower()], values)


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/")


def _keys(comparisons: Comparisons, kind: str) -> Sequence[str]:
    """What the set calls each image, or the person in it."""
    rows = range(len(comparisons.uncertainty))
    if kind == "people" and comparisons.person_of is not None:
        return [_plain(comparisons.person_of(row)) for row in rows]
    # sets without names call their images by the row, as files of scores do
    names = [_plain(comparisons.name_of(row)).removeprefix("row ") for row in rows]
    if kind == "paths":
        return names
    folders = [name.rpartition("/")[0] for name in names]
    people = [] if comparisons.identity is None else comparisons.identity.tolist()
    person_of = dict(zip(folders, people, strict=False))
    if "" in folders or any(person_of.get(f) != p for f, p in zip(folders, people, strict=False)):
        people = []
    if not people:
        raise ValueError(
            f"{comparisons.name} does not say what its people are called (one folder for each "
            "would): name the groups by path instead of person"
        )
    return folders


def _check_people(grouping: Grouping, comparisons: Comparisons) -> None:
    """Refuse a person in two groups; mated comparisons tell who is one person, or identities do."""
    place, people = grouping.place, comparisons.identity
    if people is not None:
        order = np.lexsort((place, people))
        order = order[place[order] >= 0]
        neighbours = np.stack([order[:-1], order[1:]])
        first, second = neighbours[:, people[neighbours[0]] == people[neighbours[1]]]
    else:
        first, second = comparisons.pairs[comparisons.mated].T.astype(np.int64)
    torn = (place[first] != place[second]) & (place[first] >= 0) & (place[second] >= 0)
    if torn.any():
        rows = [int(side[np.argmax(torn)]) for side in (first, second)]
        shown = (f"{comparisons.name_of(r)} in {grouping.groups[place[r]]!r}" for r in rows)
        raise ValueError(
            f"column {grouping.name} has one person in two groups ({' and '.join(shown)}): correct "
            f"it, or call the column {PHOTO}{grouping.name} if it is about photos, not people"
        )
