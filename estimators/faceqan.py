"""FaceQAN: how stable an embedding is when noise is aimed at it.

Babnik, Peer, Struc, ICPR 2022, arXiv 2212.02127; written from the paper's description.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from estimators.base import Batch, Estimate
from models.backbones.base import cosine_distance
from models.frozen import FrozenBackbone

__all__ = ["FaceQAN"]

_ROWS = {"cpu": 16}  # noisy copies at a time; a gradient keeps all activations in memory
_MOST_ROWS = 256


class FaceQAN:
    """Uncertainty = 1 - q in 0..1, with q = ( (1 + mean S) / 2 * max(0, 1 - std S) * f )^exponent.

    Each of `passes` noisy copies starts from uniform noise within epsilon of the image and moves
    `steps - 1` times by epsilon times the sign of the gradient, away from the image's own embedding
    (the basic iterative method). S holds the cosines to that embedding of all copies at all `steps`
    places; f is the cosine of the embeddings of the image and its mirror image (below 0 counts as
    0), which stands for pose.

    Noise comes from a generator of this object's seed, on the CPU, and is shared by all images, so
    a value depends on the image and not on the batch (up to rounding). Float32 without autocast.

    Cost: passes x steps forward and passes x (steps - 1) backward passes of the backbone per image,
    by far the most expensive score here.

    Args:
        passes: noisy copies of each image (the paper's k).
        steps: places at which each copy is compared (the paper's l).
        epsilon: size of the noise and of a step, where 1 is the range from black to white.
        exponent: spreads the values (the paper's p).
        symmetry: False leaves f out.
        seed: of the noise.
    """

    name = "faceqan"

    def __init__(
        self,
        *,
        frozen: FrozenBackbone,
        passes: int = 10,
        steps: int = 5,
        epsilon: float = 0.001,
        exponent: float = 5.0,
        symmetry: bool = True,
        seed: int = 0,
    ) -> None:
        for option, value in (("passes", passes), ("steps", steps)):
            if value < 1:
                raise ValueError(f"{option} = {value}: must be at least 1")
        if not 0 < epsilon < 1:
            raise ValueError(f"epsilon = {epsilon}: must be above 0 and below 1")
        if not exponent > 0:
            raise ValueError(f"exponent = {exponent}: must be above 0")
        frozen.require_gradients(self.name)
        self.frozen, self.passes, self.steps, self.epsilon = frozen, passes, steps, epsilon
        self.exponent, self.symmetry, self.seed = exponent, symmetry, seed
        self._noise: Tensor | None = None

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column."""
        images = torch.from_numpy(np.ascontiguousarray(batch.images))
        plain = batch.output(self.frozen).embedding
        rows = _ROWS.get(self.frozen.device.type, _MOST_ROWS)
        parts = images.split(max(1, rows // self.passes))
        distance = torch.cat([self._distances(part) for part in parts])
        lost = [distance.mean(1) / 2, distance.std(1, correction=0)]
        if self.symmetry:
            mirrored = batch.mirrored().output(self.frozen).embedding
            lost.append(cosine_distance(plain, mirrored))
        # 1 - q from its logarithm: most values are small, and 1 - (1 - small) has few digits.
        log_q = self.exponent * torch.log1p(-torch.stack(lost).clamp(max=1)).sum(0)
        return Estimate(plain.cpu().numpy(), -torch.expm1(log_q)[:, None].cpu().numpy())

    def _distances(self, images: Tensor) -> Tensor:
        """Return 1 - cosine of each image to its copies, (B, steps * passes)."""
        levels = images.to(self.frozen.device).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            own = self._embed(levels).repeat_interleave(self.passes, 0)
        copies = levels[:, None] + 255 * self.epsilon * self._draw(levels)
        copies = copies.flatten(0, 1).clamp_(0, 255)
        distances = []
        for step in range(self.steps):
            last = step == self.steps - 1
            with torch.set_grad_enabled(not last):
                copies.requires_grad_(not last)
                distance = cosine_distance(own, self._embed(copies))
                if not last:
                    (gradient,) = torch.autograd.grad(distance.sum(), copies)
            distances.append(distance.detach().unflatten(0, (len(images), self.passes)))
            if not last:
                moved = copies.detach() + 255 * self.epsilon * gradient.sign()
                copies = moved.clamp_(0, 255)
        return torch.cat(distances, dim=1)

    def _embed(self, levels: Tensor) -> Tensor:
        normalised = self.frozen.preprocessing(levels)
        embedding: Tensor = self.frozen.backbone(
            normalised.contiguous(memory_format=torch.channels_last)
        ).embedding
        return embedding

    def _draw(self, levels: Tensor) -> Tensor:
        """Return the noise of all copies in -1..1, (passes, 3, H, W), the same at every call."""
        if self._noise is None:
            generator = torch.Generator().manual_seed(self.seed)
            noise = torch.rand((self.passes, *levels.shape[1:]), generator=generator)
            self._noise = (2 * noise - 1).to(levels.device)
        return self._noise
