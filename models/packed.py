"""One file with a whole model: config, backbone, head, preprocessing, calibration, provenance.

export/pack_model.py writes it; the scorer and the export read it, without a run folder.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.base import Backbone, Preprocessing
from models.frozen import FrozenBackbone
from models.load import load_state
from models.run import Run, build_head
from utils.checkpoint import read_safely, save_checkpoint
from utils.config import Execution, Precision, TrainConfig, from_json, to_json
from utils.device import resolve_device
from utils.methods import build

KIND = "face-uncertainty model"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """What a model file says of itself, for people."""

    name: str
    license: str  # of its weights, in words; "unknown, research only" is an answer too
    source: str  # of the backbone's weights; "" where nobody said
    sha256: str  # of the backbone's original file
    label: str  # a warning or a remark that every output shows; "" for none
    colour_check: dict[str, Any] | None  # what export/colour_order.py found, if it was run
    created: str  # date, as in 2026-01-31
    version: str  # of the code that packed it

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> About:
        """Build from the plain values of a file.

        Raises:
            ValueError: an entry that is missing, unknown or of another type.
        """
        wrong = sorted(set(stored) ^ {field.name for field in dataclasses.fields(cls)})
        if wrong:
            raise ValueError(f"missing or unknown entries of about: {', '.join(wrong)}")
        for name, value in stored.items():
            kinds = (dict, type(None)) if name == "colour_check" else (str,)
            if not isinstance(value, kinds):
                raise ValueError(f"about.{name} is {type(value).__name__}")
        return cls(**stored)


@dataclass(frozen=True, kw_only=True)
class PackedModel(Run):
    """A model as it comes out of its file; the paths in its config are file names alone."""

    calibration: dict[str, Any] | None  # what `Calibration.from_dict` of evaluation reads
    about: About


def code_version() -> str:
    """Return the version of the installed code; "unknown" where it runs from a bare checkout."""
    try:
        return metadata.version("face-uncertainty")
    except metadata.PackageNotFoundError:
        return "unknown"


def save_packed(
    path: str | Path,
    run: Run,
    about: About,
    calibration: dict[str, Any] | None = None,
    *,
    half: bool = False,
) -> None:
    """Write a run's model as one file, whole or not at all.

    Paths in the config are cut down to file names. Tensors that float16 holds without any loss are
    stored as that, and with `half` the backbone's weights too, though not its biases and
    statistics; they come back as float32.
    """
    payload = {
        "kind": KIND,
        "version": VERSION,
        "config": to_json(without_paths(run.config)),
        "preprocessing": run.frozen.preprocessing.to_dict(),
        "backbone": _stored(run.frozen.unfolded(), half),
        "head": _stored(run.head, half=False),
        "calibration": calibration,
        "about": dataclasses.asdict(about),
    }
    save_checkpoint(Path(path), payload)


def load_packed(
    path: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
) -> PackedModel:
    """Read a file of `save_packed`; nothing in it is executed.

    Device, precision and execution are as in `TrainConfig`.

    Raises:
        ValueError: no such file, a damaged, unsafe or foreign one, one of another version, or
            tensors that are missing, unexpected or of another shape (named).
    """
    path = Path(path)
    payload = _payload(path)
    try:
        config = from_json(payload["config"])
        about = About.from_dict(payload["about"])
        backbone: Backbone = build(
            "models.backbones", config.backbone, weights=payload["backbone"], source=str(path)
        )
        backbone.preprocessing = Preprocessing.from_dict(payload["preprocessing"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    load_state(backbone, payload["backbone"], path, f"backbone {config.backbone!r}")
    frozen = FrozenBackbone(backbone, resolve_device(device), precision, execution)
    head = build_head(config, frozen)
    load_state(head, payload["head"], path, f"head {config.head!r}")
    run = path, config, frozen, head.eval(), 0, about.sha256, (path,)
    return PackedModel(*run, calibration=payload["calibration"], about=about)


def is_packed(path: str | Path) -> bool:
    """Whether a file is one of `save_packed`; looks at its table of contents, loads no tensor."""
    try:
        with zipfile.ZipFile(path) as archive:
            tables = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return len(tables) == 1 and KIND.encode() in archive.read(tables[0])
    except (OSError, zipfile.BadZipFile):
        return False


def without_paths(config: TrainConfig) -> TrainConfig:
    """Return the config with file names for paths: a model file goes to others."""
    plain = _without_folders(dataclasses.asdict(config))
    return from_json(json.dumps({**plain, "head_weights": None}))


def _without_folders(value: Any) -> Any:
    """Cut folders off every string: `faces:/data/people.rec` -> `faces:people.rec`."""
    if isinstance(value, str):
        return re.sub(r"^(\w\w+:)?.*[/\\](?=.)", r"\1", value.rstrip("/\\") or value)
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    return [_without_folders(item) for item in value] if isinstance(value, list | tuple) else value


def _stored(module: nn.Module, half: bool) -> dict[str, Tensor]:
    """Return float16 tensors where that loses nothing, or may lose; else clones."""
    stored = {}
    for name, tensor in module.state_dict().items():
        tensor, halved = tensor.cpu(), tensor.cpu().half()
        fits = tensor.dtype == torch.float32 and (
            (half and tensor.ndim > 1) or torch.equal(halved.float(), tensor)
        )
        stored[name] = halved if fits else tensor.clone()
    return stored


_PARTS: dict[str, type | tuple[type, ...]] = {
    "config": str,
    "preprocessing": dict,
    "backbone": dict,
    "head": dict,
    "calibration": (dict, type(None)),
    "about": dict,
}


def _payload(path: Path) -> dict[str, Any]:
    """Read the file and check what it is made of."""
    payload = read_safely(path)
    if not isinstance(payload, dict) or payload.get("kind") != KIND:
        is_run = isinstance(payload, dict) and "step" in payload
        raise ValueError(
            f"{path} is not a packed model but {'a checkpoint' if is_run else 'another file'}; "
            "export/pack_model.py makes one from a run folder"
        )
    if payload.get("version") != VERSION:
        raise ValueError(
            f"{path}: version {payload.get('version')!r} of a model file is not known (known: "
            f"{VERSION}); it may need newer code"
        )
    for name, kind in _PARTS.items():
        if not isinstance(payload.get(name, ...), kind):
            actual = type(payload[name]).__name__ if name in payload else "missing"
            raise ValueError(f"{path}: part {name!r} of the model file is {actual}")
    for name in ("backbone", "head"):
        wrong = [key for key, value in payload[name].items() if not isinstance(value, Tensor)]
        if wrong:
            raise ValueError(f"{path}: {name} entry {wrong[0]!r} is not a tensor")
    return payload
