"""How well and how fast MC-dropout's two forms rank real faces.

python benchmarks/mc_dropout.py --backbone_weights mbf_y1.pth --images lfw_dev

Prints agreement with many passes, and milliseconds per image after the feature map for two tails:
the backbone's, and a random one of the size of an iResNet's. The plain loop is dropout, then the
tail, once per pass for the whole batch.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from benchmarks._common import compare, print_table, write_json
from data.faces import open_faces
from estimators.mc_dropout import MCDropout, cosine_std
from mc_dropout.closed_form import DropoutSpread
from models.backbones.iresnet import IResNet
from models.frozen import FrozenBackbone
from models.load import load_backbone
from models.run import parse_backbone
from utils.device import resolve_device

SEEDS = 5  # of every number of passes
PASSES, RATE, BATCH = 100, 0.5, 32
CHUNK = 50  # images


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0."""
    args = _parser().parse_args(argv)
    device = resolve_device(args.device)
    backbone = load_backbone(parse_backbone(args.backbone_name), args.backbone_weights)
    frozen = FrozenBackbone(backbone, device, "fp32")
    features = _features(frozen, args.images, args.count)
    torch.manual_seed(0)
    widths = (8, 8, 8, frozen.features_shape[0])
    linear = FrozenBackbone(IResNet(layers=(1, 1, 1, 1), widths=widths), device, "fp32")
    tails = {args.backbone_name: frozen, "iresnet, random weights": linear}

    agreement = _agreement(frozen, features, args.truth)
    agreement.append(_against_exact(linear, features[:: max(1, len(features) // 50)]))
    print_table(
        [f"{len(features)} images", "Spearman", "mean ratio", "sd of ratio"],
        [[row["row"], *(row.get(key, "") for key in _MEASURES)] for row in agreement],
    )
    timings = [_timings(name, tail, features[:BATCH], args.runs) for name, tail in tails.items()]
    threads = torch.get_num_threads()
    print(
        f"\nms per image after the feature map: T = {PASSES}, batch of {BATCH}, {threads} threads\n"
    )
    print_table(list(timings[0]), [list(row.values()) for row in timings])
    rows = {"images": len(features), "truth": args.truth, "agreement": agreement}
    write_json(args.json, rows | {"ms_per_image": timings}, device)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Accuracy and speed of MC-dropout's two forms.")
    add = parser.add_argument
    add("--backbone_name", default="mobilefacenet")
    add("--backbone_weights", required=True)
    add("--images", required=True, help="folder, list file, .rec pack or synthetic:...")
    add("--count", type=int, default=400, help="images, evenly spaced (400)")
    add("--truth", type=int, default=1000, help="passes of each half of the reference (1000)")
    add("--runs", type=int, default=5, help="timings of each side (5)")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


def _features(frozen: FrozenBackbone, source: str, count: int) -> Tensor:
    faces = open_faces(source)
    rows = np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int)
    batches = np.array_split(rows, max(1, len(rows) // CHUNK))
    images = (np.stack([faces.read(int(row)) for row in batch]) for batch in batches)
    return torch.cat([frozen(torch.from_numpy(batch)).features for batch in images])


_MEASURES = ("spearman", "mean_ratio", "sd_ratio")


def _agreement(frozen: FrozenBackbone, features: Tensor, passes: int) -> list[dict[str, Any]]:
    """Compare with two independent halves of `passes` each, joined."""
    halves = [_sampled(frozen, features, passes, seed) for seed in (101, 102)]
    truth = np.sqrt(np.mean(np.square(halves), axis=0))
    reliability = _rank(*halves)
    ceiling = (2 * reliability / (1 + reliability)) ** 0.5  # Spearman-Brown
    reference = f"reference of 2 x {passes} passes"
    table: list[dict[str, Any]] = [
        {"row": f"{reference}, half against half", **_measures(*halves)},
        {"row": "what a perfect score would have against it, about", "spearman": ceiling},
    ]
    for count in (25, PASSES):
        runs = [_measures(_sampled(frozen, features, count, seed), truth) for seed in range(SEEDS)]
        mean = {key: statistics.mean(run[key] for run in runs) for key in _MEASURES}
        table.append({"row": f"sampled, T = {count} (mean of {SEEDS} seeds)", **mean})
    closed = MCDropout(frozen, form="closed_form").spread(features).cpu().numpy()
    table.append({"row": "closed form", **_measures(closed, truth)})
    return table


def _sampled(frozen: FrozenBackbone, features: Tensor, passes: int, seed: int) -> np.ndarray:
    estimator = MCDropout(frozen, passes=passes, rate=RATE, seed=seed)
    chunks = tqdm(
        features.split(CHUNK), f"{passes} passes", leave=False, disable=None, unit="chunk"
    )
    return torch.cat([estimator.spread(chunk) for chunk in chunks]).cpu().numpy()


def _against_exact(linear: FrozenBackbone, features: Tensor) -> dict[str, Any]:
    """Compare the estimate of a linear tail's covariance norm with the exact one."""
    weight, bias = linear.backbone.tail_affine()
    found = DropoutSpread(weight, bias)(features).cpu().numpy()
    exact = DropoutSpread(weight, bias, probes=None)(features).cpu().numpy()
    name = f"closed form of the random tail against its exact trace, {len(features)} images"
    return {"row": name, **_measures(found, exact)}


def _measures(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    ratio = found / truth
    return {
        "spearman": _rank(found, truth),
        "mean_ratio": float(ratio.mean()),
        "sd_ratio": float(ratio.std()),
    }


def _rank(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)


def _timings(name: str, frozen: FrozenBackbone, features: Tensor, runs: int) -> dict[str, Any]:
    sampled, closed = MCDropout(frozen, PASSES, RATE), MCDropout(frozen, form="closed_form")
    sides: dict[str, Callable[[], Tensor]] = {
        "plain loop": lambda: _plain_loop(frozen, features).cpu(),
        "sampled": lambda: sampled.spread(features).cpu(),
        "closed form": lambda: closed.spread(features).cpu(),
    }
    seconds = compare(sides, runs, frozen.device)
    found = {side: value * 1e3 / len(features) for side, value in seconds.items()}
    size = f"{frozen.features_size} -> {frozen.embedding_size}"
    return {
        "tail": f"{name}, {size}",
        **found,
        "sampled / closed form": found["sampled"] / found["closed form"],
        "plain loop / closed form": found["plain loop"] / found["closed form"],
    }


@torch.no_grad()
def _plain_loop(frozen: FrozenBackbone, features: Tensor) -> Tensor:
    passes = [frozen.backbone.tail(F.dropout(features, RATE)) for _ in range(PASSES)]
    return cosine_std(torch.stack(passes, 1))


if __name__ == "__main__":
    sys.exit(main())
