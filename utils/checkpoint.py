"""Files of tensors: written whole or not at all, and read without running anything in them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

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
    """Read what torch.save or safetensors wrote, onto the CPU; tensors and plain data only.

    Raises:
        ValueError: no such file, a damaged one, one of another kind (named), or content that would
            have run code (named).
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if path.suffix == ".onnx":
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


def _is_torchscript(path: Path) -> bool:
    """Whether a zip file has the constants that torch.jit.save puts there, and no torch.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
