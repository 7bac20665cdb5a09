"""Where to compute and in which precision: the only place that asks what hardware there is."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.config import Precision

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # in glibc's malloc.h


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA, then MPS, then the CPU.

    Raises:
        ValueError: not a device name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device = {name!r}: use auto, cpu, cuda, cuda:N or mps") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ValueError(f"device = {name!r}: this machine has no such device; use auto or cpu")
    return device


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the autocast type of the frozen backbone, None for plain float32.

    "auto" keeps a CPU in float32, where results are the reference, and takes bfloat16 on a GPU that
    has it, float16 elsewhere.

    Raises:
        ValueError: not a precision.
    """
    if precision == "auto":
        if device.type == "cpu":
            return None
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float16
    types = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise ValueError(f"precision = {precision!r}: must be one of auto, {', '.join(types)}")
    return types[precision]


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on the device; the CPU shares its memory.

    A CUDA device gets it through pinned memory, and the host goes on at once.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def all_to_device(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Bring small arrays to the device in one transfer, where each would cost a launch of its own.

    No array is empty. Tensors of their shapes and types come back in order, views of one buffer.
    """
    if not arrays:
        return []
    by_type: dict[np.dtype[Any], list[int]] = {}
    for place, array in enumerate(arrays):
        by_type.setdefault(array.dtype, []).append(place)
    # Wide types first, so that each begins at a multiple of its width.
    groups = sorted(by_type.values(), key=lambda places: -arrays[places[0]].itemsize)
    flat = [np.concatenate([arrays[place].ravel() for place in places]) for places in groups]
    buffer = to_device(np.concatenate([group.view(np.uint8) for group in flat]), device)
    tensors: dict[int, Tensor] = {}
    parts = buffer.split([group.nbytes for group in flat])
    for places, group, part in zip(groups, flat, parts, strict=True):
        pieces = part.view(torch.from_numpy(group).dtype).split(
            [arrays[place].size for place in places]
        )
        for place, piece in zip(places, pieces, strict=True):
            tensors[place] = piece.view(arrays[place].shape)
    return [tensors[place] for place in range(len(arrays))]


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: of the GPU, or of this process where there is none.

    0 on Windows without a GPU, which keeps no such record for a process to read.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def describe_device(device: torch.device) -> str:
    """Return the device in words, for the environment record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, so that a batch need not ask for its pages again; CPU alone.

    By default it hands large blocks back at once, and the system fills each new page with zeros:
    in MobileFaceNet that is a quarter of the time. Elsewhere than on Linux nothing changes.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            # larger blocks are not kept; older versions accept 32 MB at most
            any(mallopt(_MMAP_THRESHOLD, size << 20) for size in (64, 32))
            mallopt(_TRIM_THRESHOLD, 1 << 30)
