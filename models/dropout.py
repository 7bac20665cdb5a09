"""Dropout of backbone features, the same for every image: for scores that look at the spread.

MC-dropout and SER-FIQ share it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of dropped features at a time. On a CPU 64 rows (6 MB at 25088 features) stay in the cache:
# dropping and a light tail run several times as fast as with 512.
_ROWS = {"cpu": 64}
_MOST_ROWS = 2048


def rows_at_once(device: torch.device) -> int:
    """Return how many dropped feature vectors to hold at a time."""
    return _ROWS.get(device.type, _MOST_ROWS)


def dropout_masks(features: int, passes: int, rate: float, seed: int) -> Tensor:
    """Draw which features each pass keeps, (passes, features) bool, on the CPU.

    One draw per pass from a generator of that seed: the first passes are the same whatever their
    number, on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    keep = [torch.rand(features, generator=generator) >= rate for _ in range(passes)]
    return torch.stack(keep)
