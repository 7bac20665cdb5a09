"""One head in training, its loss, optimizer and schedule, and the images of one of its steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from losses.base import GenuinePairLoss, LossResult
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import Head
from models.run import build_head
from models.shared_batch_norm import share_batch_norms
from utils.config import TrainConfig
from utils.distributed import World
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
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    output: BackboneOutput
    device_labels: Tensor
    pairs: tuple[Tensor, Tensor]
    num_pairs: int
    taught: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """Everything on the device, in a fixed order."""
        return [*self.output.tensors, self.device_labels, *self.pairs, *self.taught.values()]

    def clone(self) -> StepInput:
        """Copy what lies on the device; the rest is shared."""
        return dataclasses.replace(
            self,
            output=self.output.map(Tensor.clone),
            taught={name: logits.clone() for name, logits in self.taught.items()},
            device_labels=self.device_labels.clone(),
            pairs=(self.pairs[0].clone(), self.pairs[1].clone()),
        )


class TrainedBranch:
    """A head with everything that makes it learn; it knows nothing of other branches.

    Args:
        name: of the branch, "" for the head of a plain run.
        config: that trains this head by itself.
        frozen: the backbone.
        world: the processes that share each batch.
        state: what `state` gave, to resume from.

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
        state: dict[str, Any] | None = None,
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
            self.head.load_state_dict(state["head"])
            # the state alone: rates, momentum and the way to compute are this run's
            own = self.optimizer.state_dict()["param_groups"]
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

        Dropout follows from (seed, global step, rank) alone, so a resumed run, and another number
        of branches, sees the same masks. `teacher` (B,) is what this head's teacher says.
        """
        if self.draws:
            key = np.random.SeedSequence((self._seed, step, self.world.rank))
            torch.manual_seed(int(key.generate_state(1, np.uint32)[0]))
        raw = self.head(images.output)
        result: LossResult = self.loss(
            images.output.embedding,
            raw,
            images.device_labels,
            pairs=images.pairs,
            teacher=teacher,
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

    def state(self) -> dict[str, Any]:
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
    schedule, on_gpu = config.schedule, device.type == "cuda"
    lr, decay = schedule.lr, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr, schedule.momentum, weight_decay=decay, fused=on_gpu)
    # `capturable`: the counts of steps stay on the device
    betas = schedule.momentum, _SECOND_BETA
    return torch.optim.AdamW(
        parameters, lr, betas, weight_decay=decay, capturable=on_gpu, fused=on_gpu
    )
