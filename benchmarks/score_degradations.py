"""What each score sees: how well it tells degraded faces from the same faces as they are.

python benchmarks/score_degradations.py --faces lfw_dev --backbone mobilefacenet \
    --weights mbf_y1.pth --estimators embedding_norm ser_fiq sharpness

Prints, for each degradation, the chance that a degraded face of the set gets a larger uncertainty
than a face as it is: 1 tells them apart always, .5 does not see it, 0 prefers the degraded one.
Also prints the processor time per image, relative to the embedding alone.
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
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks._common import write_json
from data.faces import open_faces
from estimators.base import Batch, build_estimator
from models.run import open_backbone
from utils.cli import run_command
from utils.config import parse_method

Image = NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0, or 2 after a mistake in the arguments."""
    parser = argparse.ArgumentParser(description="Which degradations a score tells from clean.")
    add = parser.add_argument
    add("--faces", required=True, help="folder, list file or .rec pack")
    add("--count", type=int, default=64, help="faces, spread over the set (64)")
    add("--backbone", required=True, help="iresnet50, mobilefacenet, mbf, or name:option=value")
    add("--weights", required=True, help="file with the backbone's weights")
    add("--estimators", required=True, nargs="+", metavar="NAME[:OPTION=VALUE,...]")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    frozen = open_backbone(args.backbone, args.weights, args.device, "fp32")
    faces = open_faces(args.faces)
    rows = np.linspace(0, len(faces) - 1, args.count).astype(int)
    clean = np.stack([faces.read(row) for row in rows.tolist()])
    degraded = {name: np.stack([change(one) for one in clean]) for name, change in CHANGES.items()}
    batch = torch.from_numpy(clean)
    frozen(batch)
    alone = _seconds(lambda: frozen(batch))
    print(f"{'':28}" + "".join(f"{name:>12}" for name in degraded) + f"{'time':>10}")
    found = []
    for text in args.estimators:
        estimator = build_estimator(parse_method(text), frozen=frozen)
        before = estimator(Batch(clean)).sigma_sq[:, 0]
        seconds = _seconds(lambda call=estimator: call(Batch(clean)))  # type: ignore[misc]
        chances = [
            _chance(estimator(Batch(one)).sigma_sq[:, 0], before) for one in degraded.values()
        ]
        found.append(
            {
                "score": text,
                "chances": dict(zip(degraded, chances, strict=True)),
                "time": seconds / alone,
            }
        )
        print(
            f"{text:28}" + "".join(f"{one:12.2f}" for one in chances) + f"{seconds / alone:9.1f}x"
        )
    write_json(args.json, found, args.device)
    return 0


def _seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _chance(degraded: NDArray, clean: NDArray) -> float:
    """Return P(degraded > clean), ties counted half."""
    ranks = rankdata(np.concatenate([degraded, clean]))[: len(degraded)]
    return float((ranks.sum() / len(degraded) - (len(degraded) + 1) / 2) / len(clean))


def _blur(image: Image) -> Image:
    return cv2.GaussianBlur(image, (0, 0), 2.0)


def _small(image: Image) -> Image:
    return cv2.resize(cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA), (112, 112))


def _noise(image: Image) -> Image:
    noise = np.random.default_rng(int(image.sum())).normal(0, 30, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _jpeg(image: Image) -> Image:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 8])
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def _covered(image: Image) -> Image:
    image = image.copy()
    image[70:] = 40
    return image


def _dark(image: Image) -> Image:
    return (image * 0.15).astype(np.uint8)


def _bright(image: Image) -> Image:
    return np.minimum(image.astype(int) * 3, 255).astype(np.uint8)


def _fog(image: Image) -> Image:
    return (image * 0.2 + 150).astype(np.uint8)


CHANGES: dict[str, Callable[[Image], Image]] = {
    "blur": _blur,
    "24 pixels": _small,
    "noise": _noise,
    "JPEG 8": _jpeg,
    "covered": _covered,
    "dark": _dark,
    "bright": _bright,
    "fog": _fog,
}

if __name__ == "__main__":
    sys.exit(main())
