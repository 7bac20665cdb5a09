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

from models.backbones.base import Backbone
from models.frozen import FrozenBackbone
from models.load import load_state
from models.preprocessing import Preprocessing
from models.run import Run, build_head
from utils.checkpoint import read_safely, save_checkpoint
from utils.config import Execution, Precision, TrainConfig
from utils.config_json import from_json, to_json
from utils.device import resolve_device
from utils.methods import build

KIND = "face-uncertainty model"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class About:
    """What a model file says of itself, for people.

    Attributes:
        name: of the model.
        license: of its weights, in words; "unknown, research only" is an answer too.
        source: where the backbone's weights come from; "" where nobody said.
        sha256: of the backbone's original file.
        label: a warning or a remark that every output shows; "" for none.
        colour_check: what export/colour_order.py found; None where it was not asked.
        created: date, as in 2026-01-31.
        version: of the code that packed it.
    """

    name: str
    license: str
    source: str
    sha256: str
    label: str
    colour_check: dict[str, Any] | None
    created: str
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> About:
        """Build from what `to_dict` gave.

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
    """A model as it comes out of its file; the paths in its config are file names alone.

    Attributes:
        calibration: what `evaluation.confidence.calibration.Calibration.from_dict` reads; None
            where the model was packed without.
        about: see there.
    """

    calibration: dict[str, Any] | None
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

    Tensors that float16 holds without any loss are stored as that; they come back as they were.

    Args:
        path: the file; its folder is made where it is missing.
        run: config, backbone and head. Paths in the config are cut down to file names.
        about: see there.
        calibration: plain values, stored as they are.
        half: store the backbone's weights, though not its biases and statistics, as float16.
    """
    path = Path(path)
    payload = {
        "kind": KIND,
        "version": VERSION,
        "config": to_json(without_paths(run.config)),
        "preprocessing": run.frozen.preprocessing.to_dict(),
        "backbone": _stored(run.frozen.unfolded(), half),
        "head": _stored(run.head, half=False),
        "calibration": calibration,
        "about": about.to_dict(),
    }
    save_checkpoint(path, payload)


def load_packed(
    path: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
) -> PackedModel:
    """Read a file of `save_packed`; nothing in it is executed.

    Args:
        path: the file.
        device: see `TrainConfig.device`.
        precision: see `TrainConfig.precision`.
        execution: see `TrainConfig.execution`.

    Raises:
        ValueError: no such file, a damaged, unsafe or foreign one, one of another version, or
            tensors that are missing, unexpected or of another shape (named).
    """
    path = Path(path)
    payload = _payload(path)
    try:
        config = from_json(payload["config"])
        about = About.from_dict(payload["about"])
        backbone: Backbone = build("models.backbones", config.backbone)
        backbone.preprocessing = Preprocessing.from_dict(payload["preprocessing"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    load_state(backbone, payload["backbone"], path, f"backbone {config.backbone!r}")
    frozen = FrozenBackbone(backbone, resolve_device(device), precision, execution)
    head = build_head(config, frozen)
    load_state(head, payload["head"], path, f"head {config.head!r}")
    return PackedModel(
        path,
        config,
        frozen,
        head.eval(),
        0,
        about.sha256,
        (path,),
        calibration=payload["calibration"],
        about=about,
    )


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
    return {name: _smaller(tensor.cpu(), half) for name, tensor in module.state_dict().items()}


def _smaller(tensor: Tensor, half: bool) -> Tensor:
    """Return float16 where it loses nothing, or where it may lose; else the tensor."""
    if tensor.dtype != torch.float32:
        return tensor.clone()
    halved = tensor.half()
    fits = torch.equal(halved.float(), tensor)
    return halved if fits or (half and tensor.ndim > 1) else tensor.clone()


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
            kind_found = type(payload[name]).__name__ if name in payload else "missing"
            raise ValueError(f"{path}: part {name!r} of the model file is {kind_found}")
    for name in ("backbone", "head"):
        wrong = [key for key, value in payload[name].items() if not isinstance(value, Tensor)]
        if wrong:
            raise ValueError(f"{path}: {name} entry {wrong[0]!r} is not a tensor")
    return payload
