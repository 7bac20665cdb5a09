"""Photos through score_images in a process of its own: images/s, and the most memory it needed.

OMP_NUM_THREADS=1 python benchmarks/score_images.py --inputs 1000 100000
OMP_NUM_THREADS=1 python benchmarks/score_images.py --inputs 200 --photos FOLDER
OMP_NUM_THREADS=1 python benchmarks/score_images.py --inputs 2000 6000 --ray_workers 1

Without `--photos`, inputs are rendered faces of 112x112, which the detector does not see. A list
names each file as often as it takes. Memory that does not grow with the inputs is the point.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks._common import print_table, write_json
from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from photos.sources import open_sources

ROOT = Path(__file__).resolve().parents[1]
RENDERED = 50  # distinct faces
_SHOWN = ("inputs", "seconds", "images_per_s", "peak_mb")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        photos = _photos(args.photos, Path(folder))
        rows = [_measure(args, photos, count, Path(folder)) for count in args.inputs]
    header = ["inputs", "seconds with start", "images/s", "peak memory, MB"]
    print_table(header, [[row[name] for name in _SHOWN] for row in rows])
    write_json(args.json, rows, args.device)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Speed and memory of score_images.")
    add = parser.add_argument
    add("--inputs", type=int, nargs="+", default=[1000, 10000], help="how many (1000 10000)")
    add("--photos", help="a folder of photos (rendered faces, aligned)")
    add("--model", default="demo", help="see score_images.py (demo)")
    add("--format", default="csv", choices=["csv", "json", "jsonl", "parquet"], help="(csv)")
    add("--device", default="cpu", help="(cpu)")
    add("--workers", default="2", help="threads that decode (2)")
    add("--batch_size", default="64", help="faces per forward pass (64)")
    add("--ray_workers", help="by --engine ray with so many workers, as Parquet (the local engine)")
    add("--json", help="write the numbers here")
    return parser


def _photos(given: str | None, folder: Path) -> list[str]:
    if given:
        return [str(Path(item.file).resolve()) for item in open_sources(given)]
    faces = SyntheticFaces(identities=RENDERED, images=1, seed=1)
    paths = [folder / f"{row}.jpg" for row in range(RENDERED)]
    for row, path in enumerate(paths):
        path.write_bytes(encode_jpeg(faces.read(row)))
    return list(map(str, paths))


def _measure(
    args: argparse.Namespace, photos: Sequence[str], count: int, folder: Path
) -> dict[str, Any]:
    ending = "parquet" if args.ray_workers else args.format
    listed, out = folder / f"{count}.txt", folder / f"{count}.{ending}"
    with listed.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{path}\n" for path in islice(cycle(photos), count))
    command = [sys.executable, str(ROOT / "scoring" / "score_images.py"), str(listed)]
    command += ["--model", args.model, "--out", str(out), "--device", args.device]
    command += ["--workers", args.workers, "--batch_size", args.batch_size]
    command += ["--engine", "ray", "--ray_workers", args.ray_workers] if args.ray_workers else []
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "inputs": count,
        "seconds": round(seconds, 1),
        "images_per_s": round(count / seconds, 1),
        "peak_mb": round(used.ru_maxrss / 1024, 1),  # Linux counts in KB
    }


if __name__ == "__main__":
    sys.exit(main())
