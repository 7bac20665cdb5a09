"""Several estimators over one backbone as one: a column of uncertainty for each.

So a comparison of methods decodes and embeds every image once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from estimators.base import Estimate
from evaluation.metrics.scores import harmonic_mean
from models.frozen import FrozenBackbone

if TYPE_CHECKING:
    from estimators.base import Estimator


class Several:
    """Estimators that share a frozen backbone.

    Args:
        frozen: the backbone that they share.
        members: name -> estimator; the first one's embeddings are given.

    Attributes:
        name: all their names.
    """

    reads_rows = True

    def __init__(self, frozen: FrozenBackbone, members: Mapping[str, Estimator]) -> None:
        self.frozen, self.members = frozen, dict(members)
        self.name = "+".join(self.members)

    def use_names(self, names: Iterable[str] | None) -> None:
        """Hand the images' names to the members that want them."""
        kept = None if names is None else list(names)
        for member in self.members.values():
            if (use_names := getattr(member, "use_names", None)) is not None:
                use_names(kept)

    def __call__(self, images: NDArray[np.uint8], start: int = 0) -> Estimate:
        """Estimate for (B, 112, 112, 3) RGB images; sigma_sq has one column per member."""
        with self.frozen.remembering():
            found = [self._one(member, images, start) for member in self.members.values()]
        columns = [one.sigma_sq if one.sigma_sq.shape[1] == 1 else _joined(one) for one in found]
        return Estimate(found[0].mu, np.concatenate(columns, axis=1))

    @staticmethod
    def _one(member: Estimator, images: NDArray[np.uint8], start: int) -> Estimate:
        if getattr(member, "reads_rows", False):
            return member(images, start)  # type: ignore[call-arg]
        return member(images)


def _joined(estimate: Estimate) -> NDArray[np.float32]:
    return harmonic_mean(estimate.sigma_sq)[:, None]
