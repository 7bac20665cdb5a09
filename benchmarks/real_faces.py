"""Every method on one identity-labelled set: FNMR after discarding, and AUERC30 against random.

python benchmarks/real_faces.py --faces lfw_dev --runs runs/mbf_idq_lfw runs/mbf_pcnet_lfw \
    --scores lightqnet=lightqnet_dm100.npz --mc_dropout sampled closed_form --json table.json

All mated pairs against a seeded sample of the non-mated ones, one threshold per FMR, mated pairs
discarded by the larger uncertainty of their two images. The embedding norm is always a row; runs of
one config that differ in their seed share a row, which has the mean and the spread of AUERC30.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.faces import Faces, open_faces
from evaluation.estimators.from_file import FromFile
from evaluation.sets.identity_pairs import (
    DISCARDS,
    RelativeEdc,
    mated_pairs,
    non_mated_pairs,
    relative_edc,
    scores_of,
)
from mc_dropout.estimator import MCDropout
from models.run import Run, load_run
from models.uncertainty import to_scalar, to_sigma_sq

FMRS = (1e-3, 1e-4)
BATCH = 64

Rows = dict[str, list[NDArray[np.float32]]]


@dataclass(frozen=True)
class Pairs:
    """Which rows are compared, and their scores."""

    mated: NDArray[np.int64]
    mated_scores: NDArray[np.float32]
    non_mated_scores: NDArray[np.float32]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; the exit code is 0."""
    args = _parser().parse_args(argv)
    faces = open_faces(args.faces)
    runs = [load_run(path, device=args.device, precision="fp32") for path in args.runs]
    if len({run.config.backbone_weights for run in runs}) > 1:
        raise ValueError("the runs have several backbones; one table compares heads of one")
    spreads = [MCDropout(runs[0].frozen, form=form) for form in args.mc_dropout]
    mu, rows = _estimates(faces, runs, spreads)
    rows.update(_stored_scores(args.scores, faces))
    pairs = _pairs(faces, mu, args)
    table = {name: _measure(pairs, values) for name, values in rows.items()}
    _print(pairs, table)
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Uncertainty methods side by side on one set.")
    add = parser.add_argument
    add("--faces", required=True, help="folder, list file or .rec pack with identities")
    add("--runs", required=True, nargs="+", help="run folders on one backbone")
    add("--scores", nargs="*", default=[], metavar="NAME=FILE", help="qualities of other tools")
    add("--mc_dropout", nargs="*", default=[], choices=["sampled", "closed_form"])
    add("--non_mated", type=int, default=3_000_000, help="non-mated pairs (3 000 000)")
    add("--cap", type=int, default=200, help="mated pairs per identity at most; 0 for all (200)")
    add("--seed", type=int, default=0, help="of the samples of pairs")
    add("--device", default="auto")
    add("--json", help="write the numbers here")
    return parser


@torch.no_grad()
def _estimates(
    faces: Faces, runs: list[Run], spreads: list[MCDropout]
) -> tuple[NDArray[np.float32], Rows]:
    """Return embeddings (N, D) and uncertainties (N,), from one pass of the backbone over all."""
    mu: list[NDArray[np.float32]] = []
    parts: list[list[Tensor]] = []
    for start in tqdm(range(0, len(faces), BATCH), leave=False, disable=None):
        rows = range(start, min(start + BATCH, len(faces)))
        output = runs[0].frozen(torch.from_numpy(np.stack([faces.read(row) for row in rows])))
        mu.append(output.embedding.cpu().numpy())
        heads = [to_sigma_sq(run.head(output), run.head.output) for run in runs]
        parts.append(
            [
                -output.embedding.norm(dim=1),
                *(to_scalar(sigma_sq) for sigma_sq in heads),
                *(spread.spread(output.features) for spread in spreads),
            ]
        )
    names = [
        "embedding_norm",
        *(run.config.name for run in runs),
        *(spread.name for spread in spreads),
    ]
    found: Rows = defaultdict(list)
    for name, column in zip(names, zip(*parts, strict=True), strict=True):
        found[name].append(torch.cat(column).cpu().numpy())
    return np.concatenate(mu), found


def _pairs(faces: Faces, mu: NDArray[np.float32], args: argparse.Namespace) -> Pairs:
    mated = mated_pairs(faces.labels, args.cap or None, args.seed)
    non_mated = non_mated_pairs(faces.labels, args.non_mated, args.seed)
    return Pairs(mated, scores_of(mu, mated), scores_of(mu, non_mated))


def _stored_scores(assignments: list[str], faces: Faces) -> Rows:
    keys = [faces.name(row).rpartition(" ")[2] for row in range(len(faces))]
    files = dict(assignment.split("=", 1) for assignment in assignments)
    return {name: [FromFile(path=file).uncertainty_of(keys)] for name, file in files.items()}


def _measure(pairs: Pairs, seeds: list[NDArray[np.float32]]) -> dict[str, Any]:
    first, second = pairs.mated.T
    row: dict[str, Any] = {"seeds": len(seeds)}
    for fmr in FMRS:
        curves = [
            relative_edc(
                pairs.mated_scores, np.maximum(u[first], u[second]), pairs.non_mated_scores, fmr
            )
            for u in seeds
        ]
        row[f"{fmr:g}"] = _summary(curves)
    return row


def _summary(curves: list[RelativeEdc]) -> dict[str, Any]:
    areas = [curve.auerc30 for curve in curves]
    return {
        "fnmr": np.mean([curve.fnmr for curve in curves], axis=0).tolist(),
        "auerc30": float(np.mean(areas)),
        "auerc30_each": areas,
        "optimum": curves[0].optimum,
        "realised_fmr": f"{curves[0].point.false_matches}/{curves[0].point.non_mated}",
    }


def _print(pairs: Pairs, table: dict[str, dict[str, Any]]) -> None:
    print(f"{len(pairs.mated)} mated and {len(pairs.non_mated_scores)} non-mated pairs")
    for fmr in FMRS:
        key = f"{fmr:g}"
        first = next(iter(table.values()))[key]
        realised, optimum = first["realised_fmr"], first["optimum"]
        print(f"\nFMR {key} (realised {realised}; the best order has AUERC30 {optimum:.3f})")
        heads = " | ".join(f"{share:.0%}" for share in DISCARDS)
        print(f"| method | FNMR at discard {heads} | AUERC30 / random | per seed |")
        print("|" + " --- |" * (len(DISCARDS) + 3))
        for name, row in table.items():
            values = row[key]
            rates = " | ".join(f"{rate:.4f}" for rate in values["fnmr"])
            each = " ".join(f"{area:.3f}" for area in values["auerc30_each"])
            print(f"| {name} | {rates} | {values['auerc30']:.3f} | {each} |")


if __name__ == "__main__":
    sys.exit(main())
