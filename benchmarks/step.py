"""Where a training step's time goes, and how near the backbone comes to what the machine can do.

OMP_NUM_THREADS=1 python benchmarks/step.py --backbone_name iresnet50 --images 320
python benchmarks/step.py --device cuda --executions eager cuda_graph compile \
    --steps_per_batch 1 2 6 --heads 1 2 4 12 --images 20000 --workers 16

Two tables. The first: each precision, execution and number of optimizer steps on one forward pass
(the steps themselves stay of --batch images), with the share of each part and the fraction of the
faster of a large matrix product and a large convolution, timed in the same run. The second: what
more heads on the same forward pass cost. Images/s are those of steps without a clock on the parts.
Weights are random, faces rendered: speed does not depend on either.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, get_args

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from benchmarks._common import print_table, write_json
from benchmarks._step_ceiling import ceilings, flops_per_image
from benchmarks._step_work import IMAGES_PER_CLASS, PARTS, Work, measure
from benchmarks.make_pack import write_pack
from data.faces import Faces, open_faces
from models.frozen import FrozenBackbone
from models.run import parse_backbone
from utils.config import Execution
from utils.device import describe_device, resolve_device
from utils.methods import build

IDENTITIES = 100  # rendered where no pack is given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0, or 2 after a mistake in the arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.batch % IMAGES_PER_CLASS:
        parser.error(f"--batch {args.batch}: must be a multiple of {IMAGES_PER_CLASS}")
    device = resolve_device(args.device)
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    print(f"{describe_device(device)}, torch {torch.__version__}, steps of {args.batch} images\n")
    with _faces(args.pack) as faces:
        rows = _combinations(args, device, faces)
        print()
        rows += _more_heads(args, device, faces)
    write_json(args.json, rows, device)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Shares of a training step, and the ceiling.")
    add = parser.add_argument
    add("--backbone_name", default="iresnet50", help="as the evaluation scripts take it")
    add("--batch", type=int, default=80, help="images of an optimizer step, a multiple of 8 (80)")
    add("--steps_per_batch", type=int, nargs="+", default=[1], help="steps on one forward pass (1)")
    add("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16"])
    add("--executions", nargs="+", default=["eager"], choices=get_args(Execution))
    add("--heads", type=int, nargs="*", default=[1, 2, 4, 12], help="branches (1 2 4 12)")
    add("--hidden", type=int, help="units of every head's inner layer (256, and 512 for variances)")
    add("--dropout", type=float, default=0.0, help="of every head (0)")
    add("--processor_time", action="store_true", help="not the clock's: for a busy machine")
    add("--images", type=int, default=800, help="of one timing, at least (800)")
    add("--repeats", type=int, default=3, help="timings of each row (3)")
    add("--workers", type=int, default=1, help="threads that decode (1)")
    add("--pack", help="a .rec pack; by default 800 faces are rendered first")
    add("--cudnn_benchmark", action="store_true", help="let cuDNN try its algorithms")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


@contextmanager
def _faces(pack: str | None) -> Iterator[Faces]:
    if pack is not None:
        yield open_faces(pack)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        write_pack(path, IDENTITIES, IMAGES_PER_CLASS, workers=1)
        yield open_faces(str(path))


def _combinations(
    args: argparse.Namespace, device: torch.device, faces: Faces
) -> list[dict[str, Any]]:
    header = ["precision", "execution", "steps per pass", "images/s", *PARTS]
    rows: list[dict[str, Any]] = []
    for precision in args.precisions:
        for execution in args.executions:
            names = {"precision": precision, "execution": execution}
            frozen = _frozen(args, device, precision, execution)
            before = ceilings(device, frozen.dtype)
            recorded = execution == "cuda_graph"
            works = [
                _work(args, frozen, faces, steps, heads=1, recorded=recorded)
                for steps in args.steps_per_batch
            ]
            found = [
                {**names, "steps_per_batch": work.steps_per_batch, **row}
                for work, row in zip(works, measure(works, args.images, args.repeats), strict=True)
            ]
            after = ceilings(device, frozen.dtype)
            most = {name: max(before[name], after[name]) / 1e9 for name in before}
            for row in found:
                speed = flops_per_image(frozen) / row["parts"]["backbone"] / 1e9
                of_ceiling = speed / max(most.values())
                row |= {"gflops": speed, "ceilings": most, "of_ceiling": of_ceiling}
            rows += found
    cells = [
        [
            row["precision"],
            row["execution"],
            row["steps_per_batch"],
            1 / row["seconds_per_image"],
            *_shares(row["parts"]),
            row["gflops"],
            f"{row['of_ceiling']:.2f}",
        ]
        for row in rows
    ]
    print_table([*header, "backbone GFLOP/s", "of ceiling"], cells)
    return rows


def _more_heads(
    args: argparse.Namespace, device: torch.device, faces: Faces
) -> list[dict[str, Any]]:
    """Measure with the last precision, execution and number of steps, which are the fastest."""
    if not args.heads:
        return []
    frozen = _frozen(args, device, args.precisions[-1], args.executions[-1])
    steps = args.steps_per_batch[-1]
    recorded = args.executions[-1] == "cuda_graph"
    works = [_work(args, frozen, faces, steps, heads, recorded=recorded) for heads in args.heads]
    rows = [
        {"heads": work.heads, "steps_per_batch": steps, **row}
        for work, row in zip(works, measure(works, args.images, args.repeats), strict=True)
    ]
    first = rows[0]
    cells = []
    for row in rows:
        ratio = row["seconds_per_image"] / first["seconds_per_image"]
        row["step_time_ratio"] = ratio
        more = row["heads"] - first["heads"]
        each = f"{(ratio - 1) / more:+.1%}" if more else "-"
        cells.append([row["heads"], 1 / row["seconds_per_image"], f"{ratio:.3f}", each])
    print_table(["heads", "images/s", "step time", "each further head"], cells)
    return rows


def _frozen(
    args: argparse.Namespace, device: torch.device, precision: Any, execution: Any
) -> FrozenBackbone:
    torch.manual_seed(0)
    backbone = build("models.backbones", parse_backbone(args.backbone_name))
    return FrozenBackbone(backbone, device, precision, execution)


def _work(
    args: argparse.Namespace,
    frozen: FrozenBackbone,
    faces: Faces,
    steps: int,
    heads: int,
    *,
    recorded: bool,
) -> Work:
    sizes = args.batch, steps, heads, args.workers, recorded, args.hidden, args.dropout
    return Work(frozen, faces, *sizes, process_time if args.processor_time else perf_counter)


def _shares(parts: dict[str, float]) -> list[str]:
    total = sum(parts.values())
    return [f"{parts[part] / total:.1%}" for part in PARTS]


if __name__ == "__main__":
    sys.exit(main())
