"""Fitting a fusion, or an estimator of the kind `Fitted`, on faces, and writing its file.

For evaluation/fit_fusion.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.labelled_pairs import mated_pairs, non_mated_pairs
from estimators.base import (
    Batch,
    Estimate,
    EstimatorGroup,
    Fitted,
    estimator_names,
    models_of,
    save_fit,
)
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
from evaluation.open_model import LoadedModel, kind_of, open_model
from evaluation.sets.labelled import scores_of
from evaluation.sets.open_set import LabelledSet, open_set
from models.frozen import FrozenBackbone
from utils.config import Precision
from utils.methods import find

FILE_NAME = "fusion.json"
_NON_MATED = 1_000_000
_SCALE = 16.0  # steepness of a pair's target, as in the loss IDQ


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """What is fused, and on which faces; the flags of the script."""

    model: str
    faces: str
    of: Sequence[str] | None
    fit: str | None
    how: str
    fmr: float
    cap: int
    out: str | None
    checkpoint: str
    backbone_name: str | None
    backbone_weights: str | None
    batch_size: int
    device: str
    precision: Precision


def fit_fusion(options: FusionOptions) -> str:
    """Fit and write a fusion or another estimator; returns what it is, in lines for people.

    Raises:
        ValueError: a model without a backbone in PyTorch, nothing that can be fitted, members that
            cannot be joined, or no faces.
    """
    if not options.out and kind_of(options.model)[0] != "run":
        raise ValueError(f"give --out FILE: {options.model} is not a folder to put it into")
    file_name = f"{options.fit}.npz" if options.fit else FILE_NAME
    out = Path(options.out or Path(options.model) / file_name)
    if options.fit:
        fitted_class(options.fit)
    faces = open_set(f"faces:{options.faces}")
    assert isinstance(faces, LabelledSet)
    model = open_model(
        options.model,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=options.precision,
        backbone_name=options.backbone_name,
        backbone_weights=options.backbone_weights,
        calibrated=False,
    )
    if model.frozen is None:
        raise ValueError(
            f"{options.model} has no trained head: name a run folder or a packed model"
        )
    if options.fit:
        return _fit_estimator(model, model.frozen, faces, out, options)
    assert options.of is not None
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


def fitted_class(name: str) -> type[Fitted]:
    """Return an estimator that is fitted; ValueError, with those there are, for any other."""
    known = [text for text in estimator_names() if text != "fusion"]
    kinds = {text: find("estimators", text) for text in known}
    fitted = {text: kind for text, kind in kinds.items() if issubclass(kind, Fitted)}
    if name not in fitted:
        raise ValueError(f"--fit {name}: takes {', '.join(fitted)} (for a fusion, give --of)")
    return fitted[name]


@dataclass
class _Rows:
    """Stands for an estimator, for `embed_images`: its uncertainties are what a fit needs."""

    name: str
    frozen: FrozenBackbone
    rows: Callable[[Batch], NDArray[np.float32]]

    def __call__(self, batch: Batch) -> Estimate:
        return Estimate(batch.output(self.frozen).embedding.cpu().numpy(), self.rows(batch))


def _fit_estimator(
    model: LoadedModel,
    frozen: FrozenBackbone,
    faces: LabelledSet,
    out: Path,
    options: FusionOptions,
) -> str:
    assert options.fit is not None
    kind = fitted_class(options.fit)

    def over_faces(rows: Callable[[Batch], NDArray[np.float32]]) -> NDArray[np.float32]:
        stand_in = _Rows(kind.name, frozen, rows)
        return embed_images(stand_in, faces.images, options.batch_size, name=faces.name).sigma_sq

    arrays = kind.fit(over_faces, frozen, model.head)
    head = head_hashes({"head": model.estimator}).get("head", "") if kind.reads_head else ""
    models = models_of(frozen, model.provenance.backbone_sha256, head)
    save_fit(out, kind.name, arrays, models, len(faces.images))
    return f"{kind.name} of {len(faces.images)} images\nwrote {out}\n"


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
