"""Which share of faces is given each visible reason, as they are and after changes that cause it.

python benchmarks/reasons.py --faces FOLDER

Where the limits of scoring/measures.py stand: few ordinary faces beyond them, and nearly
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
from scoring.measures import measure, reasons

REASONS = ("blurred", "dark", "too bright", "low contrast")
Face = NDArray[np.uint8]


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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Shares of faces with each visible reason.")
    parser.add_argument("--faces", required=True, help="aligned faces: a pack, folder or list")
    parser.add_argument("--count", type=int, default=1500, help="faces, drawn at random (1500)")
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    faces = open_faces(args.faces)
    rows = np.random.default_rng(0).permutation(len(faces.labels))[: args.count]
    images = [faces.read(int(row)) for row in rows]
    found = {name: _shares([change(face) for face in images]) for name, change in CHANGES.items()}
    table = [[name, *(f"{share[one]:.1%}" for one in REASONS)] for name, share in found.items()]
    print_table(["change", *REASONS], table)
    write_json(args.json, found, "cpu")
    return 0


def _shares(images: Sequence[Face]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for one in measure(np.stack(images), [None] * len(images)):
        counts.update(reasons(one))
    return {name: counts[name] / len(images) for name in REASONS}


if __name__ == "__main__":
    sys.exit(main())
