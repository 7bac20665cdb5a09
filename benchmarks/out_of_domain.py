"""Which uncertainty tells inputs that are no photograph of a face, or no upright one, from faces.

python benchmarks/out_of_domain.py --faces lfw_dev --model runs/mbf_all_lfw/idq-0 \
    --estimators trained_head embedding_norm typicality:reference=typicality.npz

Prints, for each kind of input, the area under the ROC curve of telling it from faces: 1 always
tells them apart, .5 does not see it, 0 takes it for the better face. Also prints the processor time
of an estimator's whole pass, relative to the first one's.
A few minutes on one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks._common import compare, print_table, write_json
from benchmarks._scenes import NOT_FACES
from data.faces import open_faces
from data.synthetic import SyntheticFaces
from estimators.base import Batch, Estimator
from evaluation.open_model import open_model
from utils.cli import run_command

Image = NDArray[np.uint8]
Random = np.random.Generator
_BATCH = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0, or 2 after a mistake in the arguments."""
    parser = argparse.ArgumentParser(description="Which uncertainty sees what is no face.")
    add = parser.add_argument
    add("--faces", required=True, help="folder, list file or .rec pack of people not trained on")
    add("--count", type=int, default=400, help="faces, and inputs of each kind (400)")
    add("--model", required=True, help="as in every command; its backbone and head are used")
    add("--backbone_name", help="where the model is an estimator")
    add("--backbone_weights", help="its file")
    add("--estimators", required=True, nargs="+", metavar="NAME[:OPTION=VALUE,...]")
    add("--device", default="cpu")
    add("--runs", type=int, default=5, help="timings of each (5)")
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    estimators = {text: _opened(args, text) for text in args.estimators}
    source = open_faces(args.faces)
    rows = np.linspace(0, len(source) - 1, 2 * args.count).astype(int).tolist()
    faces = np.stack([source.read(row) for row in rows[::2]])
    others = np.stack([source.read(row) for row in rows[1::2]])
    inputs = {name: make(others, np.random.default_rng(0)) for name, make in KINDS.items()}
    sides = {text: _pass(estimator, faces[:_BATCH]) for text, estimator in estimators.items()}
    seconds = compare(sides, args.runs, args.device, time.process_time)
    table = []
    for text, estimator in estimators.items():
        known = _scores(estimator, faces)
        areas = [_area(_scores(estimator, images), known) for images in inputs.values()]
        cost = seconds[text] / seconds[args.estimators[0]]
        table.append([text, *areas, float(np.mean(areas)), cost])
    header = ["estimator", *inputs, "mean", "time"]
    print_table(header, table)
    write_json(args.json, [dict(zip(header, row, strict=True)) for row in table], args.device)
    return 0


def _opened(args: argparse.Namespace, text: str) -> Estimator:
    """Open the model for one estimator alone: what others ask of the backbone costs it nothing."""
    model = open_model(
        args.model,
        device=args.device,
        calibrated=False,
        backbone_name=args.backbone_name,
        backbone_weights=args.backbone_weights,
    )
    return model.with_estimator(text).estimator


def _pass(estimator: Estimator, images: Image) -> Callable[[], object]:
    return lambda: estimator(Batch(images))


def _scores(estimator: Estimator, images: Image) -> NDArray[np.float32]:
    parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return np.concatenate([estimator(Batch(part)).scalar() for part in parts])


def _area(unlike: NDArray, known: NDArray) -> float:
    """Return P(unlike > known), ties counted half."""
    ranks = rankdata(np.concatenate([unlike, known]))[: len(unlike)]
    return float((ranks.sum() / len(unlike) - (len(unlike) + 1) / 2) / len(known))


def _rendered(faces: Image, random: Random) -> Image:
    drawn = SyntheticFaces(len(faces), 1, seed=int(random.integers(1 << 30)))
    return np.stack([drawn.read(row) for row in range(len(faces))])


def _cartoon(face: Image, random: Random) -> Image:
    """Flat colours in a few levels, with dark outlines."""
    flat = face
    for _ in range(4):
        flat = cv2.bilateralFilter(flat, 7, 40, 7)
    levels = (flat // 40) * 40 + 20
    grey = cv2.medianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 7, 4)
    return np.minimum(levels, lines[..., None])


def _pencil(face: Image, random: Random) -> Image:
    """Grey levels divided by their blurred selves: white paper with soft lines."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    drawn = np.clip(255 * grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), 5), 1), 0, 255)
    return np.repeat(drawn[..., None], 3, axis=2).astype(np.uint8)


def _lines(face: Image, random: Random) -> Image:
    """Black edges on white."""
    edges = cv2.Canny(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), 60, 140)
    return np.repeat(255 - edges[..., None], 3, axis=2)


def _misaligned(face: Image, random: Random) -> Image:
    """Shifted by a quarter to a half of its size, and up to twice as large or small."""
    shift = random.uniform(28, 56, 2) * random.choice([-1, 1], 2)
    turn = cv2.getRotationMatrix2D((56, 56), random.uniform(-45, 45), 2 ** random.uniform(-1, 1))
    turn[:, 2] += shift
    return np.asarray(cv2.warpAffine(face, turn, (112, 112), borderMode=cv2.BORDER_REFLECT_101))


def _cat(face: Image, random: Random) -> Image:
    """A cat's head, drawn: disc, ears, slit eyes, nose and whiskers, in the face's mean colours."""
    skin = random.integers(60, 240, 3).tolist()
    picture = np.full((112, 112, 3), random.integers(0, 256, 3), np.uint8)
    for side in (-1, 1):
        ear = np.array([[56 + side * 40, 8], [56 + side * 44, 52], [56 + side * 12, 30]])
        cv2.fillPoly(picture, [ear], skin)
    cv2.circle(picture, (56, 64), 42, skin, -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (56 + side * 17, 54)
        cv2.ellipse(picture, eye, (9, 6), 0, 0, 360, (200, 220, 60), -1, cv2.LINE_AA)
        cv2.ellipse(picture, eye, (2, 6), 0, 0, 360, (10, 10, 10), -1, cv2.LINE_AA)
        for slope in (-6, 0, 6):
            start, end = (56 + side * 12, 78), (56 + side * 46, 78 + slope)
            cv2.line(picture, start, end, (240, 240, 240), 1, cv2.LINE_AA)
    cv2.fillPoly(picture, [np.array([[50, 70], [62, 70], [56, 77]])], (220, 120, 130))
    cv2.ellipse(picture, (56, 77), (8, 6), 0, 10, 170, (40, 20, 20), 1, cv2.LINE_AA)
    noisy = picture + random.normal(0, 6, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _noise(face: Image, random: Random) -> Image:
    fine = random.integers(0, 256, (112, 112, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), 10 ** random.uniform(-0.5, 0.7)))


def _crop(face: Image, random: Random) -> Image:
    """A square of a scene without faces: clutter, stripes, text, smooth colours."""
    kind = ("shapes", "stripes", "text", "gradients")[int(random.integers(4))]
    picture = NOT_FACES[kind](random)
    side = int(random.integers(112, 400))
    y, x = (int(random.integers(size - side)) for size in picture.shape[:2])
    small = cv2.resize(
        picture[y : y + side, x : x + side], (112, 112), interpolation=cv2.INTER_AREA
    )
    return np.asarray(small)


def _each(change: Callable[[Image, Random], Image]) -> Callable[[Image, Random], Image]:
    return lambda faces, random: np.stack([change(face, random) for face in faces])


KINDS: dict[str, Callable[[Image, Random], Image]] = {
    "rendered": _rendered,
    "cartoon": _each(_cartoon),
    "pencil": _each(_pencil),
    "lines": _each(_lines),
    "drawn cats": _each(_cat),
    "noise": _each(_noise),
    "scenes": _each(_crop),
    "upside down": lambda faces, random: faces[:, ::-1].copy(),
    "misaligned": _each(_misaligned),
}

if __name__ == "__main__":
    sys.exit(main())
