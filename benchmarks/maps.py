"""Whether a map finds what raises the uncertainty: its worst tenth is covered by the mean face.

python benchmarks/maps.py --model runs/NAME --faces FOLDER

Prints, for each change that spoils a face, for how many faces that lowers the uncertainty more than
covering as much elsewhere (the same shape, shifted at random over the torus), and by how much.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from benchmarks.reasons import GREY, Face, blur, levels, move, reduce
from data.faces import open_faces
from data.images import decode, encode_jpeg
from data.rendered import mean_face
from evaluation.open_model import LoadedModel, open_model
from models.heads.base import to_scalar

SHARE = 0.1  # of the pixels that are covered


def patch(face: Face) -> Face:
    """Cover a square with one colour; place and colour follow from the face."""
    rng = np.random.default_rng(int(face.sum()))
    side, face = int(rng.integers(30, 50)), face.copy()
    top, left = rng.integers(8, 104 - side, 2)
    face[top : top + side, left : left + side] = rng.integers(0, 256, 3)
    return face


def noise(face: Face) -> Face:
    """Add noise of 25 grey levels."""
    added = np.random.default_rng(int(face.sum())).normal(0, 25, face.shape)
    return np.asarray((face + added).clip(0, 255), np.uint8)


def one_side(face: Face) -> Face:
    """Let the light fall from the right."""
    return np.asarray(face * np.linspace(0.15, 1, face.shape[1])[:, None], np.uint8)


CHANGES: dict[str, Callable[[Face], Face]] = {
    "Gaussian blur of 2 pixels": partial(blur, sigma=2),
    "reduced to 24 pixels and back": partial(reduce, side=24),
    "motion over 11 pixels": partial(move, pixels=11),
    "square of 30 to 50 pixels": patch,
    "noise of 25 grey levels": noise,
    "gamma 3": partial(levels, table=255 * (GREY / 255) ** 3),
    "light from one side": one_side,
    "JPEG of quality 6": lambda face: decode(encode_jpeg(face, 6)),
}


def level(model: LoadedModel, faces: NDArray[np.floating]) -> NDArray[np.float32]:
    """The logit of the uncertainty of faces (B, 112, 112, 3), or the logarithm of a variance."""
    assert model.head is not None
    assert model.frozen is not None
    images = torch.from_numpy(np.ascontiguousarray(faces, np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        raw = model.head.eval()(model.frozen(images)).cpu()
    numbers: NDArray[np.float32] = (
        raw[:, 0] if raw.shape[1] == 1 else to_scalar(raw.exp()).log()
    ).numpy()
    return numbers


def covered(
    faces: NDArray[np.uint8], masks: NDArray[np.bool_], mean: NDArray[np.float32], edge: float
) -> NDArray[np.float32]:
    """Faces under the mean face, with a soft edge (Gaussian, in pixels) where each mask ends."""
    cover = masks.astype(np.float32)
    if edge:
        cover = np.stack([cv2.GaussianBlur(mask, (0, 0), edge) for mask in cover])
    whole: NDArray[np.float32] = faces + cover[..., None] * (mean - faces)
    return whole


def effects(
    model: LoadedModel, faces: NDArray[np.uint8], edge: float = 3.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """By how much covering the worst tenth, and as much elsewhere, raises the level, (B,) each."""
    maps = model.explain(faces)
    worst = maps >= np.quantile(maps, 1 - SHARE, axis=(1, 2), keepdims=True)
    rng = np.random.default_rng(0)
    elsewhere = np.stack([np.roll(mask, rng.integers(112, size=2), (0, 1)) for mask in worst])
    before = level(model, faces)
    at_worst, at_random = (
        level(model, covered(faces, masks, mean_face(), edge)) for masks in (worst, elsewhere)
    )
    return at_worst - before, at_random - before


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    parser = argparse.ArgumentParser(description="Whether maps find what raises the uncertainty.")
    parser.add_argument("--model", default="demo", help="run folder or packed .pt (demo)")
    parser.add_argument("--faces", required=True, help="aligned faces: a pack, folder or list")
    parser.add_argument("--count", type=int, default=40, help="faces for each change (40)")
    parser.add_argument("--edge", type=float, default=3.0, help="softness of covers, pixels (3)")
    parser.add_argument("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    model, faces = open_model(args.model), open_faces(args.faces)
    order = np.random.default_rng(0).permutation(len(faces.labels))
    rows, found = np.resize(order, (len(CHANGES), args.count)), {}
    for (name, change), chosen in zip(CHANGES.items(), rows, strict=True):
        found[name] = effects(
            model, np.stack([change(faces.read(int(row))) for row in chosen]), args.edge
        )
    found["all"] = tuple(np.concatenate(part) for part in zip(*found.values(), strict=True))
    table = [
        [name, f"{(worst < other).mean():.1%}", f"{(worst < 0).mean():.1%}",
         f"{worst.mean():+.2f}", f"{other.mean():+.2f}"]
        for name, (worst, other) in found.items()
    ]  # fmt: skip
    heading = ["change", "more than elsewhere", "lower at all", "worst tenth", "elsewhere"]
    print_table(heading, table)
    write_json(args.json, [dict(zip(heading, row, strict=True)) for row in table], "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
