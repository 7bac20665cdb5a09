"""Several uncertainties of an image as one: the weighted mean of their ranks.

Members err on different images, so their mean is often better than the best of them. Ranks are
taken among stored reference images, so one image alone gets an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from estimators.base import Estimate
from estimators.fusing.fit import load_fusion
from estimators.fusing.members import head_hashes, open_members, require_same
from models.frozen import FrozenBackbone
from models.heads.base import Head

__all__ = ["Fusion"]


class Fusion:
    """What `evaluation/fit_fusion.py` fitted, over one forward pass per batch.

    Args:
        reference: the fusion's file, JSON; run folders in it are relative to its own folder.
        frozen: the backbone.
        head: of the member `trained_head`; None takes that of the run in the file's folder.

    Raises:
        ValueError: no such file, or members that are not those it was fitted on.
    """

    name = "fusion"
    reads_rows = True

    def __init__(self, *, reference: str, frozen: FrozenBackbone, head: Head | None = None) -> None:
        self.model = load_fusion(reference)
        try:
            self.members = open_members(
                self.model.members,
                frozen=frozen,
                head=head,
                folder=Path(reference).parent,
                backbone=self.model.files.get("backbone", ""),
            )
        except ValueError as error:
            raise ValueError(f"{reference}: {error}") from error
        require_same(self.model.files, head_hashes(self.members), reference)

    def use_names(self, names: Iterable[str] | None) -> None:
        """Hand the images' names to the members that want them."""
        self.members.use_names(names)

    def __call__(self, images: NDArray[np.uint8], start: int = 0) -> Estimate:
        """Estimate for (B, 112, 112, 3) RGB images; sigma_sq has one column, about 0 to 1."""
        found = self.members(images, start)
        fused = self.model(found.sigma_sq).astype(np.float32)
        return Estimate(found.mu, fused[:, None])
