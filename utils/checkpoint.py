"""Checkpoints on disk: written whole or not at all, and read without running anything in them."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save_checkpoint(path: Path, payload: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a crash leaves the old file or the new one, never half of one.

    Args:
        path: the file to write.
        payload: tensors, numbers, strings, and lists and dicts of them; nothing else can be read
            back.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **payload}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; only tensors and plain data are admitted.

    Raises:
        ValueError: no such file, not a checkpoint of ours, or content that would have run code.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a checkpoint that can be read safely: {reason}") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of network.py (format {FORMAT})")
    return payload
