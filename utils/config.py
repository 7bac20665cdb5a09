"""Configs are data: frozen dataclasses that a Python file fills in and that JSON can carry.

A config file defines one name, `config = TrainConfig(...)`. It is code, run only when the user
names it; run folders and checkpoints carry the same config as JSON, which is never executed.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import re
import reprlib
import runpy
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from utils.files import naming, open_input, parse_json

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Execution = Literal["eager", "cuda_graph", "compile"]
Optimizer = Literal["sgd", "adamw"]


def require(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise ValueError where a field or an argument is not what the rule says."""
    if not holds:
        raise ValueError(f"{field} = {shown(value)}: must be {rule}")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def shown(value: object) -> str:
    """Return a value as messages show it: neither long nor deep."""
    return _SHORT.repr(value)


def _check(config: object, prefix: str = "", /, **rules: tuple[bool, str]) -> None:
    for field, (holds, rule) in rules.items():
        require(holds, prefix + field, getattr(config, field), rule)


def _one_of(value: object, kind: object) -> tuple[bool, str]:
    return value in get_args(kind), f"one of {', '.join(map(repr, get_args(kind)))}"


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
        drops = f"inside (0, {self.epochs}), the epochs; schedule.drop_at=() never drops"
        _check(
            self,
            "schedule.",
            epochs=(self.epochs >= 1, "at least 1"),
            steps_per_epoch=(self.steps_per_epoch >= 1, ">= 1"),
            lr=(self.lr > 0, "above 0"),
            drop_factor=(0 < self.drop_factor <= 1, "in (0, 1]"),
            momentum=(0 <= self.momentum < 1, "in [0, 1)"),
            weight_decay=(self.weight_decay >= 0, "at least 0"),
            optimizer=_one_of(self.optimizer, Optimizer),
            drop_at=(all(0 < epoch < self.epochs for epoch in self.drop_at), drops),
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
        are_radii = min(self.blur_radii, default=0) > 0
        _check(self, "augment.", blur_radii=(are_radii, "one or more radii above 0"))


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
        _check(self, "verification.", batch_size=(self.batch_size >= 1, "at least 1"))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: a frozen backbone, a head, a loss, and the faces to train on.

    Attributes:
        name: of the run; its folder is `<log_dir>/<name>` unless `--model_dir` says otherwise.
        backbone: Method of `models.backbones`.
        backbone_weights: file with the backbone's tensors.
        head: Method of `models.heads`.
        head_weights: file with a head's tensors to start from, such as one of the original.
        head_seed: of the head's initial weights and dropout; None for `seed`.
        loss: Method of `losses`.
        teacher: see `Branch`.
        centres: files with the classifier's weights (C, D) that the backbone was trained with, in
            the order of labels, for losses that need the centre of each identity; None takes the
            means of its images.
        branches: several heads with losses of their own, instead of `head` and `loss`.
        train_images: where faces are: a folder with one folder per identity, a list file, a `.rec`
            pack or `synthetic:...`; several are joined (identities are kept apart).
        schedule: see `Schedule`.
        classes_per_batch: identities in a batch.
        images_per_class: images of each identity in a batch.
        steps_per_forward: optimizer steps whose images go through the backbone together; the steps
            themselves, and what is learned, stay the same. None: 1 on a CPU, and on an accelerator
            as many as make 512 images.
        augment: see `Augment`.
        verification: evaluated after each epoch; no targets, no evaluation.
        log_every: steps between log lines.
        log_dir: parent of run folders.
        log_to: "tensorboard" writes its files into the run folder too; "" does not.
        seed: fixes batches and augmentation, and initial weights unless `head_seed` does.
        workers: threads that read and decode.
        max_bad_share: the run stops when more than this share of the images read is unreadable.
        precision: of the frozen backbone; "auto" is bf16 or fp16 on an accelerator, fp32 on a CPU.
        execution: of the frozen backbone: "eager"; "cuda_graph" replays its kernels without the
            host's work for each; "compile" is torch.compile, whose first batches take long.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
    """

    name: str
    backbone: Method
    backbone_weights: str
    train_images: str | tuple[str, ...]
    schedule: Schedule
    head: Method | None = None
    head_weights: str | None = None
    head_seed: int | None = None
    loss: Method | None = None
    teacher: str | None = None
    centres: str | tuple[str, ...] | None = None
    branches: tuple[Branch, ...] = ()
    classes_per_batch: int = 10
    images_per_class: int = 8
    steps_per_forward: int | None = None
    augment: Augment = Augment()
    verification: Verification = Verification()
    log_every: int = 100
    log_dir: str = "runs"
    log_to: Literal["", "tensorboard"] = ""
    seed: int = 0
    workers: int = 4
    max_bad_share: float = 0.01
    precision: Precision = "auto"
    execution: Execution = "eager"
    device: str = "auto"

    def __post_init__(self) -> None:
        self._check_heads()
        steps = self.steps_per_forward
        _check(
            self,
            name=(bool(self.name), "not empty"),
            classes_per_batch=(self.classes_per_batch >= 1, ">= 1"),
            images_per_class=(self.images_per_class >= 2, "at least 2: a loss needs genuine pairs"),
            log_every=(self.log_every >= 1, "at least 1"),
            workers=(self.workers >= 1, "at least 1"),
            max_bad_share=(0 <= self.max_bad_share <= 1, "in [0, 1]"),
            steps_per_forward=(steps is None or steps >= 1, "at least 1, or None"),
            precision=_one_of(self.precision, Precision),
            execution=_one_of(self.execution, Execution),
        )

    def _check_heads(self) -> None:
        if not self.branches:
            rule = "given, unless branches are"
            _check(self, head=(self.head is not None, rule), loss=(self.loss is not None, rule))
            return
        for field in ("head", "loss", "teacher", "head_weights", "head_seed"):
            value = getattr(self, field)
            require(value is None, field, value, "left out: each of the branches has its own")
        names = [branch.name for branch in self.branches]
        folders = {name.casefold() for name in names}
        require(len(folders) == len(names), "branches", names, "of different names, in any case")
        for place, branch in enumerate(self.branches):
            later = branch.teacher in names[place:]
            rule = f"a branch before {branch.name!r}, or a path"
            require(not later, f"branches.{branch.name}.teacher", branch.teacher, rule)
            own, steps = (
                f"{schedule.epochs} x {schedule.steps_per_epoch} steps"
                for schedule in (branch.schedule or self.schedule, self.schedule)
            )
            require(own == steps, f"branches.{branch.name}.schedule", own, "as long as the run's")

    @property
    def sources(self) -> tuple[str, ...]:
        """`train_images` as a tuple."""
        return (self.train_images,) if isinstance(self.train_images, str) else self.train_images

    def branch_config(self, branch: Branch) -> TrainConfig:
        """Return the config that trains one of the branches by itself.

        To the same weights, unless its teacher is another branch.
        """
        return dataclasses.replace(
            self,
            name=f"{self.name}-{branch.name}",
            branches=(),
            head=branch.head,
            loss=branch.loss,
            teacher=branch.teacher,
            head_seed=branch.seed,
            head_weights=branch.head_weights,
            schedule=branch.schedule or self.schedule,
        )

    @property
    def heads(self) -> dict[str, TrainConfig]:
        """The config of each head by itself, by its branch's name; "" where there are none."""
        if not self.branches:
            return {"": self}
        return {branch.name: self.branch_config(branch) for branch in self.branches}


def load_config(path: str | Path) -> TrainConfig:
    """Run a config file and return its `config`.

    Raises:
        ValueError: no such file, it does not define `config = TrainConfig(...)`, or it fails; the
            message has the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no config file {path}")
    open_input(path).close()  # whose errors are no mistakes of its lines
    try:
        with naming(path):
            config = runpy.run_path(str(path)).get("config")
    except ValueError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = ["?", *(frame.lineno for frame in frames if frame.filename == str(path))]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1]
        raise ValueError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"{path} does not define `config = TrainConfig(...)`; "
            "docs/migrating.md maps the original's flat config files"
        )
    return config


Plain = dict[str, Any]  # what `dataclasses.asdict` makes of a config
# Of the run's schedule; branches with a schedule of their own follow.
_SHARED = ("schedule.epochs", "schedule.steps_per_epoch", "schedule.drop_at")


def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return the config with `key=value` assignments applied, all of them before it is checked.

    `schedule.lr=3e-3` reaches into a nested field, `loss.margin=0.4` into a method's options,
    `branches.NAME.loss.margin=0.4` into a branch (`branches.*` into all), and `loss=idq:margin=0.4`
    replaces a method (see `parse_method`). Values are Python literals, anything else is taken as a
    string. Length and drops of the run's schedule, when set, are also those of its branches; a run
    that is made shorter loses the drops beyond its end, and logs its last step if it is shorter
    than `log_every`.

    Raises:
        ValueError: no `=`, an unknown field, or a value of the wrong type or out of range.
    """
    values = dataclasses.asdict(config)
    keys = set()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: expected key=value")
        keys.add(key.strip())
        _assign(values, key.strip(), _literal(text.strip()))
    if "schedule.epochs" in keys and "schedule.drop_at" not in keys:
        _shorten(values)
    config = _train_config(values)
    if "log_every" in keys or not keys & {"schedule.epochs", "schedule.steps_per_epoch"}:
        return config
    every = min(config.log_every, config.schedule.total_steps)
    return dataclasses.replace(config, log_every=every)


def parse_method(text: str) -> Method:
    """Read `name` or `name:option=value,option=value` of the command line.

    Values are Python literals, anything else is taken as a string; commas inside brackets belong to
    the value. ValueError for an option without `=` or without a name.
    """
    name, _, rest = text.partition(":")
    options: Plain = {}
    for part in re.split(r",(?![^(\[{]*[)\]}])", rest) if rest else ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{text}: expected name:option=value,option=value, got {part!r}")
        options[key.strip()] = _with_tuples(_literal(value.strip()))
    return Method(name, **options)


def to_json(config: TrainConfig) -> str:
    """Write a config as JSON that `from_json` reads back to an equal config."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> TrainConfig:
    """Read what `to_json` wrote, and run no code; ValueError where it is anything else."""
    return _train_config(parse_json(text))


def _train_config(values: object) -> TrainConfig:
    config: TrainConfig = parsed(TrainConfig, values, "config")
    return config


def _literal(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def _with_tuples(value: object) -> object:
    """Options are compared and passed on as tuples, which JSON does not have."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _assign(values: Plain, key: str, value: object) -> None:
    """Set one field of a plain config; ValueError for a field or branch that does not exist."""
    first, _, rest = key.partition(".")
    if first == "branches":
        _assign_branches(values, rest, value, key)
        return
    hint = ""
    if values["branches"] and first in ("head", "loss"):
        hint = f" in a config of branches; set branches.NAME.{key}, or branches.*.{key}"
    _put(values, key.split("."), value, key, hint)
    if key in _SHARED:
        for branch in values["branches"]:
            if branch["schedule"] is not None:
                branch["schedule"][rest] = value


def _assign_branches(values: Plain, rest: str, value: object, key: str) -> None:
    branches = {branch["name"]: branch for branch in values["branches"]}
    if not branches:
        raise ValueError(f"--set {key}: this config has one head and no branches; set head or loss")
    name, *path = rest.split(".")
    if not path:
        raise ValueError(
            f"--set {key}: set a field of a branch, such as branches.{next(iter(branches))}.loss, "
            "or of all, such as branches.*.loss"
        )
    if name != "*" and name not in branches:
        raise ValueError(f"--set {key}: no branch {name!r} (known: {', '.join(branches)}, *)")
    for branch in branches.values() if name == "*" else [branches[name]]:
        if path[0] == "schedule" and len(path) > 1 and branch["schedule"] is None:
            branch["schedule"] = dict(values["schedule"])
        _put(branch, path, value, key, "")


def _put(node: Plain, path: list[str], value: object, key: str, hint: str) -> None:
    *parents, last = path
    for name in parents:
        _require_field(node, name, key)
        node = node[name]
        if not isinstance(node, dict):
            raise ValueError(f"--set {key}: {name!r} has no fields{hint}")
    if set(node) == {"name", "options"} and last != "name":
        node["options"][last] = value
        return
    _require_field(node, last, key)
    node[last] = value


def _require_field(node: Plain, name: str, key: str) -> None:
    if name in node:
        return
    nested = [
        f"{field}.{name}"
        for field, inner in node.items()
        if isinstance(inner, dict) and name in {**inner, **inner.get("options", {})}
    ]
    close = nested or difflib.get_close_matches(name, node, n=1)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"--set {key}: no field {name!r}{hint} (known: {', '.join(node)})")


def _shorten(values: Plain) -> None:
    """Leave out the drops of the learning rate beyond the end of a run."""
    schedules = [values["schedule"], *(branch["schedule"] for branch in values["branches"])]
    for schedule in filter(None, schedules):
        if isinstance(schedule["epochs"], int):
            schedule["drop_at"] = [at for at in schedule["drop_at"] if at < schedule["epochs"]]


def parsed(kind: object, value: object, where: str) -> Any:
    """Check a plain value, as JSON has it, against a type and return it in that type.

    Types are dataclasses, TypedDicts, unions, literals, sequences, mappings, numbers (finite ones),
    text and truth values; anything else is taken as it is.

    Raises:
        ValueError: another type, with `where`.
    """
    if typing.is_typeddict(kind):
        return _parsed_dict(kind, value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _parsed_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _parsed_union(arguments, value, where)
    if origin is tuple and not isinstance(value, (list, tuple)):
        value = (value,)
    if origin in (tuple, list, Sequence) and isinstance(value, (list, tuple)):
        places = [_place(where, index, item) for index, item in enumerate(value)]
        return tuple(map(partial(parsed, arguments[0]), value, places))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: parsed(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is Literal:
        if value in arguments:
            return value
        known = ", ".join(map(repr, arguments))
        raise ValueError(f"{where} = {shown(value)}: must be one of {known}")
    if kind is float:
        is_finite = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
        if is_finite and type(value) is not bool:
            return float(typing.cast(float, value))
    elif type(value) is kind or (origin is None and kind not in _PLAIN):
        return value
    name = "a finite number" if kind is float else getattr(kind, "__name__", kind)
    raise ValueError(f"{where} = {shown(value)}: expected {name}")


_PLAIN = (int, str, bool, type(None))


def _parsed_dict(kind: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} = {shown(value)}: expected {', '.join(kind.__annotations__)}")
    if missing := kind.__required_keys__ - set(value):
        raise ValueError(f"{where} does not say {', '.join(sorted(missing))}")
    hints = typing.get_type_hints(kind)
    return {
        name: parsed(hints.get(name, Any), item, f"{where}.{name}") for name, item in value.items()
    }


def _parsed_dataclass(kind: Callable[..., object], value: object, where: str) -> object:
    hints = typing.get_type_hints(kind)
    if kind is Method and isinstance(value, str):
        return parse_method(value)
    if not isinstance(value, Mapping):
        expected = f"the fields of {kind.__name__}: {', '.join(hints)}"
        raise ValueError(f"{where} = {shown(value)}: expected {expected}")
    if kind is Method:
        name, options = value.get("name"), value.get("options", {})
        if not (isinstance(name, str) and isinstance(options, Mapping) and len(value) <= 2):
            raise ValueError(f"{where} = {shown(value)}: expected name and options of a method")
        return Method(name, **{str(key): _with_tuples(item) for key, item in options.items()})
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"{where}: no field {', '.join(sorted(map(repr, unknown)))}")
    fields = {name: parsed(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        if not where.startswith("config.branches"):
            raise
        raise ValueError(f"{where.removeprefix('config.')}: {error}") from error


def _parsed_union(kinds: tuple[object, ...], value: object, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1 and dataclasses.is_dataclass(others[0]):
        return parsed(others[0], value, where)
    for kind in kinds:
        try:
            return parsed(kind, value, where)
        except ValueError:
            continue
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise ValueError(f"{where} = {shown(value)}: expected {names}")


def _place(where: str, index: int, item: object) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    return f"{where}[{index}]" if name is None else f"{where}.{name}"
