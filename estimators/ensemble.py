"""Heads that differ in their seeds alone, as one: their mean, and how far they disagree.

Lakshminarayanan et al., NeurIPS 2017, arXiv 1612.01474.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, xlogy

from estimators.base import Batch, Estimate
from estimators.trained_head import head_of_run, in_eval_mode
from models.frozen import FrozenBackbone
from models.run import branch_folders
from models.seeds import seed_groups
from utils.config import from_json
from utils.files import DAMAGE, naming

__all__ = ["Ensemble"]

Of = Literal["mean", "disagreement"]


class Ensemble:
    """One forward pass of the backbone, and one of each head of a group of seeds.

    "mean": the mean over members of the probability or the variance. The members share the
    embedding, so a mean of variances is the variance of the mixture of their Gaussians.

    "disagreement": for probabilities, the mutual information of outcome and member,
    H(mean p) - mean H(p), in nats. For variances, the variance over members of the log variance,
    averaged over dimensions: 4 times that information of the Gaussians, as far as members are
    close.

    Args:
        runs: `RUN/GROUP`, as in `runs/mbf_all_lfw/idq` for its branches idq-0, idq-1, ...; or `RUN`
            alone, if its branches are one group.
        frozen: the backbone.
        backbone_sha256: of its weights file.
        of: "mean" or "disagreement".

    Raises:
        ValueError: no such run or group, or one of another backbone.
    """

    name = "ensemble"

    def __init__(
        self, *, runs: str, frozen: FrozenBackbone, backbone_sha256: str, of: Of = "mean"
    ) -> None:
        if of not in get_args(Of):
            raise ValueError(f"ensemble: of = {of!r}: must be one of {', '.join(get_args(Of))}")
        self.frozen, self.of = frozen, of
        folders = group_folders(runs)
        self.heads = [head_of_run(folder, frozen, backbone_sha256) for folder in folders]
        self.output = self.heads[0].output
        self.gives_variances = of == "mean" and self.output == "variance"

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has the heads' columns, or one."""
        output = batch.output(self.frozen)
        raws = []
        for head in self.heads:
            with in_eval_mode(head):
                raws.append(head(output).float().cpu().numpy())
        join = mean_of if self.of == "mean" else disagreement_of
        joined = join(np.stack(raws).astype(np.float64), self.output)
        return Estimate(output.embedding.cpu().numpy(), joined.astype(np.float32))


def mean_of(raws: NDArray[np.float64], output: str) -> NDArray[np.float64]:
    """Return the mean probability or variance (B, d) of (M, B, d) logits or log variances."""
    each = expit(raws) if output == "probability" else np.exp(raws)
    return np.asarray(each.mean(axis=0))


def disagreement_of(raws: NDArray[np.float64], output: str) -> NDArray[np.float64]:
    """Return how far M members differ, (B, 1), from (M, B, d); see `Ensemble`."""
    if output == "variance":
        return np.asarray(raws.var(axis=0).mean(axis=1, keepdims=True))
    both = expit(raws), expit(-raws)  # 1 - p would lose small values
    gains = [xlogy(p, p).mean(axis=0) - xlogy(p.mean(axis=0), p.mean(axis=0)) for p in both]
    return np.maximum(sum(gains, np.zeros(raws.shape[1:])), 0)


def group_folders(text: str) -> list[Path]:
    """Return the run folders of the members of `RUN/GROUP`.

    Raises:
        ValueError: no such run, no such group, or several where none is named.
    """
    path = Path(text)
    run, name = (path, "") if path.is_dir() else (path.parent, path.name)
    folders = {folder.name: folder for folder in branch_folders(run)}
    groups: dict[str, tuple[str, ...]] = {}
    if folders:
        file = run / "config.json"
        with naming(file, *DAMAGE):
            config = from_json(file.read_text(encoding="utf-8"))
        groups = {group.name: group.members for group in seed_groups(config.heads)}
    chosen = name or next(iter(groups), "")
    if chosen not in groups or (not name and len(groups) > 1):
        known = ", ".join(groups) or "none"
        raise ValueError(
            f"ensemble: runs = {text!r}: expected RUN/GROUP, a run of network.py and branches of "
            f"it that differ in their seeds alone (groups in {run}: {known})"
        )
    return [folders[member] for member in groups[chosen]]
