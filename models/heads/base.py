"""The contract of a head: a small network from a backbone's output to one unconstrained number.

A subclass sets `output` and gives `forward`. Several heads share the arguments below:

    output: "probability": the result is the logit of the uncertainty; "variance": it is the log
        variance.
    features_shape: (C, H, W) of the backbone's feature map; the program fills it in.
    hidden: width of the inner layer.
    dim: d, the number of outputs; 1 for a probability.
    log_norm: weight at the start of the embedding's standardised log length, which is learned and
        subtracted; 0 leaves the term out. The length says much about a face by itself (MagFace,
        arXiv 2103.06627) that a small head does not learn from features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.backbones.base import BackboneOutput

Output = Literal["probability", "variance"]

_SHORTEST = 1e-6  # an embedding of length 0 has no logarithm
_EPS = 1e-6


class Head(nn.Module, ABC):
    """A small network from `BackboneOutput` to an unconstrained number, (B, d).

    Attributes:
        output: what the number is: the logit of a probability, or log variances.
        reads: what of a `BackboneOutput` the head works on: "features" (and embeddings), "stages"
            as well, or "images" alone, so that it runs without the backbone.
        extra: a scalar that a forward pass in training mode asks to add to the loss, or None.
    """

    output: Output
    extra: Tensor | None = None
    reads: ClassVar[Literal["features", "stages", "images"]] = "features"

    @abstractmethod
    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""

    def starting_from(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a file's tensors under this head's names; heads may take other networks' too."""
        return tensors

    def learn_scale(self, start: float) -> None:
        """Give a variance head `gamma` (1) and `beta` (log of the start): see `scaled`."""
        if self.output == "variance":
            self.gamma = nn.Parameter(torch.ones(1))
            self.beta = nn.Parameter(torch.full((1,), math.log(start)))

    def scaled(self, raw: Tensor) -> Tensor:
        """Return gamma * raw + beta for variances, and raw itself for a probability."""
        return self.gamma * raw + self.beta if self.output == "variance" else raw


class Dropout(nn.Dropout):
    """Dropout by few random bits a number where `draw` was set and a CPU computes, else PyTorch's.

    A mask follows from the key and from a row's place in the whole batch alone, not from how many
    processes share the batch. The bits are Philox4x64-10's (Salmon et al., SC 2011), a counter with
    a key; NumPy keeps its stream of them. A rate of 1/2 takes one a number, others 16: they are
    rounded to 1 / 65536.
    """

    draw: tuple[tuple[int, ...], int] | None = None  # numbers of the key, place of the first row

    def forward(self, batch: Tensor) -> Tensor:
        """Drop numbers of (B, ...), in training, and scale up the others."""
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        if self.draw is None or not self.training or batch.device.type != "cpu":
            return super().forward(batch)
        numbers, first = self.draw
        rows, size = len(batch), batch[:1].numel()
        width = 1 if dropped == 2**15 else 16  # bits of a number
        blocks = -(-size * width // 256)  # of four words, which the counter counts
        key = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
        words = np.random.Philox(key=key, counter=first * blocks).random_raw(4 * rows * blocks)
        drawn = np.unpackbits(words.view(np.uint8)) if width == 1 else words.view(np.uint16)
        keeps = drawn >= dropped >> 16 - width
        keeps = keeps.reshape(rows, -1)[:, :size].astype(np.float32)
        mask = torch.from_numpy(keeps).to(batch.dtype).mul_(2**16 / (2**16 - dropped))
        return batch * mask.view_as(batch)


def to_sigma_sq(raw: Tensor, output: str) -> Tensor:
    """Return the uncertainty (B, d) that a head's raw output (B, d) stands for.

    By the head's `output`: "probability" of being unreliable, in (0, 1), of a logit; or "variance",
    above 0, of a log variance.

    Raises:
        ValueError: any other output.
    """
    if output == "probability":
        return raw.sigmoid()
    if output == "variance":
        return raw.exp()
    raise ValueError(f"output = {output!r}: must be 'probability' or 'variance'")


def to_scalar(sigma_sq: Tensor) -> Tensor:
    """Return one uncertainty per image, (N,), from (N, c).

    One column stays as it is; more are joined by their harmonic mean 1 / mean(1 / (s + 1e-6)), as
    PFE (arXiv 1904.09658) does.

    Raises:
        ValueError: not two-dimensional, or no column.
    """
    if sigma_sq.ndim != 2 or sigma_sq.shape[1] < 1:
        raise ValueError(f"sigma_sq of shape {tuple(sigma_sq.shape)}: expected (N, c), c >= 1")
    if sigma_sq.shape[1] == 1:
        return sigma_sq[:, 0]
    return 1 / (1 / (sigma_sq + _EPS)).mean(dim=1)


def check_head(name: str, output: str, dim: int, hidden: int | None = None) -> None:
    """Raise ValueError, with head, option and what is allowed, for one that cannot be built."""
    if output not in get_args(Output):
        raise ValueError(f"head {name!r}: output = {output!r}: must be one of {get_args(Output)}")
    for option, size in (("dim", dim), ("hidden", hidden)):
        if size is not None and size < 1:
            raise ValueError(f"head {name!r}: {option} = {size!r}: must be at least 1")
    if output == "probability" and dim != 1:
        raise ValueError(
            f"head {name!r}: dim = {dim!r}: a probability head has one output; "
            'take output="variance" for one per dimension'
        )


def log_norm_layer(name: str, log_norm: float) -> nn.BatchNorm1d | None:
    """Return the layer that standardises and weighs log lengths; None for a weight of 0."""
    if log_norm < 0:
        raise ValueError(f"head {name!r}: log_norm = {log_norm!r}: must be at least 0")
    if not log_norm:
        return None
    layer = nn.BatchNorm1d(1)
    nn.init.constant_(layer.weight, log_norm)
    return layer


def log_length(embedding: Tensor) -> Tensor:
    """Return the logarithm of each embedding's length, (B, 1)."""
    return embedding.norm(dim=1, keepdim=True).clamp_min(_SHORTEST).log()


def averages_and_sides(maps: Tensor) -> Tensor:
    """Return (B, 2C) of maps (B, C, H, W): each channel's average and its sides' difference."""
    return torch.cat([maps.mean(dim=(2, 3)), side_differences(maps)], dim=1)


def side_differences(maps: Tensor) -> Tensor:
    """Return (B, C) of maps (B, C, H, W): each channel's mean |map - mirrored map|."""
    return (maps - maps.flip(3)).abs().mean(dim=(2, 3))


def cell_averages(maps: Tensor, grid: int) -> Tensor:
    """Return (B, C grid^2) of maps (B, C, H, W): each channel's average in each cell, row by row.

    Cells are those of `torch.nn.functional.adaptive_avg_pool2d`.
    """
    if grid == 1:
        return maps.mean(dim=(2, 3))
    height, width = maps.shape[2:]
    rows = [maps[:, :, at:end].mean(dim=2) for at, end in _cells(height, grid)]
    cells = [row[:, :, at:end].mean(dim=2) for row in rows for at, end in _cells(width, grid)]
    return torch.stack(cells, dim=2).flatten(1)


def _cells(side: int, grid: int) -> list[tuple[int, int]]:
    return [(k * side // grid, -(-(k + 1) * side // grid)) for k in range(grid)]
