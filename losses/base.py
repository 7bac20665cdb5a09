"""The contract of a loss, and the base class of those that are means over genuine pairs.

A subclass of `GenuinePairLoss` sets `accepts` and `summary` and gives one formula, `per_pair`, and
`stats`; pairs, cosines, checks and the logged numbers live here. One of another kind is a subclass
of `Loss` and gives `total` instead.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LOG_FLOOR = math.log(1e-10)


class LossResult(NamedTuple):
    """A loss and what is logged about it.

    Attributes:
        loss: scalar to minimise.
        stats: detached tensors under the names of the log line, in its order (`cos`, `pconf` or
            `sigma`, `t_soft`, `uloss`); the log prints a tensor as mean, max and min and a
            scalar as itself.
    """

    loss: Tensor
    stats: dict[str, Tensor]


class Centres(NamedTuple):
    """Centres of identities, of length one.

    Attributes:
        own: (B, D), that of each image's identity, made without the image itself.
        every: (C, D), of all identities of the training images, by label.
    """

    own: Tensor
    every: Tensor


class PairBatch(NamedTuple):
    """A batch and its P genuine pairs.

    Attributes:
        mu: (B, D), L2-normalised embeddings; no gradient.
        raw: (B, d), what the head returned: logits of the uncertainty or log variances.
        labels: (B,), the identity of each image.
        first: (P,), index of the first image of each pair.
        second: (P,), index of the second; always larger than the first.
        cosine: (P,), of the two embeddings.
        teacher: (B,), a teacher's logit of each image's uncertainty, NaN where it has none; no
            gradient. None where the loss has no teacher.
        centres: None unless the loss needs them.
    """

    mu: Tensor
    raw: Tensor
    labels: Tensor
    first: Tensor
    second: Tensor
    cosine: Tensor
    teacher: Tensor | None = None
    centres: Centres | None = None


def genuine_pairs(labels: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices (P,), (P,) of all pairs i < j of equal label, on the labels' device.

    Args:
        labels: (B,), the identity of each image.
        rows: (B,), which image it is; two copies of one image are not a pair.

    Raises:
        ValueError: no two labels are equal, or only those of copies are.
    """
    same = (labels[:, None] == labels[None, :]).triu(diagonal=1)
    if rows is not None:
        same &= rows[:, None] != rows[None, :]
    first, second = same.nonzero(as_tuple=True)
    if first.numel() == 0:
        raise ValueError(
            f"no genuine pair in a batch of {labels.numel()} images: no label has two images; "
            "give images_per_class of at least 2"
        )
    return first, second


class Loss(nn.Module, ABC):
    """A scalar from what a head says of a batch; the embedding is frozen, only the head learns.

    Attributes:
        accepts: outputs of a head that this loss can train ("probability", "variance").
        summary: the loss and its options in one line, as the log of a run begins.
        needs_whole_batch: a process that sees only its own classes would compute another loss.
        needs_teacher: the loss compares the head with a teacher.
        needs_centres: the loss compares images with the centres of identities.
    """

    accepts: ClassVar[frozenset[str]]
    summary: str
    needs_whole_batch: bool = False
    needs_teacher: ClassVar[bool] = False
    needs_centres: ClassVar[bool] = False

    @abstractmethod
    def total(self, batch: PairBatch) -> Tensor:
        """Return the scalar to minimise."""

    @abstractmethod
    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return what is logged between `cos` and `uloss`, in the order of the log line."""

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError where the head's number of columns does not suit the loss."""

    def forward(
        self,
        embedding: Tensor,
        raw: Tensor,
        labels: Tensor,
        rows: Tensor | None = None,
        *,
        pairs: tuple[Tensor, Tensor] | None = None,
        teacher: Tensor | None = None,
        centres: Centres | None = None,
        with_stats: bool = True,
    ) -> LossResult:
        """Compute the loss of a batch, in float32 or better.

        Args:
            embedding: (B, D), of any length; normalised and detached here.
            raw: (B, d), unconstrained output of the head.
            labels: (B,), integer identities.
            rows: (B,), which image each is; a class with few images repeats them, and copies of one
                image, however they were augmented, are not a pair. None takes all as different.
            pairs: what `genuine_pairs` gives, where the caller has it: finding pairs on a GPU makes
                the host wait for it.
            teacher: (B,), its logit of each image's uncertainty, NaN where it has none.
            centres: of the images' identities and of all.
            with_stats: False leaves the statistics of the log out.

        Raises:
            ValueError: shapes that do not belong together, no genuine pair, or a loss that lacks
                its teacher or its centres.
        """
        if raw.ndim != 2 or not len(embedding) == len(raw) == len(labels):
            raise ValueError(
                f"a loss takes embedding (B, D), raw (B, d) and labels (B,), got "
                f"{tuple(embedding.shape)}, {tuple(raw.shape)} and {tuple(labels.shape)}"
            )
        if self.needs_teacher and (teacher is None or teacher.shape != labels.shape):
            raise ValueError(f"loss {self.summary!r} takes a teacher's logit of each image, (B,)")
        if self.needs_centres and (centres is None or centres.own.shape != embedding.shape):
            raise ValueError(f"loss {self.summary!r} takes the centre of each identity, (B, D)")
        mu = F.normalize(_at_least_float32(embedding.detach()))
        raw = _at_least_float32(raw)
        self.check(mu, raw)
        first, second = genuine_pairs(labels, rows) if pairs is None else pairs
        # Gathered rows, not mu @ mu.T: P is far below B * B and TF32 never touches the cosine.
        cosine = (mu[first] * mu[second]).sum(dim=1)
        if teacher is not None:
            teacher = _at_least_float32(teacher.detach())
        batch = PairBatch(mu, raw, labels, first, second, cosine, teacher, centres)
        loss = self.total(batch)
        if not with_stats:
            return LossResult(loss, {})
        stats = {"cos": cosine, **self.stats(batch), "uloss": loss}
        return LossResult(loss, {name: value.detach() for name, value in stats.items()})


class GenuinePairLoss(Loss):
    """Mean over the genuine pairs of a batch.

    Unordered pairs are used: every term is symmetric, so the mean over ordered ones is the same.
    """

    @abstractmethod
    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the loss of each pair, (P,)."""

    def total(self, batch: PairBatch) -> Tensor:
        """Return the mean over pairs; a loss may add terms to it."""
        return self.per_pair(batch).mean()


class ImageLoss(GenuinePairLoss):
    """Mean over the images of a batch, each as often as it is in a genuine pair.

    A pair has the mean of its two images, so that processes with different numbers of pairs share
    one mean.
    """

    @abstractmethod
    def per_image(self, batch: PairBatch) -> Tensor:
        """Return the loss of each image, (B,)."""

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the mean of the two images of each pair, (P,)."""
        return mean_of_both(self.per_image(batch), batch)


def mean_of_both(values: Tensor, batch: PairBatch) -> Tensor:
    """Return the mean of the two images' values for each pair, (P,), from values (B,)."""
    return (values[batch.first] + values[batch.second]) / 2


def quality_logit(raw: Tensor) -> Tensor:
    """Return the logit of each image's quality, (B,), from logits of its uncertainty (B, d).

    Quality is one minus the uncertainty; with several columns it is their mean, whose logit is
    taken between logarithms, so that it stays finite where the probabilities round to 0 or 1.
    """
    if raw.shape[1] == 1:
        return -raw[:, 0]
    log_quality = torch.logsumexp(F.logsigmoid(-raw), dim=1)
    log_uncertainty = torch.logsumexp(F.logsigmoid(raw), dim=1)
    return log_quality - log_uncertainty


def lower_quality(values: Tensor, batch: PairBatch) -> Tensor:
    """Return the smaller of the two images' values for each pair, (P,), from values (B,).

    Equal values share the gradient half and half.
    """
    return torch.minimum(values[batch.first], values[batch.second])


def log_variance_sum(first: Tensor, second: Tensor) -> Tensor:
    """Return log(1e-10 + s_i + s_j) from two log variances of the same shape.

    The original adds 1e-10 too: without it, two copies of one image drive the likelihood to
    infinity. Staying between logarithms, no raw output overflows.
    """
    pair = torch.logaddexp(first, second)
    return torch.logaddexp(pair, pair.new_full((), _LOG_FLOOR))


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def require_positive(loss: str, *, zero: bool = False, **options: float) -> None:
    """Raise ValueError for an option that is not a finite number above 0 (or 0 itself)."""
    for name, value in options.items():
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            limit = "at least" if zero else "above"
            raise ValueError(f"losses.{loss}: {name} = {value!r}: must be {limit} 0")
