"""GraFIQs: how much a face's BatchNorm statistics differ from those of the training faces.

Kolf et al., CVPR Workshops 2024, arXiv 2404.12203; re-derived from the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from estimators.base import Batch, Estimate
from models.frozen import FrozenBackbone

__all__ = ["GraFIQs"]

At = Literal["image", "block1", "block2", "block3", "block4"]

_CHUNK = {"cpu": 16}  # images; a gradient keeps all activations in memory
_LARGEST_CHUNK = 64


class GraFIQs:
    """Uncertainty = sum of the absolute gradient of the image's BatchNorm discrepancy, above 0.

    The discrepancy of one image is the mean over the BatchNorm layers up to the feature map of

        mean_c (m_c - M_c)^2 + mean_c (v_c - V_c)^2

    with the mean m and variance v of channel c over the image's own map, and the running M and V
    that training left in the layer. Its gradient is taken at the normalised input, or at the output
    of one of the backbone's four stages. One backward pass of the sum over a batch gives every
    image's own gradient, because BatchNorms that use running statistics do not mix images.

    Float32 without autocast, on the backbone as it was before BatchNorms were merged; `mu` comes
    from `frozen` as for every other estimator.

    Cost: a forward pass without merged BatchNorms, and a backward pass down to `at`.

    Args:
        at: where the gradient is read: "image", or "block1" to "block4".

    Raises:
        ValueError: an unknown place, or a backbone that does not name its stages or has no
            BatchNorm after them.
    """

    name = "grafiqs"

    def __init__(self, *, frozen: FrozenBackbone, at: At = "image") -> None:
        if at not in get_args(At):
            raise ValueError(f"at = {at!r}: must be one of {', '.join(get_args(At))}")
        frozen.require_gradients(self.name)
        self.frozen = frozen
        self.at = at
        self.backbone = frozen.unfolded()
        self._stage: nn.Module | None = None
        if at != "image":
            number, stages = int(at.removeprefix("block")), self.backbone.stages
            if len(stages) < number:
                kind = type(self.backbone).__name__
                raise ValueError(f"grafiqs: at = {at!r}, but {kind} names no such stage; use image")
            self._stage = self.backbone.get_submodule(stages[number - 1])

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column."""
        images = torch.from_numpy(np.ascontiguousarray(batch.images))
        size = _CHUNK.get(self.frozen.device.type, _LARGEST_CHUNK)
        sizes = torch.cat([self._gradient_size(part) for part in images.split(size)])
        embedding = batch.output(self.frozen).embedding
        return Estimate(embedding.cpu().numpy(), sizes[:, None].cpu().numpy())

    def _gradient_size(self, images: Tensor) -> Tensor:
        """Return the L1 norm of each image's gradient, (B,)."""
        normalised = self.frozen.preprocessing(images.to(self.frozen.device))
        with torch.enable_grad(), self._watched() as (leaves, losses):
            if self._stage is None:
                leaves.append(normalised.requires_grad_())
            self.backbone.feature_map(normalised)
            total = torch.stack(losses).mean(0).sum() if losses else None
            if total is None or not total.requires_grad:
                raise ValueError(
                    f"grafiqs: {type(self.backbone).__name__} has no BatchNorm after {self.at}"
                )
            (gradient,) = torch.autograd.grad(total, leaves)
        return gradient.abs().flatten(1).sum(1)

    @contextmanager
    def _watched(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Collect the place of the gradient and each layer's discrepancy in the next pass."""
        leaves: list[Tensor] = []
        losses: list[Tensor] = []

        def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_())
            return leaves[-1]

        def compare(module: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
            losses.append(discrepancy(module, inputs[0]))

        modules = self.backbone.modules()
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
        if self._stage is not None:
            hooks.append(self._stage.register_forward_hook(cut))
        try:
            yield leaves, losses
        finally:
            for hook in hooks:
                hook.remove()


def discrepancy(norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    """Return how far channels of the layer's input (B, C, H, W) are from its statistics, (B,).

    The variance is that of the population.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    variance, mean = torch.var_mean(maps, dim=(2, 3), correction=0)
    gaps = mean - norm.running_mean, variance - norm.running_var
    return sum((gap.square().mean(1) for gap in gaps), maps.new_zeros(()))
