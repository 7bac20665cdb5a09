"""Where a training step's time goes, and how near the backbone comes to what the machine can do.

OMP_NUM_THREADS=1 python benchmarks/step.py --backbone_name iresnet50 --batch 80 --steps 5

Faces are rendered into a `.rec` pack first, weights are random: speed does not depend on either.
The ceiling is the faster of a large matrix product and a large convolution, timed in the same run.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data.augment import BatchAugment
from data.faces import open_faces
from data.images import encode_jpeg
from data.loader import BatchLoader
from data.recordio import RecordWriter
from data.sampler import ClassBalancedBatches
from data.synthetic import SyntheticFaces
from losses.idq import IDQLoss
from models.frozen import FrozenBackbone
from models.heads.fc2 import FC2Head
from models.run import parse_backbone
from utils.config import Augment
from utils.device import autocast_dtype, describe_device, resolve_device
from utils.methods import build

IMAGES_PER_CLASS = 8
IDENTITIES = 100
PARTS = ("wait for data", "copy and augment", "backbone", "head and loss", "optimizer")


class Clock:
    """Adds up the seconds of each part, waiting for the device at the end of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what runs inside."""
        start = time.perf_counter()
        yield
        synchronise(self.device)
        self.seconds[name].append(time.perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """Seconds of each part, without the first step, which warms up."""
        return {name: statistics.median(values[1:]) for name, values in self.seconds.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    device = resolve_device(args.device)
    print(f"{describe_device(device)}, torch {torch.__version__}, batch {args.batch}")
    rows = [_measure(args, device, precision) for precision in args.precisions]
    print("| precision | images/s | " + " | ".join(PARTS) + " | backbone GFLOP/s | of ceiling |")
    print("|" + " --- |" * (len(PARTS) + 4))
    for row in rows:
        total = sum(row["seconds"].values())
        shares = " | ".join(f"{row['seconds'][part] / total:.1%}" for part in PARTS)
        print(
            f"| {row['precision']} | {args.batch / total:.1f} | {shares} | "
            f"{row['gflops']:.0f} | {row['gflops'] / row['ceiling']:.2f} |"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Shares of a training step, and the ceiling.")
    add = parser.add_argument
    add("--backbone_name", default="iresnet50", help="as the evaluation scripts take it")
    add("--batch", type=int, default=80, help="images, a multiple of 8 (80)")
    add("--steps", type=int, default=6, help="measured, after one that warms up (6)")
    add("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16"])
    add("--workers", type=int, default=1, help="threads that decode (1)")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


def _measure(args: argparse.Namespace, device: torch.device, precision: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    frozen = FrozenBackbone(
        build("models.backbones", parse_backbone(args.backbone_name)), device, precision
    )
    with tempfile.TemporaryDirectory() as folder:
        pack = _write_pack(Path(folder))
        seconds = _steps(args, frozen, pack)
    flops = _flops_per_image(frozen) * args.batch / seconds["backbone"]
    return {
        "precision": precision,
        "seconds": seconds,
        "gflops": flops / 1e9,
        "ceiling": _ceiling(device, autocast_dtype(device, precision)) / 1e9,
    }


def _steps(args: argparse.Namespace, frozen: FrozenBackbone, pack: Path) -> dict[str, float]:
    faces = open_faces(str(pack))
    classes = args.batch // IMAGES_PER_CLASS
    sampler = ClassBalancedBatches(faces.labels, classes, IMAGES_PER_CLASS, 0)
    loader = BatchLoader(
        faces, sampler, range(args.steps + 1), workers=args.workers, max_bad_share=0, on_bad=print
    )
    augment = BatchAugment(Augment(), 0)
    head = FC2Head(output="probability", features_shape=frozen.features_shape).to(frozen.device)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-2, momentum=0.9)
    loss, clock, batches = IDQLoss(), Clock(frozen.device), iter(loader)
    for _ in range(args.steps + 1):
        with clock.part("wait for data"):
            batch = next(batches)
        with clock.part("copy and augment"):
            images = batch.images.to(frozen.device, non_blocking=True)
            labels = torch.from_numpy(batch.labels).to(frozen.device, non_blocking=True)
            images = augment(images, augment.parameters(batch.steps.start, batch.rows))
        with clock.part("backbone"):
            output = frozen(images)
        with clock.part("head and loss"):
            optimizer.zero_grad(set_to_none=True)
            loss(output.embedding, head(output), labels).loss.backward()
        with clock.part("optimizer"):
            optimizer.step()
    return clock.medians()


def _write_pack(folder: Path) -> Path:
    faces = SyntheticFaces(IDENTITIES, IMAGES_PER_CLASS, seed=0)
    with RecordWriter(folder / "train") as writer:
        for row in range(len(faces)):
            writer.write_image(int(faces.labels[row]), encode_jpeg(faces.read(row)))
    return folder / "train.rec"


def _flops_per_image(frozen: FrozenBackbone) -> float:
    image = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        frozen(image)
    return float(counter.get_total_flops())


def _ceiling(device: torch.device, dtype: torch.dtype | None) -> float:
    """Most FLOP/s of a large matrix product and a large convolution."""
    size = 8192 if device.type == "cuda" else 2048
    square = torch.randn(size, size, device=device, dtype=dtype or torch.float32)
    batch = 256 if device.type == "cuda" else 16
    maps = torch.randn(batch, 256, 28, 28, device=device, dtype=square.dtype)
    maps = maps.to(memory_format=torch.channels_last)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=square.dtype)
    kernel = kernel.to(memory_format=torch.channels_last)
    work: list[tuple[float, Callable[[], Tensor]]] = [
        (2.0 * size**3, lambda: square @ square),
        (
            2.0 * batch * 28 * 28 * 256 * 256 * 9,
            lambda: torch.nn.functional.conv2d(maps, kernel, padding=1),
        ),
    ]
    return max(flops / _seconds(run, device) for flops, run in work)


@torch.no_grad()
def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
