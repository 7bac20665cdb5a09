"""Render faces into a `.rec` pack: input for benchmarks where no real faces are at hand.

python benchmarks/make_pack.py --faces 200000 --workers 16 --out faces/train.rec

The pack has insightface's layout; the same arguments give the same bytes, whatever the workers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
from tqdm import tqdm

from benchmarks._common import write_json
from data.images import encode_jpeg
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces

IMAGES_PER_CLASS = 16
_TASK = 4  # identities that a process renders at once


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pack; the exit code is 0, or 2 after a mistake in the arguments."""
    parser = argparse.ArgumentParser(description="Render faces into a .rec pack.")
    add = parser.add_argument
    add("--faces", type=int, default=200_000, help="images, 16 of each identity (200000)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (all cores)")
    add("--out", required=True, help="file to write, .rec")
    add("--seed", type=int, default=0, help="names the population (0)")
    add("--json", help="write the images per second here")
    args = parser.parse_args(argv)
    if args.faces < 1 or args.workers < 1 or not args.out.endswith(".rec"):
        parser.error("--faces and --workers are at least 1, and --out ends in .rec")
    identities = max(2, -(-args.faces // IMAGES_PER_CLASS))
    start = time.perf_counter()
    write_pack(args.out, identities, IMAGES_PER_CLASS, args.workers, args.seed)
    seconds = time.perf_counter() - start
    faces = identities * IMAGES_PER_CLASS
    print(f"{args.out}: {faces} faces, {faces / seconds:.0f} images/s, {args.workers} processes")
    row = {"faces": faces, "workers": args.workers, "images_per_second": faces / seconds}
    write_json(args.json, [row], "cpu")
    return 0


def write_pack(path: str | Path, identities: int, images: int, workers: int, seed: int = 0) -> None:
    """Render `identities` x `images` faces and write them to `path` (`.rec`) and its companions."""
    starts = range(0, identities, _TASK)
    tasks = [
        (identities, images, seed, range(start, min(start + _TASK, identities))) for start in starts
    ]
    total = identities * images
    with (
        RecordWriter(Path(path).with_suffix("")) as writer,
        tqdm(total=total, unit="img", desc="render", leave=False, disable=None) as bar,
    ):
        for labels, encoded in _rendered(tasks, workers):
            for label, data in zip(labels, encoded, strict=True):
                writer.write_image(label, data)
            bar.update(len(labels))


_Task = tuple[int, int, int, range]


def _rendered(tasks: list[_Task], workers: int) -> Iterator[tuple[list[int], list[bytes]]]:
    if workers == 1:
        yield from map(_render, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(_render, tasks)


def _render(task: _Task) -> tuple[list[int], list[bytes]]:
    """Return labels and JPEGs of some identities."""
    identities, images, seed, chosen = task
    faces = SyntheticFaces(identities, images, seed)
    rows = range(chosen.start * images, chosen.stop * images)
    return [row // images for row in rows], [encode_jpeg(faces.read(row)) for row in rows]


if __name__ == "__main__":
    sys.exit(main())
