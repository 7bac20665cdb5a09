"""The published run, from the command to the evaluated head: 12 x 1000 steps of 80 images.

python benchmarks/whole_run.py --pack faces/train.rec --device cuda --execution cuda_graph
python benchmarks/whole_run.py --pack faces/train.rec --epochs 2 --steps_per_epoch 2 --pairs 60

Starts `network.py` with the config of IDQ on iResNet50 as a process of its own and looks at the
clock: imports, weights, training, and after each epoch the evaluation on three sets made of the
pack. Weights are random, and so is the table at the end; speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks._common import print_table, write_json
from data.faces import open_faces
from data.images import encode_jpeg
from data.verification import write_bin
from models.run import parse_backbone
from utils.config import Execution
from utils.device import resolve_device
from utils.methods import build

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "config_ir50_idq_loss_glint360k.py"
SETS = ("first", "second", "third")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; the exit code is that of the run."""
    args = _parser().parse_args(argv)
    device = resolve_device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = _write_weights(folder / "backbone.pth", args.backbone_name)
        for seed, target in enumerate(SETS):
            _write_set(folder / f"{target}.bin", args.pack, args.pairs, seed)
        command = [sys.executable, str(ROOT / "network.py"), "--config_file", str(CONFIG)]
        command += ["--model_dir", str(folder / "run"), "--set", *_overrides(args, weights, folder)]
        start = time.perf_counter()
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if found.returncode:
            print(found.stdout[-2000:], found.stderr[-2000:], file=sys.stderr, sep="\n")
            return found.returncode
        trained, evaluated = _count(folder / "run", args)
    row = {
        "execution": args.execution,
        "steps": args.epochs * args.steps_per_epoch,
        "seconds": seconds,
        "trained": trained,
        "evaluated": evaluated,
    }
    header = ["execution", "steps", "seconds in all", "images trained", "images evaluated"]
    print_table(header, [list(row.values())])
    write_json(args.json, [row], device)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A whole training run against the clock.")
    add = parser.add_argument
    add("--pack", required=True, help="a .rec pack, such as benchmarks/make_pack.py writes")
    add("--backbone_name", default="iresnet50", help="as the evaluation scripts take it")
    add("--epochs", type=int, default=12)
    add("--steps_per_epoch", type=int, default=1000)
    add("--steps_per_forward", type=int, help="by default what the trainer takes")
    add("--pairs", type=int, default=6000, help="of each of three evaluation sets (6000)")
    add("--execution", default="eager", choices=get_args(Execution))
    add("--precision", default="auto")
    add("--workers", type=int, default=4, help="threads that decode (4)")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


def _overrides(args: argparse.Namespace, weights: Path, folder: Path) -> list[str]:
    backbone = parse_backbone(args.backbone_name)
    options = ",".join(f"{key}={value!r}" for key, value in backbone.options.items())
    lengths = [f"schedule.epochs={args.epochs}", f"schedule.steps_per_epoch={args.steps_per_epoch}"]
    return [
        f"backbone={backbone.name}:{options}",
        *lengths,
        f"schedule.drop_at={(args.epochs / 2, args.epochs * 3 / 4)}",
        f"train_images={args.pack}",
        f"backbone_weights={weights}",
        f"verification.dataset_path={folder}",
        f"verification.targets={SETS}",
        f"steps_per_forward={args.steps_per_forward}",
        f"execution={args.execution}",
        f"precision={args.precision}",
        f"workers={args.workers}",
        f"device={args.device}",
    ]


def _write_weights(path: Path, name: str) -> Path:
    torch.manual_seed(0)
    torch.save(build("models.backbones", parse_backbone(name)).state_dict(), path)
    return path


def _write_set(path: Path, pack: str, pairs: int, seed: int) -> None:
    """Write a `.bin` set of pairs of the pack's faces, every other one of one person."""
    faces = open_faces(pack)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(faces) - 1, size=2 * pairs)
    people = faces.labels[rows[0::4]]
    rows[1::4] = [rng.choice(np.flatnonzero(faces.labels == person)) for person in people]
    images = [encode_jpeg(faces.read(int(row))) for row in rows]
    first, second = faces.labels[rows[0::2]], faces.labels[rows[1::2]]
    write_bin(path, images, first == second)


def _count(run: Path, args: argparse.Namespace) -> tuple[int, int]:
    """Return images trained on and images evaluated, after a look at what the run left."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    last = max(record["global_step"] for record in records)
    assert last == args.epochs * args.steps_per_epoch, "the run is not complete"
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    batch = config["classes_per_batch"] * config["images_per_class"]
    return last * batch, args.epochs * len(SETS) * 2 * args.pairs


if __name__ == "__main__":
    sys.exit(main())
