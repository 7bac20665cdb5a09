"""Files of tensors: checkpoints, and weights that fit a network completely or not at all.

They are written whole or not at all. They may come from strangers: only tensors and plain data are
ever read, nothing in a file is run.
"""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.heads.base import Head
from utils.config import Method
from utils.files import atomic_file, check_archive, file_sha256
from utils.methods import build
from utils.onnx_runtime import is_onnx, network_files, read_network

log = logging.getLogger("faceuq")

FORMAT = 1  # of a checkpoint
Checkpoint: TypeAlias = dict[str, Any]  # of names, as docs/formats.md lists them
_WRAPPERS = (
    *("state_dict", "model", "state_dict_backbone", "backbone", "net_state_dict"),
    *("model_state_dict", "net", "network"),
)
_WRAPPING = re.compile(r"^((module|_orig_mod)\.)+")  # DistributedDataParallel, torch.compile
_PROBLEMS = ("missing", "unexpected", "of another shape")
_MAX_NAMES = 3


def load_tensors(path: str | Path, wrappers: Sequence[str] = _WRAPPERS) -> dict[str, Tensor]:
    """Read a file of named tensors onto the CPU.

    A state dict is taken as it is, or out of a checkpoint that holds it under one of `wrappers` or
    under the only name with tensors; the `module.` and `_orig_mod.` that wrappers for several GPUs
    and torch.compile put before names are removed.

    Raises:
        ValueError: there is no such file, it is not a tensor file, it would run code, or it holds
            something else than named tensors.
    """
    path = Path(path)
    content = read_safely(path)
    while isinstance(content, Mapping) and content and not _has_tensors(content):
        content = content[_weights_entry(path, content, wrappers)]
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
        name = _WRAPPING.sub("", key).replace("._orig_mod.", ".")
        if name in tensors:
            raise ValueError(f"{path}: {name!r} is there twice, with and without a prefix")
        tensors[name] = value
    return tensors


def _has_tensors(content: Mapping[object, object]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _weights_entry(path: Path, content: Mapping[str, object], wrappers: Sequence[str]) -> str:
    """Name of the entry of a checkpoint that holds the weights, below others or itself."""
    holding = [name for name, value in content.items() if _leads_to_tensors(value)]
    entry = next((name for name in wrappers if name in holding), None)
    if entry is None and len(holding) == 1:
        [entry] = holding
    if entry is None:
        names = ", ".join(map(repr, holding)) or "none"
        raise ValueError(
            f"{path}: which entry has the weights? Those that hold tensors: {names}. Save one of "
            "them alone, as torch.save(checkpoint[name], file)"
        )
    return entry


def _leads_to_tensors(value: object) -> bool:
    """Whether a mapping has named tensors, or mappings of such; an optimizer's have numbers."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return _has_tensors(value) or any(map(_leads_to_tensors, value.values()))


def read_onnx(path: str | Path) -> dict[str, Tensor]:
    """Read an ONNX file as the one tensor, of bytes, that the backbone `onnx` keeps.

    Raises:
        ValueError: see `read_network`, or there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}")
    return {"onnx": torch.frombuffer(bytearray(read_network(path)), dtype=torch.uint8)}


def weights_files(path: str | Path) -> tuple[Path, ...]:
    """Return a file of weights, and those beside an ONNX file that hold its weights."""
    return network_files(Path(path)) if is_onnx(path) else (Path(path),)


def weights_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file of weights; of several, that of theirs in a row."""
    hashes = [file_sha256(file) for file in weights_files(path)]
    return hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()


def load_backbone(method: Method, path: str | Path) -> Backbone:
    """Build a backbone and fill it with the weights of a file, in eval mode.

    Raises:
        ValueError: see `load_tensors` and `load_state`.
    """
    if is_onnx(path) and method.name != "onnx":
        raise ValueError(
            f"{path} is an ONNX model, and backbone {method!r} does not go with it: take "
            'backbone=Method("onnx"), or --backbone_name onnx'
        )
    tensors = read_onnx(path) if is_onnx(path) else load_tensors(path)
    backbone: Backbone = build("models.backbones", method, weights=tensors, source=str(path))
    tensors = _inside(path, tensors, backbone)
    load_state(backbone, backbone.starting_from(tensors), path, f"backbone {method!r}")
    return backbone.eval()


def _inside(path: str | Path, tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network that was saved as a part of something, such as `encoder.`."""
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    prefixes = [
        prefix
        for prefix in (name.removesuffix(names[0]) for name in tensors if name.endswith(names[0]))
        if all(prefix + name in tensors for name in names)
    ]
    if len(prefixes) > 1:
        raise ValueError(
            f"{path} has the network more than once, below {' and '.join(map(repr, prefixes))}: "
            "save one of them alone"
        )
    if prefixes in ([], [""]):
        return tensors
    [prefix] = prefixes
    if others := [name for name in tensors if not name.startswith(prefix)]:
        log.info("%s: the backbone is below %r; not read: %s", path, prefix, _some(others))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


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
            tensors, or a tensor with NaN or infinite values.
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
        f"{len(names)} {kind}: {_some(names)}"
        for kind, names in zip(_PROBLEMS, (missing, unexpected, misshaped), strict=True)
        if names
    ]
    if problems:
        way_out = _same_shapes(missing, unexpected, expected, tensors)
        raise ValueError(f"{path} does not fit {what}: {'; '.join(problems)}{way_out}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(
                f"{path}: {name} has {bad} of {tensor.numel()} values that are NaN or infinite: "
                "the file is damaged, or its training diverged; take an earlier checkpoint"
            )
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


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names) - _MAX_NAMES} more)" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _kind(value: object) -> str:
    return "an empty mapping" if isinstance(value, Mapping) and not value else type(value).__name__


def save_checkpoint(path: Path, payload: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Only tensors, numbers, strings, and lists and dicts of them can be read back.
    """
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **payload}, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of network.py onto the CPU.

    Raises:
        ValueError: see `read_safely`, or the file is something else than a checkpoint of ours.
    """
    payload = read_safely(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of network.py (format {FORMAT})")
    return payload


def read_safely(path: Path) -> Any:
    """Read what torch.save or safetensors wrote, onto the CPU; tensors and plain data only.

    Raises:
        ValueError: no such file, a damaged one, one of another kind (named), or content that would
            have run code (named).
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if is_onnx(path):
        raise ValueError(
            f"{path} is an ONNX model, not a file of weights: a recogniser is the backbone `onnx` "
            f"with it, and what export/export.py wrote is evaluated as --model {path}"
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: damaged safetensors file ({error})") from error
    if _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript program, which would run code: refused. Where it came from, "
            "save its weights alone: torch.save(torch.jit.load(file).state_dict(), other_file)"
        )
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle that torch.save did not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise anything
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            # not torch's own words: for some files they advise to load without the safeguard
            raise ValueError(f"{path} is not a file of tensors, or is incomplete") from error
        raise ValueError(
            f"{path} holds {refused[1]}, which is not a tensor and could run code: refused. Save "
            "the weights alone, as torch.save(network.state_dict(), file)"
        ) from error


def _is_torchscript(path: Path) -> bool:
    """Whether a zip file has the constants that torch.jit.save puts there, and no torch.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
