"""Fitting a fusion: members' uncertainties of labelled faces, their weights, the file.

For evaluation/fit_fusion.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.labelled_pairs import mated_pairs, non_mated_pairs
from estimators.base import Estimate, EstimatorGroup
from estimators.fusion import (
    FusionModel,
    fit_monotone,
    fit_rank_mean,
    open_members,
    save_fusion,
)
from estimators.trained_head import head_hashes
from evaluation.embed import embed_images
from evaluation.metrics.thresholds import operating_point
from evaluation.open_model import kind_of, open_model
from evaluation.sets.labelled import scores_of
from evaluation.sets.open_set import LabelledSet, open_set
from utils.config import Precision

FILE_NAME = "fusion.json"
_NON_MATED = 1_000_000
_SCALE = 16.0  # steepness of a pair's target, as in the loss IDQ


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """What is fused, and on which faces; the flags of the script."""

    model: str
    faces: str
    of: Sequence[str]
    how: str
    fmr: float
    cap: int
    out: str | None
    checkpoint: str
    backbone_weights: str | None
    batch_size: int
    device: str
    precision: Precision


def fit_fusion(options: FusionOptions) -> str:
    """Fit and write a fusion; returns what it is, in lines for people.

    Raises:
        ValueError: a model without a trained head, members that cannot be joined, or no faces.
    """
    if not options.out and kind_of(options.model)[0] != "run":
        raise ValueError(f"give --out FILE.json: {options.model} is not a folder to put it into")
    out = Path(options.out or Path(options.model) / FILE_NAME)
    faces = open_set(f"faces:{options.faces}")
    assert isinstance(faces, LabelledSet)
    model = open_model(
        options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=options.precision,
        backbone_weights=options.backbone_weights,
        calibrated=False,
    )
    if model.frozen is None or model.head is None:
        raise ValueError(
            f"{options.model} has no trained head: name a run folder or a packed model"
        )
    backbone = model.provenance.backbone_sha256
    names = [_relative(text, out.parent) for text in options.of]
    members = open_members(
        names, frozen=model.frozen, head=model.head, folder=out.parent, backbone=backbone
    )
    files = {"backbone": backbone, **head_hashes(members)}
    group = EstimatorGroup(members)
    estimate = embed_images(group, faces.images, options.batch_size, name=faces.name)
    fusion = (
        fit_rank_mean(estimate.sigma_sq, names, files)
        if options.how == "ranks"
        else _fitted(estimate, faces.labels, names, files, options)
    )
    save_fusion(fusion, out)
    return f"{_report(fusion)}wrote {out}\n"


def _relative(text: str, folder: Path) -> str:
    """A run folder as the fusion's file names it: relative to the file's own folder."""
    return os.path.relpath(text, folder) if Path(text).is_dir() else text


def _fitted(
    estimate: Estimate,
    labels: NDArray[np.int64],
    names: Sequence[str],
    files: dict[str, str],
    options: FusionOptions,
) -> FusionModel:
    pairs = mated_pairs(labels, options.cap)
    others = scores_of(estimate.mu, non_mated_pairs(labels, _NON_MATED))
    scores = scores_of(estimate.mu, pairs)
    margin = scores - np.float32(
        operating_point(scores, others, "conservative", options.fmr).threshold
    )
    target = 1 / (1 + np.exp(-_SCALE * margin.astype(np.float64)))
    return fit_monotone(estimate.sigma_sq, names, pairs, target, files)


def _report(model: FusionModel) -> str:
    width = max(map(len, model.members))
    lines = [f"fusion of {len(model.members)} members, ranks among {model.images} images\n"]
    for name, weight in zip(model.members, model.weights, strict=True):
        lines.append(f"  {name:<{width}}  weight {weight:.3f}\n")
    return "".join(lines)
