"""The three text files of insightface's IJB-B/C layout, read in blocks without a loop per pair.

`meta/*_face_tid_mid.txt`, `meta/*_name_5pts_score.txt`, `meta/*_template_pair_label.txt`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from utils.files import check_path, is_bounded, open_input
from utils.tables import Number, numbers_of

CHUNK_BYTES = 1 << 23  # of text read at a time; results do not depend on it
MOST_TEMPLATE_NUMBERS = 1 << 26  # between the lowest and the highest: size of a lookup table

SHOWN_ENTRIES = 12  # of a folder that is not a set
_MEMBERS, _FACES, _PAIRS = "_face_tid_mid.txt", "_name_5pts_score.txt", "_template_pair_label.txt"
_MEMBER_FIELDS = ("image", "template", "medium")
_FACE_FIELDS = ("image", *(f"{axis}{point}" for point in range(1, 6) for axis in "xy"), "score")
_PAIR_FIELDS = ("template", "template", "label")


class Paths(NamedTuple):
    """Where the parts of a set lie; `prefix` is what its files begin with, such as `ijbc`."""

    prefix: str
    members: Path
    faces: Path
    pairs: Path
    images: Path


class Members(NamedTuple):
    """M images: the (M,) names, templates and media, (M, 5, 2) landmarks, (M,) face scores."""

    names: NDArray[np.bytes_]
    template: NDArray[np.int64]
    media: NDArray[np.int64]
    landmarks: NDArray[np.float64]
    detector_score: NDArray[np.float64]


class Pairs(NamedTuple):
    """N comparisons: (N, 2) int32 rows of the ascending template numbers, (N,) mated or not."""

    rows: NDArray[np.int32]
    mated: NDArray[np.bool_]


def find_paths(folder: Path) -> Paths:
    """Find the parts of the set in a folder.

    Raises:
        ValueError: no such folder, none or several sets in it, or parts missing (by name).
    """
    meta = folder / "meta"
    sets = sorted(meta.glob(f"*{_MEMBERS}"))
    if len(sets) != 1:
        names = ", ".join(path.name for path in _listing(meta if meta.is_dir() else folder))
        raise ValueError(
            f"{folder}: expected one set, meta/PREFIX{_MEMBERS} and its companions (PREFIX is ijbb "
            f"or ijbc), found {len(sets)}; {'meta' if meta.is_dir() else 'the folder'} holds: "
            f"{names or 'nothing, or does not exist'}"
        )
    prefix = sets[0].name.removesuffix(_MEMBERS)
    paths = Paths(
        prefix, sets[0], meta / f"{prefix}{_FACES}", meta / f"{prefix}{_PAIRS}",
        folder / "loose_crop",
    )  # fmt: skip
    missing = [str(path.relative_to(folder)) for path in paths[2:4] if not path.is_file()]
    missing += [] if paths.images.is_dir() else ["loose_crop/ (the images)"]
    if missing:
        names = ", ".join(sorted(path.name for path in (*_listing(folder), *_listing(meta))))
        raise ValueError(f"{folder}: no {', no '.join(missing)}; it holds: {names}")
    return paths


def read_members(paths: Paths) -> Members:
    """Read which image is in which template, and where its face is.

    Raises:
        ValueError: a line that is not one (with its number), or files about other images.
    """
    names, numbers = _table(paths.members, _MEMBER_FIELDS, np.int64)
    face_names, places = _table(paths.faces, _FACE_FIELDS, np.float64)
    _check_same(paths, names, face_names)
    for name in names if is_bounded() else ():
        check_path(paths.images / os.fsdecode(name), str(paths.members))
    return Members(
        names, numbers[:, 0], numbers[:, 1], places[:, :10].reshape(-1, 5, 2), places[:, 10]
    )


def read_pairs(path: Path, templates: NDArray[np.int64]) -> Pairs:
    """Read lines `template template label`, label 1 (mated) or 0; templates are (T,), ascending.

    Cost: a few seconds for 15 M lines, and the memory of the result.

    Raises:
        ValueError: no line, a line that is not one, a label that is not 0 or 1, or a template
            without images; with the line's number.
    """
    lookup = _lookup(path, templates)
    rows, mated = [], []
    for line, text in _chunks(path):
        values = numbers_of(text, np.int64)
        if values.size != len(_PAIR_FIELDS) * text.count(b"\n"):
            _check_lines(path, line, text, _PAIR_FIELDS, np.int64)
        values = values.reshape(-1, len(_PAIR_FIELDS))
        # places outside of the table become its last one, which is not a template
        places = lookup[np.clip(values[:, :2] - templates[0], -1, len(lookup) - 1)]
        bad = (places < 0).any(axis=1) | (values[:, 2] & ~1).astype(np.bool_)
        if bad.any():
            _refuse(path, line, text, int(np.argmax(bad)), templates)
        rows.append(places)
        mated.append(values[:, 2] == 1)
    if not rows:
        raise ValueError(f"{path}: no comparisons")
    return Pairs(np.concatenate(rows), np.concatenate(mated))


def _listing(folder: Path) -> list[Path]:
    """The first entries of a folder, for a message; [] where it does not exist."""
    return sorted(folder.iterdir())[:SHOWN_ENTRIES] if folder.is_dir() else []


def _chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Whole lines in blocks, with the number of the first line."""
    line, rest = 1, b""
    with open_input(path) as file:
        while block := file.read(CHUNK_BYTES):
            text, cut, rest = (rest + block).rpartition(b"\n")
            if text.strip():
                yield line, text + cut
            line += text.count(b"\n") + len(cut)
    if rest.strip():
        yield line, rest + b"\n"


def _table(
    path: Path, fields: tuple[str, ...], kind: type[Number]
) -> tuple[NDArray[np.bytes_], NDArray[Number]]:
    """(M,) first fields and (M, F - 1) numbers of a file."""
    names: list[bytes] = []
    parts: list[NDArray[Number]] = []
    for line, text in _chunks(path):
        rest = []
        for content in filter(None, map(bytes.strip, text.split(b"\n"))):
            name, *others = content.split(None, 1)
            names.append(name)
            rest += others
        count = len(names) - sum(map(len, parts))
        values = numbers_of(b"\n".join(rest), kind)
        if values.size != count * (len(fields) - 1) or not np.isfinite(values).all():
            _check_lines(path, line, text, fields, kind)
        parts.append(values.reshape(-1, len(fields) - 1))
    if not names:
        raise ValueError(f"{path}: no images")
    return np.array(names), np.concatenate(parts)


def _check_lines(
    path: Path, line: int, text: bytes, fields: tuple[str, ...], kind: type[Number]
) -> None:
    """Name the first line that has not these fields; empty ones are none."""
    names = int(fields[0] == "image")
    for number, content in enumerate(text.split(b"\n"), start=line):
        words = content.split()
        values = numbers_of(b" ".join(words[names:]), kind)
        sound = values.size == len(fields) - names == len(words) - names
        if words and not (sound and np.isfinite(values).all()):
            raise ValueError(
                f"{path}:{number}: expected `{' '.join(fields)}`, got "
                f"{content.decode(errors='replace').strip()[:120]!r}"
            )


def _check_same(paths: Paths, names: NDArray[np.bytes_], face_names: NDArray[np.bytes_]) -> None:
    if len(names) != len(face_names):
        raise ValueError(
            f"{paths.members} has {len(names)} images, {paths.faces} has {len(face_names)}: both "
            "need a line for each image, in one order"
        )
    other = np.flatnonzero(names != face_names)
    if other.size:
        row = int(other[0])
        raise ValueError(
            f"image {row + 1} is {names[row].decode()!r} in {paths.members}, but "
            f"{face_names[row].decode()!r} in {paths.faces}: both need one order"
        )


def _lookup(path: Path, templates: NDArray[np.int64]) -> NDArray[np.int32]:
    """Row of each template number less the lowest; -1 for the others and in a last, free place."""
    span = int(templates[-1] - templates[0]) + 1
    if span > MOST_TEMPLATE_NUMBERS:
        raise ValueError(
            f"{path}: template numbers from {templates[0]} to {templates[-1]} are too far apart; "
            "number templates from 1"
        )
    lookup = np.full(span + 1, -1, np.int32)
    lookup[templates - templates[0]] = np.arange(len(templates), dtype=np.int32)
    return lookup


def _refuse(
    path: Path, line: int, text: bytes, place: int, templates: NDArray[np.int64]
) -> NoReturn:
    """Say what is wrong with one pair of a block, `place` counted without empty lines."""
    numbered = [
        (number, content.split())
        for number, content in enumerate(text.split(b"\n"), start=line)
        if content.strip()
    ]
    number, words = numbered[place]
    *sides, label = map(int, words)
    unknown = [side for side in sides if side not in templates]
    what = f"template {unknown[0]} has no images" if unknown else f"label {label} is not 0 or 1"
    raise ValueError(f"{path}:{number}: {what}")
