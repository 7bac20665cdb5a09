"""Lists of pairs to verify: CSV `path_a,path_b,same`, or LFW's `pairs.txt`."""

from __future__ import annotations

import os
import re
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.faces import FileFaces
from data.labelled_pairs import LeftOut, pairs_that_count
from utils.files import check_path, naming
from utils.tables import csv_rows

_IMAGE_NUMBER = re.compile("[0-9]{1,9}")  # of a person's images, in LFW's lists


class Pair(NamedTuple):
    """Two image files and whether they show the same person; `where` is file and line.

    `folders_are_people` in LFW's own format.
    """

    first: Path
    second: Path
    mated: bool
    where: str
    folders_are_people: bool = False


class PairList(NamedTuple):
    """A list of N pairs over M image files, each of which is there once.

    Attributes:
        faces: the M files, in the order in which the list names them.
        rows: (N, 2) int32 their places.
        mated: (N,) whether both show one person.
        people: (M,) int64 numbers of the folders, which are people in LFW's format; else None.
        left_out: what the list has beside these pairs.
    """

    faces: FileFaces
    rows: NDArray[np.int32]
    mated: NDArray[np.bool_]
    people: NDArray[np.int64] | None
    left_out: list[LeftOut]


def open_pairs(path: Path, root: Path) -> PairList:
    """Open the pairs of a file; image paths start at `root`.

    Raises:
        ValueError: as `read_pairs`, or an image that is missing.
    """
    pairs, left_out = read_pairs(path, root)
    for pair in pairs:
        for file in (pair.first, pair.second):
            if not file.is_file():
                raise ValueError(
                    f"{pair.where}: no image {file}; paths start at {root}, another folder can be "
                    "named as dataset_path"
                )
    row_of: dict[Path, int] = {}
    rows = [
        [row_of.setdefault(file, len(row_of)) for file in (pair.first, pair.second)]
        for pair in pairs
    ]
    numbers: dict[Path, int] = {}
    people = [numbers.setdefault(file.parent, len(numbers)) for file in row_of]
    names = (str(file.relative_to(root) if file.is_relative_to(root) else file) for file in row_of)
    return PairList(
        FileFaces(root, ((name, 0) for name in names)),
        np.array(rows, np.int32),
        np.array([pair.mated for pair in pairs], np.bool_),
        np.array(people, np.int64) if pairs[0].folders_are_people else None,
        left_out,
    )


def read_pairs(path: Path, root: Path) -> tuple[list[Pair], list[LeftOut]]:
    """Read the pairs of a file that count, and what else it has; image paths start at `root`.

    Raises:
        ValueError: no such file, no pair, or a line that is not one (with its number); two images
            that are mated in one line and non-mated in another.
    """
    if not path.is_file():
        raise ValueError(f"no pairs file {path}")
    with naming(path):
        rows = [(f"{path}:{line}", fields) for line, fields in csv_rows(path, separators=",")]
    if rows and len(rows[0][1]) == 1 and all(part.isdigit() for part in rows[0][1][0].split()):
        pairs = [_lfw_pair(fields, where, root) for where, fields in rows[1:]]
    else:
        if rows and rows[0][1][-1].strip().lower() not in ("0", "1"):
            rows = rows[1:] if _is_header(rows[0][1]) else rows
        pairs = [_csv_pair(fields, where, root) for where, fields in rows]
    if not pairs:
        raise ValueError(f"{path}: no pairs")
    for pair in pairs:
        for file in pair[:2]:
            check_path(file, pair.where)
    number: dict[Path, int] = {}
    counts, left_out = pairs_that_count(
        np.array([[number.setdefault(f, len(number)) for f in pair[:2]] for pair in pairs]),
        np.array([pair.mated for pair in pairs]),
        lambda row: pairs[row].where,
        lambda row: (str(pairs[row].first), str(pairs[row].second)),
    )
    if not counts.any():
        raise ValueError(f"{path}: each of its {len(pairs)} pairs is an image and itself")
    return list(compress(pairs, counts)), left_out


def _is_header(fields: list[str]) -> bool:
    """Tell column names from a pair: three fields, none of which looks like a file."""
    return len(fields) == 3 and not any("." in field or "/" in field for field in fields)


def _csv_pair(fields: list[str], where: str, root: Path) -> Pair:
    fields = [field.strip() for field in fields]
    if len(fields) != 3 or fields[2] not in ("0", "1"):
        raise ValueError(f"{where}: expected `path_a,path_b,same` with same = 0 or 1, got {fields}")
    return Pair(root / fields[0], root / fields[1], fields[2] == "1", where)


def _lfw_pair(row: list[str], where: str, root: Path) -> Pair:
    line = ",".join(row)
    fields = line.split()
    if len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    if len(fields) != 4 or not all(map(_IMAGE_NUMBER.fullmatch, fields[1::2])):
        raise ValueError(f"{where}: expected `name n m` or `name n other m`, got {line!r}")
    first, second = (
        _lfw_image(root, name, int(number)) for name, number in (fields[:2], fields[2:])
    )
    return Pair(first, second, fields[0] == fields[2], where, folders_are_people=True)


def _lfw_image(root: Path, name: str, number: int) -> Path:
    paths = [root / name / f"{name}_{number:04d}{suffix}" for suffix in (".jpg", ".png", ".jpeg")]
    return next((path for path in paths if os.path.exists(path)), paths[0])  # noqa: PTH110
