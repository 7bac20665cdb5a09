"""Read weights without running code, and put them into a network completely or not at all.

Files may come from strangers: only tensors are ever read, never pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from models.backbones.base import Backbone
from models.heads.base import Head
from utils.checkpoint import read_safely
from utils.config import Method
from utils.methods import build

_WRAPPERS = ("state_dict", "model")
_PROBLEMS = ("missing", "unexpected", "of another shape")
_MAX_NAMES = 8


def load_tensors(path: str | Path, wrappers: Sequence[str] = _WRAPPERS) -> dict[str, Tensor]:
    """Read a file of named tensors onto the CPU.

    A state dict is taken as it is, or out of a checkpoint that holds it under one of `wrappers`;
    the `module.` that wrappers for several GPUs put before names is removed.

    Raises:
        ValueError: there is no such file, it is not a tensor file, it would run code, or it holds
            something else than named tensors.
    """
    path = Path(path)
    content = read_safely(path)
    for key in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds {_kind(content)}, not named tensors (a state dict)")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError(f"{path}: entry {key!r} has no name; expected a state dict")
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{path}: entry {key!r} is {_kind(value)}, not a tensor; expected a state dict, "
                f"bare or under {' or '.join(map(repr, wrappers))}"
            )
        name = key.removeprefix("module.")
        if name in tensors:
            raise ValueError(f"{path}: {name!r} is there twice, with and without 'module.'")
        tensors[name] = value
    return tensors


def load_backbone(method: Method, path: str | Path) -> Backbone:
    """Build a backbone and fill it with the weights of a file, in eval mode.

    Raises:
        ValueError: see `load_tensors` and `load_state`.
    """
    tensors = load_tensors(path)
    backbone: Backbone = build("models.backbones", method)
    load_state(backbone, backbone.starting_from(tensors), path, f"backbone {method!r}")
    return backbone.eval()


def load_head(head: Head, path: str | Path) -> None:
    """Fill a head with the weights of a file: those of the original have the same names.

    A checkpoint of a run of ours will do as well, and what else the head can start from.

    Raises:
        ValueError: see `load_tensors` and `load_state`.
    """
    tensors = head.starting_from(load_tensors(path, (*_WRAPPERS, "head")))
    load_state(head, tensors, path, f"head {type(head).__name__}")


def load_state(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, what: str
) -> None:
    """Copy tensors into a module; every name and shape has to fit, or nothing is changed.

    Only `num_batches_tracked` may be missing: files converted from other frameworks or saved by
    very old versions of PyTorch lack it, and eval mode never reads it.

    Raises:
        ValueError: names the file, the module (`what`), and the missing, unexpected and mis-shaped
            tensors.
    """
    expected = module.state_dict()
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(own.shape)}"
        for name, own in expected.items()
        if name in tensors and tensors[name].shape != own.shape
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:_MAX_NAMES])}"
        + (f", ... ({len(names) - _MAX_NAMES} more)" if len(names) > _MAX_NAMES else "")
        for kind, names in zip(_PROBLEMS, (missing, unexpected, misshaped), strict=True)
        if names
    ]
    if problems:
        way_out = _same_shapes(missing, unexpected, expected, tensors)
        raise ValueError(f"{path} does not fit {what}: {'; '.join(problems)}{way_out}")
    module.load_state_dict(dict(tensors), strict=False)


def _same_shapes(
    missing: Sequence[str],
    unexpected: Sequence[str],
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> str:
    """Say how to rename, where the unexpected tensors have the missing ones' shapes in order."""
    own = [(name, expected[name].shape) for name in missing]
    others = [name for name in unexpected if not name.endswith("num_batches_tracked")]
    if not own or [tensors[name].shape for name in others] != [shape for _, shape in own]:
        return ""
    return (
        f". Shapes agree in this order, as {others[0]} for {missing[0]}: give the class "
        "published_names (docs/adding_a_method.md)"
    )


def _kind(value: object) -> str:
    return "an empty mapping" if isinstance(value, Mapping) and not value else type(value).__name__
