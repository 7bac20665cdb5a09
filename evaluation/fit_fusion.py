"""Fit a fusion of several uncertainties on faces, and write it beside the head.

python evaluation/fit_fusion.py --model_dir runs/NAME --faces FOLDER --of trained_head \
    embedding_norm flip_disagreement
python evaluation/fit_fusion.py --model_dir runs/idq --faces FOLDER --of trained_head runs/pcnet

Then evaluate it as `--estimator fusion:reference=runs/NAME/fusion.json`. Takes one pass of the
members over the faces. Use people whom the heads were not trained on.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from estimators.base import Estimate, EstimatorGroup
from estimators.fusion import (
    FusionModel,
    fit_monotone,
    fit_rank_mean,
    head_hashes,
    open_members,
    save_fusion,
)
from evaluation.embed import embed_images
from evaluation.metrics.thresholds import operating_point
from evaluation.open_model import kind_of, open_model
from evaluation.sets.labelled import mated_pairs, non_mated_pairs, scores_of
from evaluation.sets.open_set import LabelledSet, open_set
from utils.cli import Parser, run_command

FILE_NAME = "fusion.json"
_NON_MATED = 1_000_000
_CAP = 200  # mated pairs per identity, so that nobody outweighs the rest
_SCALE = 16.0  # steepness of a pair's target, as in the loss IDQ


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and write a fusion; 0, or 2 when there is nothing to fit."""
    parser = Parser(description="Fuse several uncertainties into one.")
    add = parser.add_argument
    add(
        "--model",
        "--model_dir",
        required=True,
        help="run folder, branch RUN/BRANCH or packed model",
    )
    add("--faces", required=True, help="folder, list file or .rec pack of aligned faces")
    add(
        "--of",
        nargs="+",
        required=True,
        metavar="MEMBER",
        help="trained_head, embedding_norm, flip_disagreement, ... or run folders",
    )
    add(
        "--how", choices=["ranks", "model"], default="ranks", help="equal or fitted weights (ranks)"
    )
    add("--fmr", type=float, default=1e-3, help="model: FMR whose threshold pairs must pass (1e-3)")
    add("--out", help=f"file to write (RUN/{FILE_NAME})")
    add("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    add("--backbone_weights", help="the backbone's file, where it has moved")
    add("--batch_size", type=int, default=64, help="images per forward pass (64)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    args = parser.parse_args(argv)
    return run_command(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    out = _destination(args)
    faces = open_set(f"faces:{args.faces}")
    assert isinstance(faces, LabelledSet)
    model = open_model(
        args.model,
        checkpoint=args.checkpoint,
        device=args.device,
        precision=args.precision,
        backbone_weights=args.backbone_weights,
    )
    if model.frozen is None or model.head is None:
        raise ValueError(f"{args.model} has no trained head: name a run folder or a packed model")
    backbone = model.provenance.backbone_sha256
    names = [_relative(text, out.parent) for text in args.of]
    members = open_members(
        names, frozen=model.frozen, head=model.head, folder=out.parent, backbone=backbone
    )
    files = {"backbone": backbone, **head_hashes(members)}
    estimate = embed_images(EstimatorGroup(members), faces.images, args.batch_size, name=faces.name)
    fusion = (
        fit_rank_mean(estimate.sigma_sq, names, files)
        if args.how == "ranks"
        else _fitted(estimate, faces.labels, names, files, args.fmr)
    )
    save_fusion(fusion, out)
    sys.stdout.write(_report(fusion))
    sys.stdout.write(f"wrote {out}\n")
    return 0


def _destination(args: argparse.Namespace) -> Path:
    if not args.out and kind_of(args.model)[0] != "run":
        raise ValueError(f"give --out FILE.json: {args.model} is not a folder to put it into")
    return Path(args.out or Path(args.model) / FILE_NAME)


def _relative(text: str, folder: Path) -> str:
    """A run folder as the fusion's file names it: relative to the file's own folder."""
    return os.path.relpath(text, folder) if Path(text).is_dir() else text


def _fitted(
    estimate: Estimate,
    labels: NDArray[np.int64],
    names: Sequence[str],
    files: dict[str, str],
    fmr: float,
) -> FusionModel:
    pairs = mated_pairs(labels, _CAP)
    others = scores_of(estimate.mu, non_mated_pairs(labels, _NON_MATED))
    scores = scores_of(estimate.mu, pairs)
    margin = scores - np.float32(operating_point(scores, others, "conservative", fmr).threshold)
    target = 1 / (1 + np.exp(-_SCALE * margin.astype(np.float64)))
    return fit_monotone(estimate.sigma_sq, names, pairs, target, files)


def _report(model: FusionModel) -> str:
    width = max(map(len, model.members))
    lines = [f"fusion of {len(model.members)} members, ranks among {model.images} images\n"]
    for name, weight in zip(model.members, model.weights, strict=True):
        lines.append(f"  {name:<{width}}  weight {weight:.3f}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
