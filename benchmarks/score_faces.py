"""Score every face of a set with several estimators: the input of comparisons and fusion.

python benchmarks/score_faces.py --faces lfw_dev --backbone mobilefacenet --weights mbf_y1.pth \
    --estimators embedding_norm ser_fiq grafiqs:at=block2 fast=faceqan:passes=2 --out scores.npz

The file has `key` (the images' names), `mu` and one array per estimator (larger = less reliable),
under what was asked for or under LABEL of LABEL=ESTIMATOR. It is written after each estimator; what
is already in it is not computed again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks._common import write_json
from data.faces import Faces, open_faces
from estimators.base import Batch, Estimator, PixelMeasure
from models.run import open_backbone
from utils.cli import run_command
from utils.config import parse_method
from utils.files import file_sha256
from utils.methods import build, check_options

Arrays = dict[str, NDArray]


def main(argv: Sequence[str] | None = None) -> int:
    """Compute, store and time; the exit code is 0, or 2 after a mistake in the arguments."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _body(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Scores of several estimators for one set.")
    add = parser.add_argument
    add("--faces", required=True, help="folder, list file or .rec pack")
    add("--backbone", required=True, help="iresnet50, mobilefacenet, mbf, or name:option=value")
    add("--weights", required=True, help="file with the backbone's weights")
    add("--estimators", required=True, nargs="+", metavar="[LABEL=]NAME[:OPTION=VALUE,...]")
    add("--out", required=True, help="file to write, .npz")
    add("--batch_size", type=int, default=64, help="images per call (64)")
    add("--device", default="auto")
    add("--precision", default="fp32", help="of the embeddings (fp32)")
    add("--json", help="write the images per second here")
    return parser


def _body(args: argparse.Namespace) -> int:
    methods = {label: parse_method(text) for label, text in map(_labelled, args.estimators)}
    for method in methods.values():
        check_options("estimators", method)
    frozen = open_backbone(args.backbone, args.weights, args.device, args.precision)
    faces = open_faces(args.faces)
    out = Path(args.out)
    arrays = _stored(out, faces, file_sha256(args.weights))
    rows = []
    for label, method in methods.items():
        if label in arrays:
            print(f"{label}: already in {out}")
            continue
        estimator = build("estimators", method, frozen=frozen)
        started = time.perf_counter()
        mu, uncertainty = _scores(estimator, faces, args.batch_size, label)
        rate = len(faces) / (time.perf_counter() - started)
        if mu is not None:
            arrays.setdefault("mu", mu)
        arrays[label] = uncertainty
        _write(out, arrays)
        rows.append({"estimator": label, "images_per_second": rate})
        print(f"{label}: {rate:.1f} images per second", flush=True)
    write_json(args.json, rows, args.device)
    return 0


def _labelled(text: str) -> tuple[str, str]:
    """Split LABEL=ESTIMATOR; the label is the estimator's own text where there is none."""
    label, equals, rest = text.partition("=")
    return (label, rest) if equals and ":" not in label else (text, text)


def _stored(out: Path, faces: Faces, sha256: str) -> Arrays:
    """Return what an earlier call left, after a check that it is about the same thing."""
    keys = np.array([faces.name(row).rpartition(" ")[2] for row in range(len(faces))])
    fresh: Arrays = {"key": keys, "backbone_sha256": np.array(sha256)}
    if not out.exists():
        return fresh
    with np.load(out) as archive:
        found = {name: archive[name] for name in archive.files}
    for name, wanted in fresh.items():
        if name not in found or not np.array_equal(found[name], wanted):
            raise ValueError(f"{out} has another {name}: it belongs to other faces or weights")
    return found


def _write(out: Path, arrays: Arrays) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(out)


def _scores(
    estimator: Estimator, faces: Faces, batch_size: int, label: str
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
    """Return mu (N, D), None for measures of the pixels alone, and uncertainties (N,) or (N, c)."""
    parts: list[tuple[NDArray | None, NDArray]] = []
    with tqdm(total=len(faces), desc=label, unit="img", leave=False, disable=None) as bar:
        for batch in _batches(faces, batch_size):
            if isinstance(estimator, PixelMeasure):
                parts.append((None, estimator.uncertainty(batch).astype(np.float32)))
            else:
                estimate = estimator(Batch(batch))
                parts.append((estimate.mu, estimate.sigma_sq))
            bar.update(len(batch))
    mu = [part for part, _ in parts if part is not None]
    uncertainty = np.concatenate([part for _, part in parts])
    if uncertainty.ndim == 2 and uncertainty.shape[1] == 1:
        uncertainty = uncertainty[:, 0]
    return np.concatenate(mu) if mu else None, uncertainty


def _batches(faces: Faces, size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(faces), size):
        yield np.stack([faces.read(row) for row in range(start, min(start + size, len(faces)))])


if __name__ == "__main__":
    sys.exit(main())
