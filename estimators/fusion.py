"""Several uncertainties of an image as one: a weighted mean of their ranks, its fit and its file.

Members err on different images, so their mean is often better than the best of them. Ranks are
taken among stored reference images, so one image alone gets an answer; their weighted mean is
monotone in every member. A member is an estimator, written as on the command line, or the folder of
a run of network.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from estimators.base import Batch, Estimate, Estimator, EstimatorGroup, build_estimator
from estimators.trained_head import TrainedHead, head_hashes, head_of_run
from models.frozen import FrozenBackbone
from models.heads.base import Head
from utils.config import parse_method
from utils.files import DAMAGE, naming, read_json, write_text

__all__ = ["Fusion"]

FORMAT = "face-uncertainty fusion"
VERSION = 1
_KNOTS = 257  # of a quantile table: 4 reference images in 1000 lie between two neighbours


class Fusion(EstimatorGroup):
    """What `evaluation/fit_fusion.py` fitted, over one forward pass per batch.

    Args:
        reference: the fusion's file, JSON; run folders in it are relative to its own folder.
        frozen: the backbone.
        head: of the member `trained_head`; None takes that of the run in the file's folder.

    Raises:
        ValueError: no such file, or members that are not those it was fitted on.
    """

    name = "fusion"

    def __init__(self, *, reference: str, frozen: FrozenBackbone, head: Head | None = None) -> None:
        self.model = load_fusion(reference)
        try:
            members = open_members(
                self.model.members,
                frozen=frozen,
                head=head,
                folder=Path(reference).parent,
                backbone=self.model.files.get("backbone", ""),
            )
        except ValueError as error:
            raise ValueError(f"{reference}: {error}") from error
        super().__init__(members)
        self.name = "fusion"
        require_same(self.model.files, head_hashes(self.members), reference)

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column, about 0 to 1."""
        estimate = super().__call__(batch)
        fused = self.model(estimate.sigma_sq).astype(np.float32)
        return Estimate(estimate.mu, fused[:, None])


def open_members(
    texts: Sequence[str],
    *,
    frozen: FrozenBackbone,
    head: Head | None,
    folder: Path,
    backbone: str,
) -> dict[str, Estimator]:
    """Open the members of a fusion, by name, over a backbone that a batch passes once.

    Args:
        texts: `embedding_norm`, `trained_head`, `ser_fiq:passes=50`, or a run folder.
        frozen: the backbone.
        head: of the member `trained_head`; None takes that of the run in `folder`.
        folder: from which relative run folders are taken.
        backbone: SHA-256 of the backbone's weights file.

    Raises:
        ValueError: a name that occurs twice, a fusion inside a fusion, an unknown estimator or
            option, a run on another backbone, or `trained_head` without a run.
    """
    members: dict[str, Estimator] = {}
    for text in texts:
        if text in members:
            raise ValueError(f"the fusion has the member {text!r} twice")
        if (folder / text).is_dir():
            own = head_of_run(folder / text, frozen, backbone)
            members[text] = TrainedHead(frozen=frozen, head=own)
            continue
        method = parse_method(text)
        if method.name == "fusion":
            raise ValueError("a fusion cannot be a member of a fusion: name its members")
        if method.name == "trained_head":
            own = head_of_run(folder, frozen, backbone) if head is None else head
            members[text] = TrainedHead(frozen=frozen, head=own)
        else:
            members[text] = build_estimator(method, frozen=frozen, backbone_sha256=backbone)
    return members


def require_same(stored: Mapping[str, str], hashes: Mapping[str, str], path: str) -> None:
    """Raise ValueError, with the member, for a head that the fusion was not fitted on."""
    for name, value in hashes.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{path}: member {name!r} has another head than the fusion was fitted with: fit it "
                "again with evaluation/fit_fusion.py, or name the run that it was fitted for"
            )


@dataclass(frozen=True)
class RankTable:
    """Where a value of one member stands among the reference images: (K,) points, ascending."""

    values: NDArray[np.float64]
    ranks: NDArray[np.float64]  # share of reference images below, half of the equal ones counted

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N,) ranks: 0 for the least uncertain reference image, 1 for the most uncertain one.

        Linear between the table's values. Beyond its ends ranks go on, by one for the table's whole
        range, so that two images which are both worse than every reference image keep their order.
        """
        values = np.asarray(values, np.float64)
        low, high = self.values[0], self.values[-1]
        span = high - low if high > low else 1.0
        inside = np.interp(values, self.values, self.ranks)
        beyond = np.maximum(values - high, 0) - np.maximum(low - values, 0)
        return np.asarray(inside + beyond / span, np.float64)


def rank_table(reference: NDArray[np.floating], name: str = "member") -> RankTable:
    """Sum a member's (N,) values on the reference images up in at most 257 points.

    Raises:
        ValueError: fewer than two different values, or one that is NaN or infinite.
    """
    values = np.asarray(reference, np.float64).ravel()
    bad = len(values) - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {len(values)} reference values are NaN or infinite")
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2:
        raise ValueError(
            f"{name}: its {len(values)} reference values are all the same: it says nothing; leave "
            "it out"
        )
    ranks = (np.cumsum(counts) - counts / 2) / len(values)
    if len(distinct) > _KNOTS:
        targets = np.linspace(ranks[0], ranks[-1], _KNOTS)
        knots = np.unique(np.searchsorted(ranks, targets).clip(0, len(ranks) - 1))
        distinct, ranks = distinct[knots], ranks[knots]
    return RankTable(distinct, ranks)


@dataclass(frozen=True, kw_only=True)
class FusionModel:
    """A weighted mean of the m members' ranks among the reference images.

    `files` has the SHA-256 of the weights that the members were computed with, by what it is of
    ("backbone", "trained_head", "run:...").
    """

    members: tuple[str, ...]  # as the command line writes them
    tables: tuple[RankTable, ...]
    weights: tuple[float, ...]  # at least 0, sum 1; all equal for the plain mean of ranks
    images: int  # of the reference
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.members) == len(self.tables) == len(self.weights) > 0:
            raise ValueError(
                f"a fusion of {len(self.members)} members has {len(self.tables)} tables and "
                f"{len(self.weights)} weights: need one of each, and at least one member"
            )
        if min(self.weights) < 0 or not np.isclose(sum(self.weights), 1, atol=1e-6):
            raise ValueError(f"weights {self.weights}: must be at least 0 and add up to 1")

    def __call__(self, columns: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N,) fused uncertainties, larger = less reliable, from (N, m) of the members.

        0 to 1 as long as every member stays within its reference images' values.

        Raises:
            ValueError: another number of columns.
        """
        if columns.ndim != 2 or columns.shape[1] != len(self.members):
            raise ValueError(
                f"columns of shape {columns.shape}: expected (N, {len(self.members)}), one for "
                f"each of {', '.join(self.members)}"
            )
        return rank_columns(columns, self.tables) @ np.asarray(self.weights)


def rank_columns(columns: NDArray[np.floating], tables: Sequence[RankTable]) -> NDArray[np.float64]:
    """(N, m) ranks of (N, m) values, each column by its own table."""
    return np.stack([table(columns[:, at]) for at, table in enumerate(tables)], axis=1)


def fit_rank_mean(
    columns: NDArray[np.floating], members: Sequence[str], files: Mapping[str, str] | None = None
) -> FusionModel:
    """Make the plain mean of ranks, which needs reference images but no identities.

    From (R, m) uncertainties of the reference images; `files` as in `FusionModel`.

    Raises:
        ValueError: see `rank_table`.
    """
    return FusionModel(
        members=tuple(members),
        tables=tuple(rank_table(columns[:, at], name) for at, name in enumerate(members)),
        weights=(1 / len(members),) * len(members),
        images=len(columns),
        files=dict(files or {}),
    )


def fit_monotone(
    columns: NDArray[np.floating],
    members: Sequence[str],
    pairs: NDArray[np.integer],
    target: NDArray[np.floating],
    files: Mapping[str, str] | None = None,
    shrink: float = 0.01,
) -> FusionModel:
    """Fit the weights so that the worse image of a mated pair predicts whether it matches.

    Minimises the mean cross-entropy between `target` and sigmoid(a - b max(r_i, r_j)) over pairs,
    r = weights . ranks, plus `shrink` times the squared distance of the weights from equal ones:
    the loss of IDQ (LightQNet, IEEE SPL 2021) on a model with m + 1 numbers. b and the weights are
    at least 0, so the result is monotone in every member.

    Args:
        columns: (R, m) uncertainties of the reference images.
        members: (m) names.
        pairs: (P, 2) rows of mated pairs.
        target: (P,) how well each pair matches, 0 (not at all) to 1.
        files: see `FusionModel`.
        shrink: pull towards equal weights, at least 0.

    Raises:
        ValueError: see `rank_table`; a target outside 0..1; or members of which none orders the
            pairs better than chance.
    """
    names = tuple(members)
    start = fit_rank_mean(columns, names, files)
    goal = np.asarray(target, np.float64)
    if not (np.isfinite(goal).all() and goal.min() >= 0 and goal.max() <= 1):
        raise ValueError("target: every value must lie in 0..1")
    sides = rank_columns(columns, start.tables)[pairs]
    first = np.concatenate([np.full(len(names), 1.0), [np.log(0.9 / 0.1)]])
    bounds = [(0.0, None)] * len(names) + [(None, None)]
    fit = minimize(
        _loss, first, args=(sides, goal, shrink), jac=True, bounds=bounds, method="L-BFGS-B"
    )
    slopes = fit.x[:-1]
    if slopes.sum() <= 1e-6:
        raise ValueError(
            f"none of {', '.join(names)} tells which of {len(pairs)} mated pairs match; take the "
            "plain mean of ranks"
        )
    weights = tuple((slopes / slopes.sum()).tolist())
    return replace(start, weights=weights)


def _loss(
    parameters: NDArray[np.float64],
    sides: NDArray[np.float64],
    target: NDArray[np.float64],
    shrink: float,
) -> tuple[float, NDArray[np.float64]]:
    """Value and gradient of what `fit_monotone` minimises; parameters are b * weights, then a."""
    slopes, offset = parameters[:-1], parameters[-1]
    each = sides @ slopes
    lower_quality = each.argmax(axis=1)
    logit = offset - each[np.arange(len(each)), lower_quality]
    wrong = expit(logit) - target
    ranks = sides[np.arange(len(each)), lower_quality]
    spread = slopes - slopes.mean()
    value = float(np.mean(np.logaddexp(0, logit) - target * logit) + shrink * spread @ spread)
    slope_gradient = -(wrong[:, None] * ranks).mean(axis=0) + 2 * shrink * spread
    return value, np.concatenate([slope_gradient, [wrong.mean()]])


def save_fusion(model: FusionModel, path: str | Path) -> None:
    """Write a fusion as JSON, which `load_fusion` reads back to the same numbers."""
    members = [
        dict(name=name, weight=weight, values=table.values.tolist(), ranks=table.ranks.tolist())
        for name, table, weight in zip(model.members, model.tables, model.weights, strict=True)
    ]
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "images": model.images,
        "files": dict(model.files),
        "members": members,
    }
    write_text(path, json.dumps(payload, indent=1, allow_nan=False) + "\n")


def load_fusion(path: str | Path) -> FusionModel:
    """Read what `save_fusion` wrote.

    Raises:
        ValueError: no such file, another format or version, or numbers that are not a fusion.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"no fusion file {path}: make one with evaluation/fit_fusion.py")
    with naming(file, *DAMAGE):
        return _parsed(read_json(file))


def _parsed(payload: Any) -> FusionModel:
    if payload["format"] != FORMAT or payload["version"] != VERSION:
        raise ValueError(
            f"format {payload['format']!r}, version {payload['version']!r}; this program reads "
            f"{FORMAT!r}, version {VERSION}: fit it again with evaluation/fit_fusion.py"
        )
    members = payload["members"]
    return FusionModel(
        members=tuple(str(member["name"]) for member in members),
        tables=tuple(_parsed_table(member) for member in members),
        weights=tuple(float(member["weight"]) for member in members),
        images=int(payload["images"]),
        files={str(key): str(value) for key, value in payload["files"].items()},
    )


def _parsed_table(member: Any) -> RankTable:
    values = np.asarray(member["values"], np.float64)
    ranks = np.asarray(member["ranks"], np.float64)
    fits = values.ndim == 1 and values.shape == ranks.shape and len(values) >= 2
    if not fits or not np.isfinite([values, ranks]).all():
        raise ValueError(
            f"member {member['name']}: values and ranks are not a table of finite numbers"
        )
    if (np.diff(values) <= 0).any() or (np.diff(ranks) <= 0).any():
        raise ValueError(f"member {member['name']}: values and ranks must ascend")
    return RankTable(values, ranks)
