"""A student beside its teacher: how small, how fast alone, and how good on a labelled set.

python benchmarks/student.py --student runs/NAME/student --teacher runs/NAME/teacher \
    --faces FOLDER [--scores OTHER=FILE] [--json FILE]

Time: the student alone, from uint8 pixels to uncertainty, one face at a time on one thread of ONNX
Runtime; beside it the whole teacher, backbone and head. Quality: AUERC30 relative to random
discard, as evaluation/compare.py prints it with `--cap 200 --non_mated 3000000`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import compare, print_table, write_json
from evaluation import compare as comparison
from export.graph import ExportedModel, write_onnx
from models.run import Run, load_run
from utils.cli import Parser, count, run_command
from utils.onnx_runtime import needed

GOAL_MS = 2.0
LARGEST = 500_000  # parameters
_CAP, _NON_MATED = 200, 3_000_000
_REPLICATES = "100"  # their intervals are not shown


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0."""
    parser = Parser(description="Size, speed and quality of a student beside its teacher.")
    add = parser.add_argument
    add("--student", required=True, help="run folder of a head that reads images")
    add("--teacher", required=True, help="run folder of the head that taught it")
    add("--faces", help="folder of faces for AUERC30; without it, size and speed alone")
    add("--scores", action="append", default=[], metavar="NAME=FILE", help="of another tool")
    add("--backbone_weights", help="where the backbone's file is now")
    add("--runs", type=count, default=200, help="timings of each side (200)")
    add("--json", help="file for the numbers")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    student = load_run(args.student, device="cpu", backbone_weights=args.backbone_weights)
    teacher = load_run(
        args.teacher, device="cpu", backbone_weights=args.backbone_weights, shared=student
    )
    if student.head.reads != "images":
        raise ValueError(f"--student {args.student}: its head needs a backbone; take a student's")
    rows = size_and_speed(student, teacher, args.runs)
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    met = rows[0]["ms per face"] < GOAL_MS and rows[0]["parameters"] <= LARGEST
    verdict = "met" if met else "missed"
    print(f"\ngoal (under {GOAL_MS:g} ms, at most {LARGEST} parameters): {verdict}\n")
    found: list[dict[str, Any]] = []
    if args.faces:
        found = quality(args)
        print_table(list(found[0]), [list(row.values()) for row in found])
    write_json(args.json, {"size_and_speed": rows, "quality": found}, "cpu")
    return 0


def size_and_speed(student: Run, teacher: Run, runs: int) -> list[dict[str, Any]]:
    """Return a row for the student and one for backbone and teacher."""
    networks = {
        "student": ExportedModel(None, student.head, None),
        "teacher with backbone": ExportedModel(teacher.frozen.backbone, teacher.head, None),
    }
    image = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sides, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            file = Path(folder) / "model.onnx"
            write_onnx(file, network, {}, name)
            sizes[name] = file.stat().st_size / 1e6
            session = runtime.InferenceSession(file.read_bytes(), options)
            feed = {session.get_inputs()[0].name: image}
            sides[name] = lambda run=session.run, feed=feed: run(None, feed)
    # one after the other, not in turn: a device runs one network, which keeps its caches
    seconds = {name: compare({name: side}, runs)[name] for name, side in sides.items()}
    return [
        {
            "network": name,
            "parameters": _parameters(network),
            "M multiply-adds": _multiply_adds(network, torch.from_numpy(image)),
            "MB of ONNX": sizes[name],
            "ms per face": 1e3 * seconds[name],
        }
        for name, network in networks.items()
    ]


def quality(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each FMR and method, by `evaluation/compare.py` itself."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["--methods", f"student={args.student}", f"teacher={args.teacher}", *args.scores]
        command += ["--target", f"faces:{args.faces}", "--cap", str(_CAP)]
        command += ["--non_mated", str(_NON_MATED), "--fmr", "1e-3", "1e-4"]
        command += ["--replicates", _REPLICATES, "--out", folder]
        if args.backbone_weights:
            command += ["--backbone_weights", args.backbone_weights]
        with contextlib.redirect_stdout(io.StringIO()):
            if comparison.main(command):
                raise ValueError(f"--faces {args.faces}: could not be compared")
        found = json.loads((Path(folder) / "compare.json").read_text(encoding="utf-8"))["rows"]
    areas = {(row["method"], row["fmr"]): row["relative"] for row in found}
    return [
        {
            "method": method,
            "FMR": fmr,
            "AUERC30 / random": area,
            "of the teacher's": area / areas["teacher", fmr],
        }
        for (method, fmr), area in areas.items()
    ]


def _parameters(network: ExportedModel) -> int:
    """Count what runs: a hint's layer is there for training alone."""
    parts: list[nn.Module] = [network.head, *([network.backbone] if network.backbone else [])]
    named = [pair for part in parts for pair in part.named_parameters()]
    return sum(value.numel() for name, value in named if not name.startswith("hint_"))


def _multiply_adds(network: ExportedModel, image: torch.Tensor) -> float:
    """Return millions of multiplications with an addition, of one face."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 2e6


if __name__ == "__main__":
    sys.exit(main())
