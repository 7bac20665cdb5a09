"""Several uncertainties of an image as one: the weighted mean of their ranks.

Members err on different images, so their mean is often better than the best of them. Ranks are
taken among stored reference images, so one image alone gets an answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from estimators.base import Batch, Estimate, EstimatorGroup
from estimators.fusing.fit import load_fusion
from estimators.fusing.members import head_hashes, open_members, require_same
from models.frozen import FrozenBackbone
from models.heads.base import Head

__all__ = ["Fusion"]


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
