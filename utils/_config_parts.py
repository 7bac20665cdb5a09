"""The parts of a config: methods, schedules, branches, augmentation, verification.

Public through utils.config.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Execution = Literal["eager", "cuda_graph", "compile"]
Optimizer = Literal["sgd", "adamw"]


def require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"{field} = {value!r}: must be {rule}")


@dataclass(frozen=True, init=False)
class Method:
    """A file name of a method package and its constructor options: `Method("idq", scale=16.0)`."""

    name: str
    options: dict[str, Any]

    def __init__(self, name: str, /, **options: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", options)

    def __repr__(self) -> str:
        parts = [repr(self.name), *(f"{key}={value!r}" for key, value in self.options.items())]
        return f"Method({', '.join(parts)})"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast: an optimizer, with steps in its learning rate.

    Attributes:
        epochs: number of epochs.
        steps_per_epoch: optimizer steps in one epoch.
        lr: learning rate at the start.
        drop_at: epochs (fractions allowed) after which the rate is multiplied by `drop_factor`.
        drop_factor: see `drop_at`.
        momentum: of SGD; of AdamW, the decay of its first average.
        weight_decay: on every parameter of the head, as the original has it; AdamW takes it apart
            from the gradient, so its numbers are larger.
        optimizer: "sgd", or "adamw" for networks on images (`student`).
    """

    epochs: int
    steps_per_epoch: int = 1000
    lr: float = 1e-2
    drop_at: tuple[float, ...] = ()
    drop_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: Optimizer = "sgd"

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "schedule.epochs", self.epochs, "at least 1")
        require(self.steps_per_epoch >= 1, "schedule.steps_per_epoch", self.steps_per_epoch, ">= 1")
        require(self.lr > 0, "schedule.lr", self.lr, "above 0")
        require(0 < self.drop_factor <= 1, "schedule.drop_factor", self.drop_factor, "in (0, 1]")
        require(0 <= self.momentum < 1, "schedule.momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "schedule.weight_decay", self.weight_decay, "at least 0")
        allowed = get_args(Optimizer)
        require(
            self.optimizer in allowed, "schedule.optimizer", self.optimizer, f"one of {allowed}"
        )
        late = [epoch for epoch in self.drop_at if not 0 < epoch < self.epochs]
        require(
            not late,
            "schedule.drop_at",
            self.drop_at,
            f"inside (0, {self.epochs}), the epochs; schedule.drop_at=() never drops",
        )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def lr_at(self, step: int) -> float:
        """Return the learning rate of an optimizer step, counted from 0 over the whole run."""
        dropped = sum(epoch * self.steps_per_epoch <= step for epoch in self.drop_at)
        return self.lr * self.drop_factor**dropped


@dataclass(frozen=True)
class Branch:
    """One of several heads that a run trains on the same forward passes of the backbone.

    Attributes:
        name: of its folder inside the run folder.
        head: Method of `models.heads`.
        loss: Method of `losses`.
        seed: of the head's initial weights and dropout; None for the run's.
        head_weights: file with tensors to start from.
        teacher: whom the loss `distill` learns from: a branch before this one, the folder of a
            finished run on the same backbone, or a file of scores.
        schedule: learning rates, momentum and weight decay, where they differ from the run's; the
            number of steps is the run's.
    """

    name: str
    _: dataclasses.KW_ONLY
    head: Method
    loss: Method
    seed: int | None = None
    head_weights: str | None = None
    teacher: str | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        good = re.fullmatch(r"\w[\w-]*", self.name) is not None
        require(good, "branch name", self.name, "letters, digits, - and _: it is a folder")


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How often a training image is changed; the defaults are the original's set and rates.

    Attributes:
        flip: probability of a horizontal flip.
        blur: probability of a Gaussian blur with a radius drawn from `blur_radii` (pixels).
        blur_radii: see `blur`.
        occlusion: probability of a rectangle of noise or of one colour.
        rare: probability of each of two further draws among down-and-up resize, slight blur,
            rotation, crop, channel swap and grey; halved after a hit.
        degrade: probability that an image is strongly degraded instead of these milder changes
            (a flip apart); the original has none.
    """

    flip: float = 0.5
    blur: float = 0.3
    blur_radii: tuple[float, ...] = (1.0, 2.0, 3.0)
    occlusion: float = 0.05
    rare: float = 0.05
    degrade: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "occlusion", "rare", "degrade"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name}", value, "a probability in [0, 1]")
        require(
            bool(self.blur_radii) and min(self.blur_radii) > 0,
            "augment.blur_radii",
            self.blur_radii,
            "one or more radii above 0",
        )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The sets on which a run is evaluated.

    Attributes:
        dataset_path: folder with the `.bin` files; None for rendered sets alone.
        targets: set names (`lfw` is `<dataset_path>/lfw.bin`) or rendered ones (`synthetic:...`).
        batch_size: images per forward pass.
        flip: average each image with its mirror image.
        protocol: name of the evaluation protocol.
    """

    dataset_path: str | None = None
    targets: tuple[str, ...] = ()
    batch_size: int = 64
    flip: bool = False
    protocol: str = "original"

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "verification.batch_size", self.batch_size, "at least 1")
