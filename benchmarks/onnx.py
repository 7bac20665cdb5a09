"""Exported models beside PyTorch: parity, what 8 bits cost, milliseconds per face, file size.

python benchmarks/onnx.py --model runs/NAME --check faces:FOLDER --calibration_faces FOLDER
python benchmarks/onnx.py --random iresnet50

A network of random weights shows time, size and float parity; its accuracy would mean nothing, and
so would its 8 bits' loss. Engines run in turn, on one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from estimators.base import Estimator
from estimators.onnx import OnnxModel
from estimators.trained_head import TrainedHead
from evaluation.open_model import LoadedModel, open_model
from evaluation.sets.open_set import EvaluationSet
from export.colours import open_named_set
from export.graph import quantise, write_onnx
from export.onnx_export import (
    TIMED,
    about_line,
    accuracy,
    difference,
    exported_network,
    facts,
    latency,
    range_faces,
    some_faces,
)
from models.frozen import FrozenBackbone
from models.heads.gap_linear import GapLinearHead
from models.run import parse_backbone
from utils.cli import count, run_command
from utils.methods import build

WHOLE, SMALL = "ONNX Runtime float32", "ONNX Runtime 8 bits"
RENDERED = "synthetic:pairs=24,seed=5"


def main(argv: Sequence[str] | None = None) -> int:
    """Export, compare, time and print; 0, or 2 after a mistake in the arguments."""
    parser = argparse.ArgumentParser(description="Exported models beside PyTorch.")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="run folder or packed model")
    what.add_argument("--random", metavar="BACKBONE", help="random weights: iresnet50, mbf, ...")
    add("--check", default=RENDERED, help="set that is compared and evaluated (rendered faces)")
    add("--calibration_faces", default="synthetic:identities=8,images=4,seed=3", help="for 8 bits")
    add("--faces", type=count, default=256, help="of the set that are compared at most (256)")
    add("--runs", type=count, default=15, help="timings of each engine (15)")
    add("--json", help="write every number here")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    model = _random(args.random) if args.random else open_model(args.model, device="cpu")
    labelled = open_named_set("--check", args.check)
    with tempfile.TemporaryDirectory() as folder:
        files = {WHOLE: Path(folder) / "float32.onnx", SMALL: Path(folder) / "int8.onnx"}
        write_onnx(files[WHOLE], exported_network(model), facts(model), about_line(model))
        quantise(files[WHOLE], files[SMALL], range_faces(args.calibration_faces), "8-bit backbone")
        engines: dict[str, Estimator] = {"PyTorch float32": model.estimator}
        for name, file in files.items():
            engines[name] = OnnxModel(file, threads=1)
        sizes = {name: file.stat().st_size / 1e6 for name, file in files.items()}
    images = some_faces(labelled.images, args.faces)
    rows = _rows(model, engines, images, None if args.random else labelled)
    for name, by_size in latency(engines, images, args.runs).items():
        rows[name] |= {f"ms_per_face_{size}": ms for size, ms in by_size.items()}
        rows[name]["megabytes"] = sizes.get(name)
    title = f"{model.name} on {len(images)} of {len(labelled.images)} faces of {labelled.name}"
    _print(title, rows)
    write_json(args.json, {"title": title, "engines": rows}, "cpu")
    return 0


def _random(backbone: str) -> LoadedModel:
    """Return an untrained model; it has the time and the size of a trained one."""
    torch.manual_seed(0)
    frozen = FrozenBackbone(build("models.backbones", parse_backbone(backbone)), "cpu", "fp32")
    head = GapLinearHead(output="probability", features_shape=frozen.features_shape)
    return LoadedModel(
        name=f"{backbone}, random weights", estimator=TrainedHead(frozen=frozen, head=head.eval())
    )


def _rows(
    model: LoadedModel,
    engines: dict[str, Estimator],
    images: NDArray[np.uint8],
    labelled: EvaluationSet | None,
) -> dict[str, dict[str, Any]]:
    """Differences of both files from PyTorch and, on a set with labels, each one's accuracy."""
    rows: dict[str, dict[str, Any]] = {name: {} for name in engines}
    for name in (WHOLE, SMALL):
        measured = difference(model.estimator, engines[name], images, model.calibration)  # type: ignore[arg-type]
        rows[name] |= asdict(measured)
    if labelled is not None:
        for name, engine in engines.items():
            rows[name] |= asdict(accuracy(engine, labelled))
    return rows


def _print(title: str, rows: dict[str, dict[str, Any]]) -> None:
    columns = {
        "smallest cosine": "cosine",
        "mean cosine": "mean_cosine",
        "largest difference of uncertainty": "uncertainty",
        "rank correlation": "rank_correlation",
        "equal quality": "equal_quality",
        "FNMR at FMR 1e-3": "fnmr",
        "AUERC30 / random": "relative_area",
        **{f"ms per face, batch {size}": f"ms_per_face_{size}" for size in TIMED},
        "MB": "megabytes",
    }
    kept = {
        head: key for head, key in columns.items() if any(row.get(key) for row in rows.values())
    }
    print(f"{title}\n")
    cells = [[name, *(_shown(row.get(key)) for key in kept.values())] for name, row in rows.items()]
    print_table(["", *kept], cells)


def _shown(value: object) -> object:
    return "" if value is None else value


if __name__ == "__main__":
    sys.exit(main())
