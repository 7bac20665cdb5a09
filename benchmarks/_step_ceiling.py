"""What a machine can do at most, and what a backbone asks for: for benchmarks/step.py."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import synchronise
from models.frozen import FrozenBackbone

RUNS = 7


def ceilings(device: torch.device, dtype: torch.dtype | None) -> dict[str, float]:
    """Return FLOP/s of a large matrix product and a large 3 x 3 convolution, channels last.

    Args:
        device: where.
        dtype: None is float32, on CUDA with TF32 where convolutions use it.
    """
    on_gpu = device.type == "cuda"
    size, images = (8192, 256) if on_gpu else (2048, 16)
    square = torch.randn(size, size, device=device).to(dtype or torch.float32)
    maps = torch.randn(images, 256, 28, 28, device=device, dtype=square.dtype)
    kernel = torch.randn(256, 256, 3, 3, device=device, dtype=square.dtype)
    maps, kernel = (one.to(memory_format=torch.channels_last) for one in (maps, kernel))
    flops = {
        "matrix product": 2.0 * size**3,
        "convolution": 2.0 * images * 28 * 28 * 256 * 256 * 9,
    }
    with torch.no_grad():
        return {
            "matrix product": flops["matrix product"] / _best(lambda: square @ square, device),
            "convolution": flops["convolution"]
            / _best(lambda: torch.nn.functional.conv2d(maps, kernel, padding=1), device),
        }


def _best(run: Callable[[], Tensor], device: torch.device) -> float:
    """Return the least of RUNS timings: other work on the machine can only add to it."""
    taken = []
    for _ in range(RUNS):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def flops_per_image(frozen: FrozenBackbone) -> float:
    """Return the operations of one forward pass of the backbone; a multiply and add are two."""
    pixels = torch.zeros(1, 3, 112, 112, device=frozen.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        frozen.backbone(pixels)
    return float(counter.get_total_flops())
