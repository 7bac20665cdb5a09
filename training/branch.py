"""One head in training, its loss, optimizer and schedule, and the images of one of its steps.

A head's BatchNorms take their statistics over the rows of all processes, so that it learns as it
would in one; on any device, unlike `torch.nn.SyncBatchNorm`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from losses.base import Centres, GenuinePairLoss, LossResult
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import Dropout, Head
from models.load import Checkpoint, load_state
from models.run import build_head
from utils.config import TrainConfig
from utils.distributed import World
from utils.files import DAMAGE, naming
from utils.methods import build

_SECOND_BETA = 0.999  # AdamW's usual decay of squared gradients


@dataclass(frozen=True)
class StepInput:
    """The images of one step in this process.

    Attributes:
        rows: (B,) which image each is, on the host.
        labels: (B,) on the host.
        output: of the backbone, on its device.
        device_labels: (B,) on the device.
        pairs: indices (P,), (P,) of the genuine pairs, on the device.
        num_pairs: P, known to the host without waiting for the device.
        taught: (B,) logits on the device, by the name of the teacher that gave them.
        centres: of the images' identities and of all, for losses that need them.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    output: BackboneOutput
    device_labels: Tensor
    pairs: tuple[Tensor, Tensor]
    num_pairs: int
    taught: dict[str, Tensor] = field(default_factory=dict)
    centres: Centres | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Everything on the device that a step changes, in a fixed order."""
        own = [] if self.centres is None else [self.centres.own]
        return [*self.output.tensors, self.device_labels, *self.pairs, *self.taught.values(), *own]

    def clone(self) -> StepInput:
        """Copy what lies on the device; the rest is shared."""
        own = self.centres
        return dataclasses.replace(
            self,
            output=self.output.map(Tensor.clone),
            taught={name: logits.clone() for name, logits in self.taught.items()},
            device_labels=self.device_labels.clone(),
            pairs=(self.pairs[0].clone(), self.pairs[1].clone()),
            centres=own and own._replace(own=own.own.clone()),
        )


class TrainedBranch:
    """A head with everything that makes it learn; it knows nothing of other branches.

    The name is "" for the head of a plain run; the config trains this head by itself; the state is
    what `state` gave, to resume from.

    Attributes:
        draws: whether the head has dropout.
        best: smallest mean AUERC30 so far, None before the first evaluation.

    Raises:
        ValueError: a head and a loss that do not fit each other, or the number of processes.
    """

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        frozen: FrozenBackbone,
        world: World,
        state: Checkpoint | None = None,
    ) -> None:
        self.name, self.config, self.world = name, config, world
        self._seed = config.seed if config.head_seed is None else config.head_seed
        torch.manual_seed(self._seed)
        start = config if state is None else dataclasses.replace(config, head_weights=None)
        self.head: Head = build_head(start, frozen)
        assert config.loss is not None
        self.loss: GenuinePairLoss = build(
            "losses", config.loss, embedding_size=frozen.embedding_size
        )
        self._check()
        share_batch_norms(self.head, world)
        self.optimizer = _optimizer(self.parameters, config, frozen.device)
        self.draws = any(
            isinstance(module, _DropoutNd) and module.p > 0 for module in self.head.modules()
        )
        self.best: float | None = None
        if state is not None:
            with naming("last.pt", *DAMAGE):
                load_state(self.head, state["head"], "last.pt", f"head {config.head!r}")
                # the state alone: momentum and the way to compute are this run's, rates the steps'
                own = self.optimizer.state_dict()["param_groups"]
                for group, stored in zip(own, state["optimizer"]["param_groups"], strict=True):
                    group["lr"] = stored["lr"]
                self.optimizer.load_state_dict({**state["optimizer"], "param_groups": own})
                self.best = state["best"]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those of the head that learn, in a fixed order."""
        return [weight for weight in self.head.parameters() if weight.requires_grad]

    def forward(
        self, step: int, images: StepInput, with_stats: bool, teacher: Tensor | None = None
    ) -> tuple[Tensor, LossResult]:
        """Return the head's raw output (B, d) and its loss on this process's share of a batch.

        Dropout follows from (seed, global step) and, except for `models.heads.base.Dropout` on a
        CPU, rank, so a resumed run, and another number of branches, sees the same masks.
        `teacher` (B,) is what this head's teacher says.
        """
        if self.draws:
            key = np.random.SeedSequence((self._seed, step, self.world.rank))
            on_cpu = images.output.embedding.device.type == "cpu"
            # all devices' takes a millisecond, as each keeps the call's traceback
            seed = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
            seed(int(key.generate_state(1, np.uint32)[0]))
            for place, module in enumerate(self.head.modules()):
                if isinstance(module, Dropout):
                    module.draw = (self._seed, step, place), self.world.rank * len(images.rows)
        raw = self.head(images.output)
        result: LossResult = self.loss(
            images.output.embedding,
            raw,
            images.device_labels,
            pairs=images.pairs,
            teacher=teacher,
            centres=images.centres,
            with_stats=with_stats,
        )
        extra, self.head.extra = self.head.extra, None
        return raw, result if extra is None else result._replace(loss=result.loss + extra)

    def update(self, step: int) -> float:
        """Let the optimizer use the gradients; return the learning rate that it had."""
        lr = self.config.schedule.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return lr

    def state(self) -> Checkpoint:
        """Return what resuming needs, besides the step."""
        optimizer = self.optimizer.state_dict()
        return {"head": self.head.state_dict(), "optimizer": optimizer, "best": self.best}

    def _check(self) -> None:
        config, loss = self.config, self.config.loss
        assert config.head is not None
        assert loss is not None
        if self.head.output not in self.loss.accepts:
            raise ValueError(
                f"loss {loss.name!r} trains a head with output "
                f"{' or '.join(sorted(self.loss.accepts))}; head {config.head.name!r} gives "
                f"{self.head.output!r}"
            )
        if self.loss.needs_teacher != (config.teacher is not None):
            raise ValueError(
                f"loss {loss.name!r} learns from a teacher: name a branch before this one, a run "
                "folder or a file of scores as teacher"
                if config.teacher is None
                else f"teacher = {config.teacher!r}: loss {loss.name!r} has no use for one; take "
                "'distill'"
            )
        if self.world.size > 1 and self.loss.needs_whole_batch:
            raise ValueError(
                f"loss {self.loss.summary!r} compares images of different identities, which "
                f"{self.world.size} processes do not share: train it with one process, or without "
                "the terms that need them"
            )


def _optimizer(
    parameters: list[nn.Parameter], config: TrainConfig, device: torch.device
) -> torch.optim.Optimizer:
    schedule, fused = config.schedule, device.type in ("cpu", "cuda")
    lr, decay = schedule.lr, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr, schedule.momentum, weight_decay=decay, fused=fused)
    # `capturable`: the counts of steps stay on the device
    betas = schedule.momentum, _SECOND_BETA
    return torch.optim.AdamW(
        parameters, lr, betas, weight_decay=decay, capturable=device.type == "cuda", fused=fused
    )


def share_batch_norms(head: nn.Module, world: World) -> None:
    """Make every BatchNorm of a head take its statistics over all ranks' rows.

    Parameters and buffers are the very same tensors under the same names, so that optimizers and
    checkpoints do not notice. Ranks may have batches of different sizes. In eval mode nothing
    changes, and with one rank nothing at all.
    """
    if world.size == 1:
        return
    for parent in list(head.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, _SharedBatchNorm):
                setattr(parent, name, _SharedBatchNorm(child, world))


class _SharedBatchNorm(_BatchNorm):
    """A BatchNorm of another one's parameters, buffers and mode, over the rows of all ranks."""

    def __init__(self, other: _BatchNorm, world: World) -> None:
        super().__init__(
            other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats
        )
        self._parameters = other._parameters
        self._buffers = other._buffers
        self.world = world
        self.train(other.training)

    def _check_input_dim(self, _: Tensor) -> None:
        """Take (B, C) and (B, C, ...)."""

    def forward(self, batch: Tensor) -> Tensor:
        """Normalise (B, C) or (B, C, ...) as the joined batch of all ranks would be."""
        if not self.training and self.running_mean is not None:
            return super().forward(batch)
        rows = batch.movedim(1, -1)
        flat, mean, variance, count = _Normalise.apply(
            rows.reshape(-1, self.num_features), self.eps, self.world
        )
        if self.training and self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        if self.affine:
            flat = flat * self.weight + self.bias
        joined: Tensor = flat.view(rows.shape).movedim(-1, 1)
        return joined

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # a plain average over all batches
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) over all ranks' rows, in two passes over the data."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (B, C) normalised rows; (C,) mean and biased variance; the number of all rows."""
        totals = torch.cat([rows.sum(0), rows.new_full((1,), len(rows))])
        world.sum_(totals)
        count = totals[-1]
        mean = totals[:-1] / count
        centred = rows - mean
        squares = centred.square().sum(0)
        world.sum_(squares)
        variance = squares / count
        inverse = (variance + eps).rsqrt()
        normalised = centred * inverse
        ctx.world = world
        ctx.save_for_backward(normalised, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        """Give each row the gradient of all ranks' losses together."""
        normalised, inverse, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum(0), (gradient * normalised).sum(0)])
        ctx.world.sum_(sums)
        straight, slope = sums / count
        return inverse * (gradient - straight - normalised * slope), None, None
