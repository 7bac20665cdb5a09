"""How fast faces come from the disk into batches, and how soon training on a large set can start.

OMP_NUM_THREADS=1 python benchmarks/input.py --workers 2 --json input.json

Makes its data in a temporary folder (--tmp DIR: where; about 3 GB): rendered faces as JPEG in a
pack and in a folder, a pack of tiny records for the start-up, and folders of empty files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._common import compare, print_table, write_json
from benchmarks._input_data import (
    rendered,
    write_folder,
    write_names,
    write_pack,
    write_tiny_records,
)
from data.faces import Faces, FileFaces, PackFaces, open_faces
from data.loader import BatchLoader, ClassBalancedBatches

CLASSES, PER_CLASS = 10, 8
BATCH = CLASSES * PER_CLASS
IMAGES_PER_FOLDER = 20
Row = dict[str, Any]


class Unannounced(PackFaces):
    """A pack that does not tell the system what will be read."""

    def read_ahead(self, rows: NDArray[np.int64]) -> None:
        """Do nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    if args.start:
        print(json.dumps(_start(args.start)))
        return 0
    if args.quick:
        args.images, args.records, args.folders, args.steps = 2000, 200_000, 1000, 10
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=args.tmp) as name:
        folder = Path(name)
        rows += _throughput(args, folder)
        rows += _start_up(args, folder)
        rows += _listing(args, folder)
    rows += _sampler(args)
    write_json(args.json, rows, "cpu")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The way from files to batches.")
    add = parser.add_argument
    add("--workers", type=int, default=os.cpu_count() or 1, help="threads of the second column")
    add("--images", type=int, default=100_000, help="records of the pack of faces (100 000)")
    add("--steps", type=int, default=50, help="batches of 80 in each timing (50)")
    add("--runs", type=int, default=5, help="timings of each, of which the median counts (5)")
    add("--records", type=int, default=17_000_000, help="for the start-up (17 000 000)")
    add("--folders", type=int, default=4000, help="for the listing, of 20 files each (4000)")
    add("--quick", action="store_true", help="small sizes, to see that it runs")
    add("--tmp", help="where to make the data; a cold read needs a disk, not a tmpfs")
    add("--json", help="write the numbers here")
    add("--start", help=argparse.SUPPRESS)
    return parser


def _throughput(args: argparse.Namespace, folder: Path) -> list[Row]:
    jpegs = rendered(min(args.images, 1000))
    size = statistics.mean(map(len, jpegs))
    print(f"\n{args.images} images of {size:.0f} bytes on average, batches of {BATCH}\n")
    pack = write_pack(folder, jpegs, args.images)
    files = open_faces(str(write_folder(folder / "faces", jpegs, min(args.images, 20_000))))
    faces = open_faces(str(pack))
    assert isinstance(faces, PackFaces)
    assert isinstance(files, FileFaces)
    rows: list[Row] = [{"what": "mean bytes of a JPEG", "value": size}]
    for workers in sorted({1, args.workers}):
        sides = {
            "pack into uint8 batches": lambda w=workers: _load(faces, args.steps, w),
            "files, open and cv2.imdecode": lambda w=workers: _mapped(files, _file, args.steps, w),
            "per image to float32, cv2": lambda w=workers: _mapped(faces, _float, args.steps, w),
        }
        rows += _turns(sides, args.runs, args.steps * BATCH, workers)
    return _shown(rows[:1]) + _shown(rows[1:]) + _cold(args, pack)


def _cold(args: argparse.Namespace, pack: Path) -> list[Row]:
    """Read from a file that is not in memory, in turn with and without read-ahead."""
    if not hasattr(os, "posix_fadvise"):
        return []
    PackFaces(pack)  # the index is kept from here on, so that opening reads next to nothing
    seeds = iter(range(1, sys.maxsize))

    def load(kind: type[PackFaces], workers: int) -> None:
        faces = kind(pack)
        _load(faces, args.steps, workers, seed=next(seeds))
        faces.pack.close()

    rows: list[Row] = []
    for workers in sorted({1, args.workers}):
        sides = {
            "cold pack, with read-ahead": lambda w=workers: load(PackFaces, w),
            "cold pack, without read-ahead": lambda w=workers: load(Unannounced, w),
        }
        rows += _turns(sides, args.runs, args.steps * BATCH, workers, prepare=lambda: _evict(pack))
    return _shown(rows)


def _turns(
    sides: dict[str, Callable[[], Any]],
    runs: int,
    images: int,
    workers: int,
    prepare: Callable[[], Any] = int,
) -> list[Row]:
    """Time sides in turn, after one round that warms up; ratios are speeds against the first's."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs + 1):
        for name, call in sides.items():
            prepare()
            start, used = time.perf_counter(), time.process_time()
            call()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
    seconds = {name: statistics.median(taken[1:]) for name, taken in wall.items()}
    used = {name: statistics.median(taken[1:]) for name, taken in cpu.items()}
    first = next(iter(sides))
    return [
        {
            "what": name,
            "workers": workers,
            "images/s": images / seconds[name],
            "ratio": seconds[first] / seconds[name],
            "images/CPU s": images / used[name],
            "CPU ratio": used[first] / used[name],
        }
        for name in sides
    ]


def _evict(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _load(faces: Faces, steps: int, workers: int, seed: int = 0) -> None:
    sampler = ClassBalancedBatches(faces.labels, CLASSES, PER_CLASS, seed)
    for _ in BatchLoader(faces, sampler, range(steps), workers, 0, on_bad=print):
        pass


def _mapped(
    faces: FileFaces | PackFaces,
    read: Callable[[Any, int], NDArray[Any]],
    steps: int,
    workers: int,
) -> None:
    """Read the images of the batches one by one, in threads, and stack them."""
    sampler = ClassBalancedBatches(faces.labels, CLASSES, PER_CLASS, 0)
    with ThreadPoolExecutor(workers) as pool:
        for step in range(steps):
            np.stack(list(pool.map(lambda row: read(faces, row), sampler.rows(step).tolist())))


def _file(faces: FileFaces, row: int) -> NDArray[np.uint8]:
    with open(faces.name(row), "rb") as file:  # noqa: PTH123 - a Path takes longer
        return cv2.imdecode(np.frombuffer(file.read(), dtype=np.uint8), cv2.IMREAD_COLOR)


def _float(faces: PackFaces, row: int) -> NDArray[np.float32]:
    image = cv2.imdecode(np.frombuffer(faces.encoded(row), dtype=np.uint8), cv2.IMREAD_COLOR)
    chw = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1).astype(np.float32)
    return (chw - 127.5) / 127.5


def _start_up(args: argparse.Namespace, folder: Path) -> list[Row]:
    identities = max(CLASSES, args.records // 47)
    pack = write_tiny_records(folder, args.records, identities)
    print(f"\nStart on {args.records} records of {identities} identities, to the first rows\n")
    command = [sys.executable, __file__, "--start", str(pack)]
    rows = []
    for what in ("first start", "second start", "third start"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"what": what, **json.loads(done.stdout)})
    return _shown(rows)


def _start(pack: str) -> Row:
    before, start, used = _resident(), time.perf_counter(), time.process_time()
    faces = open_faces(pack)
    ClassBalancedBatches(faces.labels, CLASSES, PER_CLASS, 0).rows(0)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    after = _resident()
    return {
        "seconds": seconds,
        "CPU s": used,
        **{name: after[name] - before[name] for name in after},
    }


def _resident() -> dict[str, float]:
    """Return MB of own memory and of files in memory, where Linux tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    kinds = {"own MB": "RssAnon", "mapped MB": "RssFile"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in kinds.items()}


def _listing(args: argparse.Namespace, folder: Path) -> list[Row]:
    root = write_names(folder / "names", args.folders, IMAGES_PER_FOLDER)
    print(f"\nListing {args.folders} folders of {IMAGES_PER_FOLDER} images\n")
    rows = []
    for what in ("first listing", "second listing", "one folder changed"):
        if what == "one folder changed":
            (root / "0000000" / "new.jpg").touch()
        start = time.perf_counter()
        images = len(open_faces(str(root)))
        rows.append({"what": what, "seconds": time.perf_counter() - start, "images": images})
    return _shown(rows)


def _sampler(args: argparse.Namespace) -> list[Row]:
    identities = max(CLASSES, args.records // 47)
    labels = np.sort(np.random.default_rng(0).integers(0, identities, args.records, dtype=np.int32))
    sampler = ClassBalancedBatches(labels, CLASSES, PER_CLASS, 0)
    print(f"\nA step's rows: {args.records} images of {identities} identities\n")
    ours, steps = [], 3200
    for run in range(args.runs):
        start = time.perf_counter()
        for step in range(run * steps, (run + 1) * steps):
            sampler.rows(step)
        ours.append((time.perf_counter() - start) / steps)
    slow = compare({"slow": lambda: _brute_force(labels)}, 2)["slow"]
    ours_median = statistics.median(ours)
    rows = [
        {"what": "class-balanced batches", "us": ours_median * 1e6, "ratio": 1.0},
        {"what": "a search for each class", "us": slow * 1e6, "ratio": ours_median / slow},
    ]
    return _shown(rows)


def _brute_force(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    chosen = rng.permutation(np.unique(labels))[:CLASSES]
    return np.concatenate(
        [rng.permutation(np.flatnonzero(labels == one))[:PER_CLASS] for one in chosen]
    )


def _shown(rows: list[Row]) -> list[Row]:
    """Print rows as a table and return them."""
    header = list(rows[0]) if rows else []
    print_table(header, [[row.get(name, "") for name in header] for row in rows])
    return rows


if __name__ == "__main__":
    sys.exit(main())
