"""Files of tensors: written whole or not at all, and read without running anything in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from utils.files import atomic_file

FORMAT = 1


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Only tensors, numbers, strings, and lists and dicts of them can be read back.
    """
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **payload}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of network.py onto the CPU.

    Raises:
        ValueError: see `read_safely`, or the file is something else than a checkpoint of ours.
    """
    payload = read_safely(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of network.py (format {FORMAT})")
    return payload


def read_safely(path: Path) -> Any:
    """Read what torch.save wrote, onto the CPU; tensors and plain data only.

    Raises:
        ValueError: no such file, a damaged one, or content that would have run code (named).
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    try:
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
