"""Files of tensors: checkpoints, and weights that fit a network completely or not at all.

They are written whole or not at all. They may come from strangers: only tensors and plain data are
ever read, nothing in a file is run.
"""

from __future__ import annotations

import inspect
import io
import logging
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.backbones.base import Backbone
from models.heads.base import Head
from utils.config import Method, from_json, parsed
from utils.files import DAMAGE, check_archive, file_sha256, naming, open_input, write_bytes
from utils.methods import build, find
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
_LONGEST = 1 << 12  # letters of a word in a pickle
_MOST_INDEX = 1 << 21  # bytes of a file beside those of its tensors: they are read at 1 MB/s
_CALLS = 100  # of PyTorch to make one tensor of a network, at most
_SMALL = 1 << 27  # numbers that a network may have beyond twice those of its file: half a GiB


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
    holding = [name for name, value in content.items() if _leads_to_tensors(value, set())]
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


def _leads_to_tensors(value: object, seen: set[int]) -> bool:
    """Whether a mapping has named tensors, or mappings of such; an optimizer's have numbers."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    if id(value) in seen:
        return False
    seen.add(id(value))
    return _has_tensors(value) or any(_leads_to_tensors(inner, seen) for inner in value.values())


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
    backbone = build_backbone(method, tensors, path)
    tensors = _inside(path, tensors, backbone)
    load_state(backbone, backbone.starting_from(tensors), path, f"backbone {method!r}")
    return backbone.eval()


def build_backbone(method: Method, tensors: Mapping[str, Tensor], path: str | Path) -> Backbone:
    """Build the backbone that a file's tensors are to fill; ValueError where it cannot be."""
    check_size("models.backbones", method, tensors, path)
    try:
        backbone: Backbone = build("models.backbones", method, weights=tensors, source=str(path))
    except DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"backbone {method!r} cannot be built: {reason}") from error
    return backbone


def check_size(
    package: str, method: Method, tensors: Mapping[str, Tensor], path: str | Path, **runtime: object
) -> None:
    """Refuse a network of more numbers than the file has that is to fill it.

    It is built without memory for that, on PyTorch's meta device. One that cannot be built there,
    or is made of the tensors themselves, is not checked.

    Raises:
        ValueError: it is larger; or see `build`.
    """
    if "weights" in inspect.signature(find(package, method.name)).parameters:
        return
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors.values()}
    held = sum(
        tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in storages.values()
    )
    limit = _CallsLimited(_CALLS * (len(tensors) + _CALLS))
    try:
        # the limit may end an initialisation before it turns gradients on again
        with torch.set_grad_enabled(torch.is_grad_enabled()), torch.device("meta"), limit:
            outline: nn.Module = build(package, method, **runtime)
    except _TooManyCallsError as error:
        raise ValueError(f"{path}: {method!r} has more layers than the file") from error
    except DAMAGE:  # a class that computes with numbers; or building it for good says what is wrong
        return
    size = sum(tensor.numel() for tensor in outline.state_dict().values())
    if size > 2 * held + _SMALL:
        raise ValueError(f"{path}: {method!r} has {size} numbers, and the file holds {held}")


class _TooManyCallsError(Exception):
    pass


class _CallsLimited(TorchFunctionMode):
    """Ends the making of a network of very many layers, each of which takes some calls."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        self._left -= 1
        if self._left < 0:
            raise _TooManyCallsError
        return func(*args, **(kwargs or {}))


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
            tensors, a tensor of whole numbers for one of fractions, or one with NaN or infinite
            values.
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
        own = expected[name]
        if own.is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, not {own.dtype}")
        _require_finite(path, name, tensor.to(own.dtype) if own.is_floating_point() else tensor)
    module.load_state_dict(dict(tensors), strict=False)


def _require_finite(path: str | Path, name: str, tensor: Tensor) -> None:
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{path}: {name} has {bad} of {tensor.numel()} values that are NaN or infinite: "
            "the file is damaged, or its training diverged; take an earlier checkpoint"
        )


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
    buffer = io.BytesIO()  # since PyTorch makes an error of its own of a full disk
    torch.save({"format": FORMAT, **payload}, buffer)
    with buffer.getbuffer() as content:
        write_bytes(path, content)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of network.py onto the CPU.

    Raises:
        ValueError: see `read_safely`, or the file is something else than a checkpoint of ours, or
            a tensor of head or optimizer holds NaN or infinite values.
    """
    payload = read_safely(path)
    with naming(path, *DAMAGE):
        if not isinstance(payload, dict) or payload.get("format") != FORMAT:
            raise ValueError(f"{path} is not a checkpoint of network.py (format {FORMAT})")
        parsed(_Parts, payload, "checkpoint")
        from_json(payload["config"])
    for name, tensor in _tensors(payload):
        _require_finite(path, name, tensor)
    return payload


class _Recorded(TypedDict):
    sha256: str
    preprocessing: dict[str, object]


class _States(TypedDict, total=False):
    head: dict[str, object]
    optimizer: dict[str, object]
    branches: dict[str, dict[str, object]]


class _Parts(_States):
    """What a checkpoint is made of."""

    config: str
    backbone: _Recorded
    step: int


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
            with open_input(path) as file:
                content = file.read()  # not from a map of a file that can change
            index = int.from_bytes(content[:8], "little")
            _check_index(path, index if index < len(content) else 0)
            return load(content)
        except (SafetensorError, *DAMAGE) as error:
            raise ValueError(f"{path}: damaged safetensors file ({error})") from error
    names = check_archive(path)
    if any(name.endswith("/constants.pkl") for name in names):  # as torch.jit.save has
        raise ValueError(
            f"{path} is a TorchScript program, which would run code: refused. Where it came from, "
            "save its weights alone: torch.save(torch.jit.load(file).state_dict(), other_file)"
        )
    try:
        _check_texts(path, [name for name in names if name.endswith("/data.pkl")])
        with warnings.catch_warnings(action="ignore"):  # of a pickle that torch.save did not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise anything
        if str(error).startswith(f"{path}:"):
            raise
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            # not torch's own words: for some files they advise to load without the safeguard
            raise ValueError(f"{path} is not a file of tensors, or is incomplete") from error
        raise ValueError(
            f"{path} holds {refused[1]}, which is not a tensor and could run code: refused. Save "
            "the weights alone, as torch.save(network.state_dict(), file)"
        ) from error
    _check_plain(path, content)
    return content


def _check_plain(path: Path, content: object) -> None:
    """Raise ValueError for a tensor that is not an array of real numbers, each in the file."""
    for name, tensor in _tensors(content):
        if oddity := _oddity(tensor):
            raise ValueError(
                f"{path}: {name or 'it'} is {oddity}: refused. Save plain tensors of real numbers, "
                "as tensor.to_dense().clone()"
            )


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file by name, however deep; what is there twice comes once."""
    waiting = [("", content)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            waiting += [(f"{name}.{key}".lstrip("."), part) for key, part in parts]


def _oddity(tensor: Tensor) -> str:
    kinds = {
        "a meta tensor, without numbers": tensor.is_meta,
        "a nested tensor": tensor.is_nested,
        f"a sparse tensor ({tensor.layout})": tensor.layout != torch.strided,
        "a quantised tensor": tensor.is_quantized,
        "a complex tensor": tensor.is_complex(),
    }
    for kind, holds in kinds.items():
        if holds:
            return kind
    size, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    return f"a tensor of {size} bytes, of which the file has {stored}" if size > stored else ""


def _check_index(path: Path, size: int) -> None:
    """Refuse a file that takes very long to read: of so many bytes beside the tensors' own."""
    if size > _MOST_INDEX:
        raise ValueError(
            f"{path}: more than {_MOST_INDEX} bytes of names and plain data: save the weights "
            "alone, as torch.save(network.state_dict(), file)"
        )


def _check_texts(path: Path, tables: Sequence[str]) -> None:
    """Refuse pickles with an endless word: PyTorch would look through it for hours.

    Args:
        path: of the file, a zip archive or up to five pickles and then tensors.
        tables: the pickles in an archive.

    Raises:
        ValueError: such a word, or no pickle.
    """
    with ExitStack() as stack:
        file: Any = stack.enter_context(open_input(path))
        if tables:
            archive = stack.enter_context(zipfile.ZipFile(file))
            for name in tables:
                _check_index(path, archive.getinfo(name).file_size)
            pickles: list[Any] = [stack.enter_context(archive.open(name)) for name in tables]
        else:
            pickles = [file] * 5
        for stream in pickles:
            for _, value, place in pickletools.genops(stream) if stream.peek(1) else ():
                _check_index(path, place or 0)
                if isinstance(value, str) and max(map(len, value.split()), default=0) > _LONGEST:
                    raise ValueError(f"a text of {len(value)} letters")
