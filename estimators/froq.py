"""FROQ: the lengths of maps inside the recogniser, at the layers that know quality.

After Babnik et al., IJCB 2025, arXiv 2509.17689.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from estimators.base import Batch, Estimate, Fitted, OverFaces, models_of
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import Head
from utils.arrays import Array

__all__ = ["FROQ"]

_NOISE = 10.0  # levels, standard deviation
_SHORTEST = 1e-6  # a map of length 0 has no logarithm


class FROQ(Fitted):
    """Uncertainty = minus the mean of log ||map|| over the chosen layers.

    From the paper: a layer's observation is the L2 norm of what it gives; layers are chosen once,
    greedily, by Spearman's correlation of their mean with a pseudo-quality of unlabelled faces; and
    that is the mean of the cosines of the embedding with those of three copies: mirrored, noisy,
    and with a grid of covered squares. It was re-derived from the published summary and the
    authors' description; we do not know their noise, grid or calibration faces.

    Ours: observers are the ends of the backbone's stages and the feature map, not every layer, so
    that one pass serves all estimators; the logarithm before the mean, because larger maps are
    longer and would outvote the others; noise of 10 levels and squares of 14 pixels.

    Args:
        reference: file of evaluation/fit_fusion.py --fit froq; a few hundred faces suffice.
        frozen: the backbone.
        backbone_sha256: of its weights file.

    Raises:
        ValueError: no such file, one of another backbone, or a backbone without stages.
    """

    name = "froq"

    def __init__(self, *, reference: str, frozen: FrozenBackbone, backbone_sha256: str) -> None:
        self.frozen, self._layers = frozen, len(frozen.give_stages()) + 1
        self.weights = self.load(reference, models_of(frozen, backbone_sha256))["weights"]

    @classmethod
    def fit(
        cls, over_faces: OverFaces, frozen: FrozenBackbone, head: Head | None
    ) -> dict[str, Array]:
        """Return `weights` (layers,): 1 / k for the k chosen ones, 0 for the others."""
        frozen.give_stages()

        def rows(batch: Batch) -> NDArray[np.float32]:
            output = batch.output(frozen)
            columns = [observations(output), pseudo_quality(output, frozen)[:, None]]
            return torch.cat(columns, dim=1).cpu().numpy()

        observed = over_faces(rows)
        return {"weights": chosen_layers(observed[:, :-1], observed[:, -1])}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return that of `weights`."""
        return {"weights": (self._layers,)}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column."""
        output = batch.output(self.frozen)
        quality = observations(output).cpu().numpy() @ self.weights
        return Estimate(output.embedding.cpu().numpy(), -quality[:, None].astype(np.float32))


def observations(output: BackboneOutput) -> Tensor:
    """Return the log lengths (B, layers) of the stages' maps and of the feature map."""
    assert output.lengths is not None
    lengths = torch.cat([output.lengths, output.features.norm(dim=1, keepdim=True)], dim=1)
    return lengths.clamp_min(_SHORTEST).log()


def pseudo_quality(output: BackboneOutput, frozen: FrozenBackbone) -> Tensor:
    """Return the mean cosine (B,) of the embedding with those of three changed copies."""
    assert output.images is not None
    levels = output.images.permute(0, 3, 1, 2).float()
    noise = torch.randn(1, *levels.shape[1:], generator=torch.Generator().manual_seed(0))
    cell = torch.arange(levels.shape[2], device=levels.device) // 14 % 2 == 1
    copies = (
        levels.flip(3),
        (levels + _NOISE * noise.to(levels.device)).clamp(0, 255),
        levels.masked_fill(cell[:, None] & cell, 127.5),
    )
    cosines = [torch.cosine_similarity(output.embedding, frozen(copy).embedding) for copy in copies]
    return torch.stack(cosines).mean(dim=0)


def chosen_layers(observed: NDArray[np.floating], quality: NDArray[np.floating]) -> Array:
    """Return weights (L,) of the layers of (N, L) whose mean follows (N,) best, found greedily.

    Raises:
        ValueError: no layer's observations rise with the quality.
    """
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < observed.shape[1]:
        left = [layer for layer in range(observed.shape[1]) if layer not in chosen]
        means = {layer: observed[:, [*chosen, layer]].mean(axis=1) for layer in left}
        found = {layer: float(spearmanr(mean, quality)[0]) for layer, mean in means.items()}
        layer = max(found, key=lambda layer: found[layer])
        if not found[layer] > best:
            break
        best = found[layer]
        chosen.append(layer)
    if not chosen:
        raise ValueError(
            f"froq: no layer's length rises with the stability of {len(quality)} faces' embeddings"
        )
    weights = np.zeros(observed.shape[1])
    weights[chosen] = 1 / len(chosen)
    return weights
