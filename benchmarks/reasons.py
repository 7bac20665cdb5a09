"""Which share of faces is given each visible reason, as they are and after changes that cause it.

python benchmarks/reasons.py --faces FOLDER
python benchmarks/reasons.py --faces cfp_dev.rec --only profile --photos

With --photos each face becomes a photo again (twice as large, its border continued), which is
searched for faces: pose, size, light from one side and cuts have reasons in photos alone. Where
 the limits of scoring/measures.py stand: few ordinary faces beyond them, and nearly
all of those that were spoiled in that way.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from data.faces import open_faces
from photos.align import REFERENCE, align
from photos.detectors import FaceSearch, open_detector
from scoring.measures import measure, reasons

REASONS = ("blurred", "dark", "too bright", "low contrast")
Face = NDArray[np.uint8]
Points = NDArray[np.floating]
Sizes = list[tuple[float, float] | None]


def blur(face: Face, sigma: float) -> Face:
    """Gaussian blur of that many pixels."""
    return np.asarray(cv2.GaussianBlur(face, (0, 0), sigma), np.uint8)


def reduce(face: Face, side: int) -> Face:
    """Shrink to that side, and enlarge again."""
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, face.shape[:2], interpolation=cv2.INTER_CUBIC), np.uint8)


def move(face: Face, pixels: int) -> Face:
    """Horizontal motion over that many pixels."""
    return np.asarray(cv2.filter2D(face, -1, np.full((1, pixels), 1 / pixels)), np.uint8)


def levels(face: Face, table: NDArray[np.float64]) -> Face:
    """Replace each grey level by the table's."""
    return np.asarray(table.clip(0, 255).round().astype(np.uint8)[face], np.uint8)


GREY = np.arange(256.0)
CHANGES: dict[str, Callable[[Face], Face]] = {
    "none": lambda face: face,
    **{f"Gaussian blur of {sigma} pixels": partial(blur, sigma=sigma) for sigma in (1, 1.5, 2)},
    **{f"reduced to {side} pixels and back": partial(reduce, side=side) for side in (56, 40, 28)},
    **{f"motion over {long} pixels": partial(move, pixels=long) for long in (5, 9, 13)},
    **{f"levels times {by}": partial(levels, table=GREY * by) for by in (0.5, 0.3)},
    **{f"gamma {by}": partial(levels, table=255 * (GREY / 255) ** by) for by in (2, 3, 0.5, 0.3)},
    **{
        f"distance from mid-grey times {by}": partial(levels, table=127.5 + (GREY - 127.5) * by)
        for by in (0.5, 0.3)
    },
}


def to_photo(face: Face) -> Face:
    """Enlarge twice, with as much around it again: eyes are 70 pixels apart."""
    large = cv2.resize(face, (224, 224), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.copyMakeBorder(large, *[112] * 4, cv2.BORDER_REPLICATE), np.uint8)


def shade(photo: Face, light: float) -> Face:
    """Give the left half of the picture less light, as grey levels."""
    side = photo.shape[1]
    edge = np.clip((np.arange(side) - side / 2) / (0.04 * side) + 0.5, 0, 1)
    return np.asarray((photo * (light + (1 - light) * edge)[:, None]).round(), np.uint8)


def turn(photo: Face, degrees: float) -> Face:
    """Rotate about the middle."""
    middle = (photo.shape[1] / 2, photo.shape[0] / 2)
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1.0)
    size = photo.shape[1::-1]
    return np.asarray(cv2.warpAffine(photo, matrix, size, borderMode=cv2.BORDER_REPLICATE))


def shrink(photo: Face, eyes: float) -> Face:
    """Reduce until the eyes are so many pixels apart."""
    by = eyes / (2 * (REFERENCE[1, 0] - REFERENCE[0, 0]))
    return np.asarray(cv2.resize(photo, None, fx=by, fy=by, interpolation=cv2.INTER_AREA))


def cut(photo: Face, share: float) -> Face:
    """Cut off the left, with that share of the aligned face."""
    return photo[:, round(112 + 224 * share) :]


PHOTO_CHANGES: dict[str, Callable[[Face], Face]] = {
    "none": lambda photo: photo,
    **{f"one half with levels times {by}": partial(shade, light=by) for by in (0.7, 0.5, 0.3)},
    **{f"rotated by {degrees} degrees": partial(turn, degrees=degrees) for degrees in (15, 40)},
    **{f"eyes {eyes} pixels apart": partial(shrink, eyes=eyes) for eyes in (25, 16)},
    **{f"{share:.0%} cut off": partial(cut, share=share) for share in (0.05, 0.15, 0.25)},
}
PHOTO_REASONS = ("turned away", "tilted", "small", "unevenly lit", "cut off")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Shares of faces with each visible reason.")
    parser.add_argument("--faces", required=True, help="aligned faces: a pack, folder or list")
    parser.add_argument("--only", default="", help="those whose line in the pack's .lst has this")
    parser.add_argument("--photos", action="store_true", help="make photos of them, and detect")
    parser.add_argument("--count", type=int, default=1500, help="faces, drawn at random (1500)")
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    faces = open_faces(args.faces)
    order = np.random.default_rng(0).permutation(len(faces.labels))
    if args.only:
        names = Path(args.faces).with_suffix(".lst").read_text(encoding="utf-8").splitlines()
        order = np.array([row for row in order if args.only in names[row]])
    images = [faces.read(int(row)) for row in order[: args.count]]
    named = REASONS
    if args.photos:
        named, search = PHOTO_REASONS, open_detector("mtcnn")
        photos = [to_photo(face) for face in images]
        found = {
            name: _shares(*_detected([change(photo) for photo in photos], search), named)
            for name, change in PHOTO_CHANGES.items()
        }
    else:
        found = {
            name: _shares([change(face) for face in images], None, None, named)
            for name, change in CHANGES.items()
        }
    table = [
        [name, shares["faces"], *(f"{shares[reason]:.1%}" for reason in named)]
        for name, shares in found.items()
    ]
    print_table(["change", "faces", *named], table)
    write_json(args.json, found, "cpu")
    return 0


def _detected(photos: Sequence[Face], search: FaceSearch) -> tuple[list[Face], list[Points], Sizes]:
    """The largest face of each photo that has one, its landmarks, and the photo's size."""
    largest = [(photo, landmarks[0]) for photo in photos for _, landmarks, _ in [search(photo)]
               if len(landmarks)]  # fmt: skip
    return (
        [align(photo, points) for photo, points in largest],
        [points for _, points in largest],
        [(photo.shape[1], photo.shape[0]) for photo, _ in largest],
    )


def _shares(
    images: Sequence[Face],
    landmarks: Sequence[Points] | None,
    sizes: Sizes | None,
    named: Sequence[str],
) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for measures in measure(np.stack(images), landmarks or [None] * len(images), sizes):
        counts.update(reasons(measures))
    return {"faces": len(images), **{name: counts[name] / len(images) for name in named}}


if __name__ == "__main__":
    sys.exit(main())
