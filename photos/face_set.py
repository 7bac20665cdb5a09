"""Raw photos to a set of aligned faces: which face of a photo, and what is doubtful about it.

photos/align_faces.py is the command. Rows of finished photos lie in `OUT/.aligned`, so that a run
that was stopped resumes, and photos that are added later are all that a further run looks at.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import SIZE, encode_png
from data.listing import NESTED
from data.pairs import PairList, open_pairs
from data.rec.format import RecordWriter
from data.verification import write_bin
from photos.align import align, similarity_transforms
from photos.detectors import FaceSearch, Found, open_detector
from photos.detectors.base import not_upright
from photos.sources import IDENTITIES, Item, ListSource, file_item, load_file, open_sources
from utils.files import (
    Origin,
    atomic_file,
    file_name,
    file_sha256,
    parse_json,
    remove,
    remove_leftovers,
    require_folder,
    write_bytes,
)
from utils.long_work import UnreadableShare, prefetch, threads
from utils.parts import PartStore
from utils.tables import write_csv

Which = Literal["largest", "central", "all"]
Format = Literal["folder", "rec", "bin"]
PART_PHOTOS, PART_SECONDS = 512, 20.0  # after which rows are stored
COLUMNS = ("photo", "faces", "reason", "identity", "face", "found", "doubts", "detection")
NO_FACE, TURNED_HEAD = "no face detected", "no upright face, but a turned head: --turned finds it"
SECOND_LOOK, TURNED, CUT = "found at a second look only", "turned", "cut by the border"
COVERED, SEVERAL, UNSURE = "perhaps covered", "several faces", "low score"
DOUBTS = (SECOND_LOOK, TURNED, CUT, COVERED, SEVERAL, UNSURE)
FACE_BOX: NDArray[np.float32] = np.array([(22, 22), (90, 22), (90, 108), (22, 108)], np.float32)
_CORNERS = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)], np.float32)
LEAST_INSIDE = 0.95  # of the area of `FACE_BOX` in the aligned picture, else the face is cut
# Rows and columns of both eyes and of the mouth in the aligned picture. Where one of them has less
# contrast than this share of the whole face's, something covers it, or the head is in profile.
PARTS = (
    (slice(40, 62), slice(24, 52)),
    (slice(40, 62), slice(60, 88)),
    (slice(80, 104), slice(36, 76)),
)
LEAST_CONTRAST = 0.25
UNLABELLED = "photos have no label, such as %s; the folder that directly holds one is its identity"
RIVAL = 0.25  # of the area of the chosen face, from which on another one is a doubt


@dataclass(frozen=True)
class AlignOptions:
    """What to align, how, and where to.

    Attributes:
        photos: folder, list or CSV; with `pairs` the folder that their paths start from.
        out: folder of the set.
        face: which faces of a photo.
        format: a picture for each face, a `.rec` pack, or a `.bin` set of `pairs`.
        report: ends in .csv; by default `report.csv` in `out`.
    """

    photos: Path
    out: Path
    detector: str = "mtcnn"
    face: Which = "largest"
    format: Format = "folder"
    pairs: Path | None = None
    report: Path | None = None
    threads: int | None = None
    max_bad_share: float = 0.5

    def __post_init__(self) -> None:
        UnreadableShare(self.max_bad_share)
        if self.report and self.report.suffix.lower() != ".csv":
            raise ValueError(f"--report {self.report}: must end in .csv")
        if (self.format == "bin") != (self.pairs is not None):
            raise ValueError("--format bin and --pairs FILE go together: a .bin is a set of pairs")
        if self.format == "bin" and self.face == "all":
            raise ValueError("--format bin takes one face a photo: --face largest or central")
        if self.photos.is_dir() and self.out.resolve().is_relative_to(self.photos.resolve()):
            raise ValueError(f"--out {self.out} lies in {self.photos}: faces would become photos")
        if self.pairs and not self.photos.is_dir():
            raise ValueError(f"{self.photos}: with --pairs, name the folder that paths start from")

    @property
    def store(self) -> Path:
        """The folder of finished rows."""
        return self.out / ".aligned"

    @property
    def faces(self) -> Path:
        """The folder of pictures, which a pack or a set is made of."""
        return self.out if self.format == "folder" else self.store / "faces"

    @property
    def result(self) -> Path:
        """What is to be used: the folder, or the file in it."""
        name = {"folder": "", "rec": "train.rec", "bin": f"{(self.pairs or PurePath()).stem}.bin"}
        return self.out / name[self.format]

    @property
    def report_file(self) -> Path:
        """Where the report goes."""
        return self.report or self.out / "report.csv"

    def fingerprint(self) -> dict[str, str]:
        """All that faces depend on; where the photos lie is told from `out`, both may be moved."""
        pairs = file_sha256(self.pairs) if self.pairs else ""
        settings = {"detector": self.detector, "face": self.face, "format": self.format}
        photos = os.path.relpath(self.photos.resolve(), self.out.resolve())
        return settings | {"pairs": pairs, "photos": photos}


@dataclass(frozen=True)
class PhotoRow:
    """What was found in a photo.

    Attributes:
        place: of its face below the folder of pictures, without `.png`; no two are equal.
        photo: its path; that of a pack or a video with the row.
        is_file: whether that path is a photo's own.
        found: faces in it.
        faces: those that were taken.
        reason: why none was.
        is_unreadable: whether that is the photo's fault; it is tried again in the next run.
        doubts: about the face that was taken first, of `DOUBTS`.
        detection: its score.
        landmarks: its five, x and y in turn.
    """

    place: str
    photo: str
    is_file: bool
    identity: str
    found: int = 0
    faces: int = 0
    reason: str = ""
    is_unreadable: bool = False
    doubts: tuple[str, ...] = ()
    detection: float | None = None
    landmarks: tuple[float, ...] = ()

    def path(self, options: AlignOptions, number: int = 1) -> Path:
        """Where a face lies, counted from 1."""
        return options.faces / f"{self.place}{'' if number == 1 else f'.{number}'}.png"

    def is_done(self, options: AlignOptions) -> bool:
        """Whether a further run has nothing to do for the photo."""
        return not self.is_unreadable and (not self.faces or self.path(options).exists())

    def cells(self) -> list[str | int | float | None]:
        """The row of the report; see `COLUMNS`."""
        face = f"{self.place}.png" if self.faces else ""
        doubts = "; ".join(self.doubts)
        return [
            *(self.photo, self.faces, self.reason, self.identity),
            *(face, self.found, doubts, self.detection),
        ]


Faces = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class FaceSet:
    """The rows of all photos, and how many of them an earlier run had finished."""

    options: AlignOptions
    rows: Sequence[PhotoRow]
    done_before: int
    skipped: int  # files that are not photos
    pairs: tuple[int, int] | None = None  # of a `.bin`, and of the list

    def summary(self) -> str:
        """A few lines for people."""
        counts = Counter[str]()
        for row in self.rows:
            counts["faces"] += row.faces
            counts["unreadable"] += row.is_unreadable
            counts["without"] += not (row.faces or row.is_unreadable)
            counts["homeless"] += bool(row.faces and not row.identity)
        people = len({row.identity for row in self.rows if row.faces and row.identity})
        face = self.options.face
        which = "all" if face == "all" else f"the {face} one of each photo"
        lines = [
            f"{self.options.result}: {_plural(len(self.rows), 'photo')}, "
            f"{_plural(counts['faces'], 'face')} ({which}) of {people} "
            f"{'person' if people == 1 else 'people'}, {counts['without']} without a face, "
            f"{counts['unreadable']} unreadable; {_plural(self.skipped, 'non-photo file')} skipped"
        ]
        doubts = Counter(doubt for row in self.rows for doubt in row.doubts[:1])
        if doubts:
            words = ", ".join(f"{doubts[doubt]} {doubt}" for doubt in DOUBTS if doubts[doubt])
            lines.append(f"{_plural(doubts.total(), 'doubtful face')}: {words}")
        if counts["homeless"] and self.options.format != "bin":
            lines.append(
                f"{_plural(counts['homeless'], 'photo')} in no folder of a person, without an "
                "identity: training and evaluation leave out such photos"
            )
        if self.pairs:
            made, listed = self.pairs
            lines.append(
                f"{made} of {_plural(listed, 'pair')}; the others have a photo without a face"
            )
        set_name = f"--dataset_path {self.options.out} --target {self.options.result.stem}"
        faces = f"train_images={self.options.out} or --target faces:{self.options.out}"
        lines.append(f"use it as {set_name if self.pairs else faces}")
        return "\n".join(lines)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def align_photos(options: AlignOptions) -> FaceSet:
    """Align every photo that an earlier run has not finished, and write the set and its report.

    Raises:
        ValueError: photos that do not exist, a folder that was begun with other options or holds
            another set, two photos whose faces would have one name.
    """
    search = open_detector(options.detector)
    pairs = open_pairs(options.pairs, options.photos) if options.pairs else None
    sources = open_sources(options.photos) if pairs is None else None
    unread = ListSource(str(options.photos)).unread()
    if unread:
        more = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
        _warn(
            f"{options.photos}: not read: {', '.join(unread[:5])}{more}; "
            f"who is on a photo is read from a column called {', '.join(IDENTITIES)}"
        )
    way_out = f"give the same options, or name another --out (or delete {options.out})"
    store = PartStore(
        options.store, options.fingerprint(), name="part-{:06d}.jsonl", way_out=way_out
    )
    if options.format != "folder" and options.result.exists() and not options.store.exists():
        raise ValueError(f"{options.result} is there already: name another --out")
    resumed = options.store.exists()
    store.claim()
    try:
        rows = {row.place: row for part in store.numbers() for row in _read(store, part)}
        finished = store.is_finished
        if finished and not options.result.exists():
            raise ValueError(f"{options.result} is gone: delete {store.folder} to make it again")
        done = {place for place, row in rows.items() if finished or row.is_done(options)}
        names = map(pairs.faces.name, range(len(pairs.faces))) if pairs else ()
        listed = map(partial(file_item, origin=Origin(options.photos)), names)
        todo = _todo(sources or listed, options, done, finished)
        _align_into(store, rows, todo, search, options)
        if not rows:
            raise ValueError(f"{options.photos}: no photos")
        if resumed:
            for top in (options.out, options.faces):
                for folder in [top, *filter(Path.is_dir, top.rglob("*"))]:
                    remove_leftovers(folder)
        share = UnreadableShare(options.max_bad_share)
        for row in rows.values():
            share.add(1, row.is_unreadable, f"{row.photo}: {row.reason}" * row.is_unreadable)
        share.judge()
        require_folder(store.folder)
        skipped = sum(sources.skipped.values()) if sources else 0
        return _finish(store, FaceSet(options, list(rows.values()), len(done), skipped), pairs)
    finally:
        store.close()


def _todo(
    items: Iterable[Item],
    options: AlignOptions,
    done: set[str],
    is_finished: bool,
) -> Iterator[tuple[Item, PhotoRow]]:
    """Photos that have no finished row, with an empty one."""
    is_folder, is_told = options.photos.is_dir(), options.pairs is not None
    photo_of, identity_of, person_in = dict[str, str](), dict[str, str](), dict[str, str]()
    for item in items:
        row = _new_row(item, options.photos, is_folder)
        if not is_told and row.identity and not item.identity:
            is_told = not is_folder or row.place.count("/") > 1
            if is_told:
                whose = (NESTED if is_folder else UNLABELLED) % row.photo
                _warn(f"{options.photos}: {whose}, here {row.identity!r}")
        who = identity_of.setdefault(row.photo, row.identity)
        if who != row.identity:
            raise ValueError(f"{row.photo} is listed as {who!r} and as {row.identity!r}")
        folder = row.place.split("/")[0]
        other = person_in.setdefault(folder, row.identity)
        if other != row.identity:
            raise ValueError(
                f"the identities {row.identity!r} and {other!r} would have one folder, {folder}: "
                "rename one of them"
            )
        photo = photo_of.setdefault(row.place, row.photo)
        if photo != row.photo:
            raise ValueError(
                f"{row.photo} and {photo} would have one face, {row.place}.png: rename one of them"
            )
        if row.place not in done:
            if is_finished:
                raise ValueError(
                    f"{options.result} is finished, and has no {row.photo}: name another --out"
                )
            yield item, row


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)


def _new_row(item: Item, photos: Path, is_folder: bool) -> PhotoRow:
    """Where the face of a photo goes: as the photo lies in a folder, or below its identity."""
    below = os.path.relpath(item.file, photos if is_folder else photos.parent)
    parts = [part for part in PurePath(below).parts if part != ".."]
    folders, identity = parts[:-1], item.identity
    if not identity and folders:
        identity = folders.pop(0 if is_folder else -1)
    if identity:
        folder = identity if is_folder else file_name(identity).lstrip(".") or "_"
        folders = [folder, *(folders[1:] if item.identity and folders[:1] == [folder] else folders)]
    parts = [*folders, *parts[-1:]]
    number = "" if item.index is None else f".{item.index:06d}"
    shown = item.file if item.index is None else f"{item.file}:{item.index}"
    return PhotoRow("/".join(parts) + number, shown, item.index is None, identity)


def _align_into(
    store: PartStore,
    rows: dict[str, PhotoRow],
    todo: Iterator[tuple[Item, PhotoRow]],
    search: FaceSearch,
    options: AlignOptions,
) -> None:
    """Write faces and, in parts, the rows of their photos."""
    number = max(store.numbers(), default=-1) + 1
    share = UnreadableShare(options.max_bad_share)
    waiting, begun = list[PhotoRow](), time.monotonic()

    def put_away() -> None:
        nonlocal number, waiting, begun
        if waiting:
            lines = "".join(json.dumps(asdict(row)) + "\n" for row in waiting)
            store.write(number, lambda path: path.write_bytes(lines.encode()))
            number, waiting = number + 1, []
        begun = time.monotonic()

    look = partial(_cut, search=search, which=options.face)
    results = prefetch(look, todo, threads(options.threads), 2 * threads(options.threads))
    try:
        for row, faces in tqdm(results, desc=str(options.out), unit="photo", disable=None):
            if row.reason:
                tqdm.write(f"{row.photo}: {row.reason}", file=sys.stderr)
            require_folder(store.folder)
            for place, face in enumerate(faces, start=1):
                if not row.path(options, place).exists():
                    write_bytes(row.path(options, place), encode_png(face))
            rows[row.place] = row
            waiting.append(row)
            share.add(1, row.is_unreadable, f"{row.photo}: {row.reason}" * row.is_unreadable)
            if len(waiting) >= PART_PHOTOS or time.monotonic() - begun > PART_SECONDS:
                put_away()
    finally:
        put_away()


def _read(store: PartStore, number: int) -> Iterator[PhotoRow]:
    with store.reading(number) as part, part.open(encoding="utf-8") as file:
        for line in file:
            values = parse_json(line)
            yield PhotoRow(
                **values | {name: tuple(values[name]) for name in ("doubts", "landmarks")}
            )


def _cut(
    pending: tuple[Item, PhotoRow], search: FaceSearch, which: Which
) -> tuple[PhotoRow, Faces]:
    """Look for the faces of a photo; return the finished row, and what is to be written."""
    item, row = pending
    try:
        photo = item.load()
        if item.aligned:
            return replace(row, found=1, faces=1), [photo.pixels]
        found = search.search(photo.pixels)
        chosen = choose(found, photo.pixels.shape, which)
        faces = [align(photo.pixels, points) for points in found.faces.landmarks[chosen]]
    except ValueError as error:
        return replace(row, reason=str(error), is_unreadable=True), []
    if not faces:
        return replace(row, reason=TURNED_HEAD if found.turned else NO_FACE), []
    first = chosen[0]
    row = replace(
        row,
        found=len(found.faces.scores),
        faces=len(faces),
        doubts=tuple(doubts_of(found, first, photo.pixels.shape, faces[0], which, search)),
        detection=round(float(found.faces.scores[first]), 4),
        landmarks=tuple(np.round(found.faces.landmarks[first].ravel().astype(float), 2).tolist()),
    )
    return row, faces


def choose(found: Found, shape: tuple[int, ...], which: Which) -> NDArray[np.intp]:
    """Rows of the faces to take: all, the largest, or the one nearest to the photo's middle."""
    landmarks = found.faces.landmarks
    rows = np.arange(len(landmarks))
    if which == "central" and len(landmarks):
        middle = (shape[1] / 2, shape[0] / 2)
        distance = np.linalg.norm(landmarks.mean(axis=1) - middle, axis=1)
        return rows[[int(distance.argmin())]]
    return rows if which == "all" else rows[:1]


def doubts_of(
    found: Found,
    row: int,
    shape: tuple[int, ...],
    aligned: NDArray[np.uint8],
    which: Which,
    search: FaceSearch,
) -> Iterator[str]:
    """What is doubtful about a face of a photo of this shape, of `DOUBTS`."""
    faces = found.faces
    if found.at_second_look:
        yield SECOND_LOOK
    if not_upright(faces.landmarks[[row]])[0]:
        yield TURNED
    if inside(faces.landmarks[row], shape) < LEAST_INSIDE:
        yield CUT
    if is_covered(aligned):
        yield COVERED
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    if which != "all" and (areas > RIVAL * areas[row]).sum() > 1:
        yield SEVERAL
    if faces.scores[row] < (1 + search.least_score) / 2:
        yield UNSURE


def inside(points: NDArray[np.floating], shape: tuple[int, ...]) -> float:
    """Share of a face, by its landmarks (5, 2), that lies in a photo (H, W, 3)."""
    to_photo = cv2.invertAffineTransform(similarity_transforms(points[None])[0])
    corners = cv2.transform(FACE_BOX[None], to_photo)[0].astype(np.float32)
    height, width = shape[:2]
    photo = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - 0.5
    shared, _ = cv2.intersectConvexConvex(photo, corners)
    return float(shared / cv2.contourArea(corners))


def is_covered(face: NDArray[np.uint8]) -> bool:
    """Whether an eye or the mouth of an aligned face (112, 112, 3) is next to even."""
    grey = cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), (0, 0), 1).astype(np.float64)
    least = LEAST_CONTRAST * grey[24:104, 24:88].std()
    return any(grey[part].std() < least for part in PARTS)


def _finish(store: PartStore, faces: FaceSet, pairs: PairList | None) -> FaceSet:
    """Write the pack or the set of finished photos, and the report."""
    options = faces.options
    if options.format == "rec" and not store.is_finished:
        _write_pack(faces)
    if pairs is not None:
        at = {row.place: row for row in faces.rows}
        photos = map(Item, map(pairs.faces.name, range(len(pairs.faces))))
        of_photo = [at[_new_row(photo, options.photos, True).place] for photo in photos]
        sides = [[of_photo[photo] for photo in pair] for pair in pairs.rows.tolist()]
        whole = np.array([all(row.faces for row in pair) for pair in sides], np.bool_)
        if not store.is_finished:
            images = [
                row.path(options).read_bytes()
                for pair, is_whole in zip(sides, whole, strict=True)
                if is_whole
                for row in pair
            ]
            write_bin(options.result, images, pairs.mated[whole])
        faces = replace(faces, pairs=(int(whole.sum()), len(whole)))
    with atomic_file(options.report_file, "w") as file:
        write_csv(file, [COLUMNS, *(row.cells() for row in faces.rows)])
    if options.format != "folder":
        store.finish()
        remove(options.faces)
    return faces


def _write_pack(faces: FaceSet) -> None:
    """Pack the faces person by person, in the order of their names."""
    options, people = faces.options, dict[str, list[PhotoRow]]()
    for row in faces.rows:
        if row.faces and row.identity:
            people.setdefault(row.identity, []).append(row)
    if not people:
        raise ValueError(f"{options.photos}: no face of anybody: a pack needs a folder per person")
    with RecordWriter(options.result.with_suffix("")) as writer:
        for label, name in enumerate(sorted(people)):
            for row in people[name]:
                for number in range(1, row.faces + 1):
                    path = row.path(options, number)
                    writer.write_image(
                        label, path.read_bytes(), str(path.relative_to(options.faces))
                    )


def picture(row: PhotoRow, side: int) -> NDArray[np.uint8] | None:
    """The photo of a row with its face framed, and that face, (side, 2 side, 3); None without."""
    try:
        photo = load_file(row.photo).pixels if row.is_file and row.landmarks else None
    except ValueError:
        return None
    if photo is None:
        return None
    points = np.array(row.landmarks).reshape(5, 2)
    height, width = photo.shape[:2]
    scale = side / max(height, width)
    to_sheet = np.array([(scale, 0, (side - width * scale) / 2), (0, scale, 0)])
    to_sheet[1, 2] = (side - height * scale) / 2
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    left, top = np.maximum(to_sheet[:, 2].astype(int), 0)
    small = np.full((side, side, 3), 128, np.uint8)
    small[top : top + size[1], left : left + size[0]] = cv2.resize(
        photo, size, interpolation=cv2.INTER_AREA
    )
    to_photo = cv2.invertAffineTransform(similarity_transforms(points[None])[0])
    frame = cv2.transform(cv2.transform(_CORNERS[None], to_photo), to_sheet)
    cv2.polylines(small, [frame[0].round().astype(np.int32)], True, (0, 210, 90), 2, cv2.LINE_AA)
    return np.hstack([small, cv2.resize(align(photo, points), (side, side))])
