"""How well and how fast MC-dropout's two forms rank real faces.

python benchmarks/mc_dropout.py --backbone_weights mbf_y1.pth --images lfw_dev

Prints two tables: agreement with many passes, and milliseconds per image after the feature map
(medians, one process).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from data.faces import open_faces
from mc_dropout.closed_form import DropoutSpread
from mc_dropout.estimator import MCDropout
from models.frozen import FrozenBackbone
from models.load import load_backbone
from models.run import parse_backbone
from utils.device import resolve_device

RUNS = 5  # of every timing and of every number of passes


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    backbone = load_backbone(parse_backbone(args.backbone_name), args.backbone_weights)
    frozen = FrozenBackbone(backbone, resolve_device(args.device), "fp32")
    features = _features(frozen, args.images, args.count)
    print(f"{len(features)} images, {frozen.device}, {torch.get_num_threads()} threads")
    agreement = _agreement(frozen, features, args.truth)
    timings = {"tail of the backbone": _timings(frozen, features[:32])}
    linear = FrozenBackbone(_LinearTail(features.shape[1]), frozen.device, "fp32")  # type: ignore[arg-type]
    timings["linear tail, 512-d, random"] = _timings(linear, features[:32])
    _print(agreement, timings)
    if args.json:
        result = {"images": len(features), "agreement": agreement, "ms_per_image": timings}
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


class _LinearTail(nn.Module):
    """The tail of an iresnet: one layer."""

    def __init__(self, features: int, embedding_size: int = 512) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.fc = nn.Linear(features, embedding_size)

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        return self.fc(features)

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        return self.fc.weight, self.fc.bias


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Accuracy and speed of MC-dropout's two forms.")
    add = parser.add_argument
    add("--backbone_name", default="mobilefacenet")
    add("--backbone_weights", required=True)
    add("--images", required=True, help="folder, list file, .rec pack or synthetic:...")
    add("--count", type=int, default=400, help="images, evenly spaced (400)")
    add("--truth", type=int, default=1000, help="passes of each half of the reference (1000)")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


def _features(frozen: FrozenBackbone, source: str, count: int) -> Tensor:
    faces = open_faces(source)
    rows = np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int)
    batches = np.array_split(rows, max(1, len(rows) // 50))
    images = (np.stack([faces.read(int(row)) for row in batch]) for batch in batches)
    return torch.cat([frozen(torch.from_numpy(batch)).features for batch in images])


def _agreement(
    frozen: FrozenBackbone, features: Tensor, passes: int
) -> dict[str, dict[str, float]]:
    """Compare with two independent halves of `passes` each, joined."""

    def sampled(passes: int, seed: int) -> np.ndarray:
        return MCDropout(frozen, passes=passes, seed=seed).spread(features).cpu().numpy()

    halves = [sampled(passes, seed) for seed in (101, 102)]
    truth = np.sqrt(np.mean(np.square(halves), axis=0))
    reliability = _rank(*halves)
    ceiling = (2 * reliability / (1 + reliability)) ** 0.5  # Spearman-Brown
    table = {
        "reference, half against half": _row(halves[0], halves[1]),
        "a perfect score would have about": {"spearman": ceiling},
    }
    for count in (25, 100):
        runs = [_row(sampled(count, seed), truth) for seed in range(RUNS)]
        mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        table[f"sampled, T = {count} (mean of {RUNS} seeds)"] = mean
    closed = MCDropout(frozen, form="closed_form").spread(features).cpu().numpy()
    table["closed form"] = _row(closed, truth)
    weight, bias = frozen.backbone.tail_affine()
    exact = DropoutSpread(weight, bias, probes=None)(features).cpu().numpy()
    table["closed form, exact trace"] = _row(exact, truth)
    return table


def _row(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    ratio = found / truth
    return {
        "spearman": _rank(found, truth),
        "mean_ratio": float(ratio.mean()),
        "sd_ratio": float(ratio.std()),
    }


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)


def _timings(frozen: FrozenBackbone, features: Tensor) -> dict[str, float]:
    sampled, closed = MCDropout(frozen), MCDropout(frozen, form="closed_form")
    found = {
        "sampled, T = 100": _milliseconds(lambda: sampled.spread(features)),
        "closed form": _milliseconds(lambda: closed.spread(features)),
    }
    return {name: value / len(features) for name, value in found.items()}


def _milliseconds(work: Callable[[], Tensor]) -> float:
    work().cpu()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work().cpu()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def _print(agreement: dict[str, dict[str, float]], timings: dict[str, dict[str, float]]) -> None:
    print(f"\n{'against the reference':42}Spearman  mean ratio  sd of ratio")
    for name, row in agreement.items():
        rest = f"{row['mean_ratio']:12.4f}{row['sd_ratio']:13.4f}" if "mean_ratio" in row else ""
        print(f"{name:42}{row['spearman']:8.4f}{rest}")
    print(f"\n{'ms per image (batch of 32)':42} sampled  closed form  ratio")
    for name, found in timings.items():
        first, second = found.values()
        print(f"{name:42}{first:8.2f}{second:13.2f}{first / second:7.1f}")


if __name__ == "__main__":
    sys.exit(main())
