"""How unlike the training faces a face is, to the backbone: a Mahalanobis distance of its features.

Lee et al., NeurIPS 2018, arXiv 1807.03888, with one Gaussian for all people, since the people of
tomorrow are none of the training's classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.base import Batch, Estimate, Fitted, OverFaces, models_of
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import Head
from utils.arrays import Array

__all__ = ["Typicality"]


class Typicality(Fitted):
    """Uncertainty = sqrt((x - m)' S^-1 (x - m)) for averages x (k,) of channels of one pass.

    They are those of the backbone's stages; where it has none, those of the feature map, which
    see much less. m is the mean of x over the faces of the fit and S its covariance, shrunk as
    Ledoit and Wolf (2004) have it. The larger, the less those faces say about this one.

    Args:
        reference: file of evaluation/fit_fusion.py --fit typicality.
        frozen: the backbone.
        backbone_sha256: of its weights file.

    Raises:
        ValueError: no such file, or one of another backbone.
    """

    name = "typicality"

    def __init__(self, *, reference: str, frozen: FrozenBackbone, backbone_sha256: str) -> None:
        self.frozen, self._size = frozen, channels_read(frozen)
        arrays = self.load(reference, models_of(frozen, backbone_sha256))
        self.mean, self.whiten = (
            torch.from_numpy(arrays[name].astype(np.float32)).to(frozen.device)
            for name in ("mean", "whiten")
        )

    @classmethod
    def fit(
        cls, over_faces: OverFaces, frozen: FrozenBackbone, head: Head | None
    ) -> dict[str, Array]:
        """Return `mean` (k,) and `whiten` (k, k), W W' = S^-1."""
        channels_read(frozen)
        x = over_faces(lambda batch: averages(batch.output(frozen), frozen).cpu().numpy())
        values, vectors = np.linalg.eigh(shrunk_covariance(x))
        whiten = vectors / np.sqrt(values)
        return {"mean": x.mean(axis=0, dtype=np.float64), "whiten": whiten}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of `mean` and `whiten`."""
        return {"mean": (self._size,), "whiten": (self._size, self._size)}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column, 0 and above."""
        output = batch.output(self.frozen)
        distance = ((averages(output, self.frozen) - self.mean) @ self.whiten).norm(dim=1)
        return Estimate(output.embedding.cpu().numpy(), distance[:, None].cpu().numpy())


def channels_read(frozen: FrozenBackbone) -> int:
    """Return k, and have the backbone give its stages if it has any."""
    try:
        return sum(frozen.give_stages())
    except ValueError:  # it has none to give
        return frozen.features_shape[0]


def averages(output: BackboneOutput, frozen: FrozenBackbone) -> Tensor:
    """Return the averages (B, k) of a pass after `channels_read`."""
    if output.stages is not None:
        return output.stages
    return output.features.unflatten(1, frozen.features_shape).mean(dim=(2, 3))


def shrunk_covariance(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the covariance (C, C) of (N, C) rows, shrunk towards a multiple of the identity.

    Ledoit and Wolf, J. Multivariate Analysis 88 (2004), with the share that is best for these rows.

    Raises:
        ValueError: fewer than two rows, or rows that are all the same.
    """
    centred = x - x.mean(axis=0, dtype=np.float64)
    count, size = centred.shape
    if count < 2 or not centred.any():
        raise ValueError(f"typicality: {count} faces with the same features have no covariance")
    sample = centred.T @ centred / count
    level = np.trace(sample) / size
    off = np.square(sample).sum() - size * level**2
    noise = (np.square(centred).sum(axis=1) ** 2).sum() / count**2 - np.square(sample).sum() / count
    share = float(np.clip(noise / off, 0, 1)) if off > 0 else 1.0
    return np.asarray((1 - share) * sample + share * level * np.eye(size), np.float64)
