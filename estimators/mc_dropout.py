"""MC-dropout as an estimator: how far the embedding's direction moves when features are dropped.

The model's own uncertainty, training-free: it needs the backbone and nothing else.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from estimators.base import Batch, Estimate
from mc_dropout.closed_form import DropoutSpread, check_rate, dropout_masks, rows_at_once
from models.frozen import FrozenBackbone

__all__ = ["MCDropout"]

Form = Literal["sampled", "closed_form"]

_HELD = 2**26  # numbers of embedded passes held at a time: 256 MB


class MCDropout:
    """Uncertainty of an image: the standard deviation of cos(pass, mean direction of the passes).

    A pass drops features at random (inverted dropout) and embeds the rest with the backbone's tail;
    the idea is Gal and Ghahramani's, arXiv 1506.02142. `mu` is the backbone's own embedding,
    without dropout.

    Masks come from a generator of this object's seed, on the CPU, one per pass and shared by all
    images. So an image's value depends on the image, the seed and the number of passes: not on the
    batch, the order or the device (up to rounding); the first 100 of 1000 passes are the same as
    those of 100. Images share the luck of the draw, which shifts their values together and ranks
    them no worse than masks of their own would.

    Args:
        passes: number of dropout passes, at least 2; not used by the closed form.
        rate: share of features dropped, in (0, 1).
        seed: of the masks (sampled), or of the features that the closed form looks at first.
        batch_norm: True spreads the embedding that is compared. False leaves out the BatchNorm at
            the backbone's end, as the original does.
        form: "sampled", or "closed_form": the limit of many passes, from `mc_dropout.closed_form`.
    """

    def __init__(
        self,
        frozen: FrozenBackbone,
        passes: int = 100,
        rate: float = 0.5,
        seed: int = 0,
        batch_norm: bool = True,
        form: Form = "sampled",
    ) -> None:
        check_rate(rate)
        if passes < 2:
            raise ValueError(f"passes = {passes}: a spread needs at least 2 passes")
        if form not in get_args(Form):
            raise ValueError(f"form = {form!r}: must be one of {', '.join(get_args(Form))}")
        self.name = f"mc_dropout_{form}"
        self.frozen, self.passes, self.rate, self.seed = frozen, passes, rate, seed
        self.batch_norm, self.form = batch_norm, form
        self._masks: Tensor | None = None
        self._spread: DropoutSpread | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images: mu (B, D), sigma_sq (B, 1) in 0..1."""
        output = batch.output(self.frozen)
        spread = self.spread(output.features)[:, None]
        return Estimate(output.embedding.float().cpu().numpy(), spread.cpu().numpy())

    @torch.no_grad()
    def spread(self, features: Tensor) -> Tensor:
        """Return the uncertainty (B,) of features (B, F), on the backbone's device."""
        features = features.float()
        if self.form == "closed_form":
            return self._closed_form(features)
        rows = rows_at_once(features.device)
        images = min(rows, max(1, _HELD // (self.passes * self.frozen.embedding_size)))
        parts = [cosine_std(self._embed_passes(part, rows)) for part in features.split(images)]
        return torch.cat(parts)

    def _closed_form(self, features: Tensor) -> Tensor:
        if self._spread is None:
            weight, bias = self.frozen.backbone.tail_affine(self.batch_norm)
            weight, bias = weight.float().to(features.device), bias.float().to(features.device)
            self._spread = DropoutSpread(weight, bias, self.rate, seed=self.seed)
        return self._spread(features)

    def _embed_passes(self, features: Tensor, rows: int) -> Tensor:
        """Return the passes' embeddings, (B, T, D)."""
        if self._masks is None:
            masks = dropout_masks(features.shape[1], self.passes, self.rate, self.seed)
            self._masks = masks.to(features.device)
        scaled = features / (1 - self.rate)
        block = max(1, rows // max(1, len(features)))
        # One buffer: on a CPU, memory asked for anew comes with page faults.
        buffer = scaled.new_empty(len(features), block, features.shape[1])
        embedded = []
        for masks in self._masks.split(block):
            dropped = torch.mul(scaled[:, None], masks, out=buffer[:, : len(masks)])
            out = self.frozen.backbone.tail(dropped.flatten(0, 1), self.batch_norm)
            embedded.append(out.float().unflatten(0, (len(features), len(masks))))
        return torch.cat(embedded, dim=1)


def cosine_std(passes: Tensor) -> Tensor:
    """Return the population standard deviation over passes of cos(pass, mean direction), (B,).

    Each pass is L2-normalised; the mean direction is their normalised mean. A pass of length zero
    has no direction: it adds nothing to the mean, and its cosine counts as 0. Where the mean has no
    direction either (all passes zero), the result is 1, the largest value there is.
    `passes` are (B, T, D) embeddings.
    """
    lengths = passes.norm(dim=2, keepdim=True)
    unit = passes / torch.where(lengths == 0, 1.0, lengths)
    mean = unit.mean(1, keepdim=True)
    size = mean.norm(dim=2, keepdim=True)
    mean = mean / torch.where(size == 0, 1.0, size)
    # 1 - cos as half a squared distance: near 1, a cosine in float32 has lost its last digits.
    distance = (unit - mean).square().sum(2, keepdim=True) / 2
    distance = torch.where(lengths == 0, 1.0, distance)
    std = distance.std(1, correction=0)
    return torch.where(size[:, 0] == 0, 1.0, std)[:, 0]
