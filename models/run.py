"""Load a finished or interrupted training run: its config, frozen backbone and head.

For the evaluation scripts and anyone who scores faces with a trained head.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.backbones.base import Preprocessing
from models.frozen import FrozenBackbone
from models.heads.base import Head
from models.load import load_backbone, load_head
from utils.checkpoint import load_checkpoint
from utils.config import Execution, Method, Precision, TrainConfig, from_json, parse_method
from utils.device import resolve_device
from utils.files import file_sha256
from utils.methods import build, check_options


@dataclass(frozen=True)
class Run:
    """A trained head with the backbone that it was trained on, in eval mode on one device."""

    path: Path  # the run folder, or the packed file
    config: TrainConfig
    frozen: FrozenBackbone
    head: Head
    step: int  # of the optimizer; 0 where nobody knows
    sha256: str  # of the backbone's original weights file
    files: tuple[Path, ...]  # the weights of head and backbone


def parse_backbone(text: str) -> Method:
    """Read `iresnet50`, `mbf`, or `name:option=value,...` such as `iresnet:layers=(1,1,1,1)`.

    Raises:
        ValueError: no such backbone, or an option that it does not have.
    """
    short = re.fullmatch(r"(?:r|ir|resnet)_?(18|34|50|100|152|200)", text)
    if short:
        raise ValueError(f"no backbone {text!r}: did you mean 'iresnet{short[1]}'?")
    method = parse_method(re.sub(r"^iresnet(\d+):?", r"iresnet:depth=\1,", text).rstrip(","))
    check_options("models.backbones", method)
    return method


def open_backbone(
    backbone: str | Method,
    weights: str | Path,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
) -> FrozenBackbone:
    """Load a backbone, or one that `parse_backbone` reads, and freeze it on the device.

    Device, precision and execution are as in `TrainConfig`.

    Raises:
        ValueError: an unknown name or option, no weights file, or one that does not fit.
    """
    method = parse_backbone(backbone) if isinstance(backbone, str) else backbone
    network = load_backbone(method, weights)
    return FrozenBackbone(network, resolve_device(device), precision, execution)


def load_frozen(
    config: TrainConfig,
    device: str,
    precision: Precision,
    weights: str | None = None,
    execution: Execution = "eager",
) -> FrozenBackbone:
    """Build the config's backbone, load its weights and freeze it on the device.

    Raises:
        ValueError: no weights file, or one that does not fit.
    """
    path = Path(weights or config.backbone_weights)
    if weights and not path.is_file():
        raise ValueError(f"--backbone_weights {weights}: no such file")
    if not path.is_file():
        raise ValueError(
            f"backbone_weights = {str(path)!r}: no such file; name yours in the config, with --set "
            "backbone_weights=FILE, or with --backbone_weights FILE when evaluating"
        )
    return open_backbone(config.backbone, path, device, precision, execution)


def build_head(config: TrainConfig, frozen: FrozenBackbone) -> Head:
    """Build the config's head for the sizes of that backbone, on its device.

    It starts from `head_weights` where the config names such a file.
    """
    assert config.head is not None
    head: Head = build(
        "models.heads",
        config.head,
        features_shape=frozen.features_shape,
        embedding_size=frozen.embedding_size,
    )
    if config.head_weights is not None:
        load_head(head, config.head_weights)
    return head.to(frozen.device)


def branch_folders(path: str | Path) -> list[Path]:
    """Run folders of the branches that a run trained together, in the config's order.

    None for a run of one head, and for a folder that is not a run.

    Raises:
        ValueError: a branch without a trained head, or a damaged `config.json`.
    """
    path = Path(path)
    names = _branch_names(path)
    missing = [name for name in names if not (path / name / "best.pt").is_file()]
    if missing:
        raise ValueError(
            f"{path}: branches without best.pt: {', '.join(missing)} (written after each epoch; "
            f"resume with network.py --resume {path}, or name the folders of the others)"
        )
    return [path / name for name in names]


def _branch_names(path: Path) -> list[str]:
    file = path / "config.json"
    if (path / "best.pt").is_file() or not file.is_file():  # best.pt: a head of its own
        return []
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return [branch["name"] for branch in config.get("branches", [])]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a config of network.py ({error!r})") from error


def load_run(
    model_dir: str | Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
    backbone_weights: str | None = None,
    shared: Run | None = None,
) -> Run:
    """Load a run folder of `network.py`: its "best" or "last" checkpoint.

    Device, precision and execution are as in `TrainConfig`; the run's own are how it was trained.
    `backbone_weights` says where that file is now, if it has moved since. The backbone of the run
    `shared` is not loaded again, if it is this run's too.

    Raises:
        ValueError: no run there, a run of several branches, an unsafe or foreign checkpoint, or
            other backbone weights than the head was trained on.
    """
    path = Path(model_dir)
    file = path / f"{checkpoint}.pt"
    if names := _branch_names(path):
        raise ValueError(
            f"{path} is a run of {len(names)} branches: {', '.join(names)}; name one, as in "
            f"--model_dir {path / names[0]}, or give the folder to evaluation/compare.py for all"
        )
    if not file.is_file():
        raise ValueError(
            f"no trained run in {path}: {file.name} is missing (train with network.py)"
        )
    payload = load_checkpoint(file)
    config = from_json(payload["config"])
    weights = Path(backbone_weights or config.backbone_weights)
    sha256 = payload["backbone"]["sha256"]
    if shared is not None and (shared.config.backbone, shared.sha256) == (config.backbone, sha256):
        frozen, weights = shared.frozen, shared.files[1]
    else:
        frozen = load_frozen(config, device, precision, backbone_weights, execution)
        check_backbone(payload, frozen, str(weights))
    head = trained_head(payload, frozen)
    return Run(path, config, frozen, head, int(payload["step"]), sha256, (file, weights))


def trained_head(checkpoint: Mapping[str, Any], frozen: FrozenBackbone) -> Head:
    """Build the head of a checkpoint over a backbone, in eval mode on its device.

    Raises:
        ValueError: the backbone's preprocessing is not the one that the head was trained with.
    """
    _check_preprocessing(checkpoint, frozen)
    config = dataclasses.replace(from_json(checkpoint["config"]), head_weights=None)
    head = build_head(config, frozen)
    head.load_state_dict(checkpoint["head"])
    return head.eval()


def untrained_run(
    config: TrainConfig,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    backbone_weights: str | None = None,
) -> Run:
    """Build what a config describes without a run folder: for heads that were trained elsewhere.

    Raises:
        ValueError: the config has branches or names no `head_weights`, or a file does not fit.
    """
    if config.branches:
        raise ValueError(
            f"config {config.name!r} describes {len(config.branches)} branches, not one head; name "
            "a branch's folder with --model_dir, or a config of one head"
        )
    if config.head_weights is None:
        raise ValueError(
            f"config {config.name!r} names no head_weights; give --set head_weights=FILE, or "
            "--model_dir for a run of network.py"
        )
    frozen = load_frozen(config, device, precision, backbone_weights)
    weights = Path(backbone_weights or config.backbone_weights)
    files = (Path(config.head_weights), weights)
    head = build_head(config, frozen).eval()
    return Run(Path(), config, frozen, head, 0, file_sha256(weights), files)


def backbone_record(frozen: FrozenBackbone, weights: str) -> dict[str, Any]:
    """Return what a checkpoint says of its backbone: the file's hash and the preprocessing."""
    return {"sha256": file_sha256(weights), "preprocessing": frozen.preprocessing.to_dict()}


def check_backbone(payload: Mapping[str, Any], frozen: FrozenBackbone, weights: str) -> None:
    """Raise ValueError for another weights file or preprocessing than a head was trained on."""
    record = payload["backbone"]
    sha256 = file_sha256(weights)
    if record["sha256"] != sha256:
        raise ValueError(
            f"the head was trained on backbone weights with SHA-256 {record['sha256'][:12]}..., "
            f"but {weights} has {sha256[:12]}...; give the right file as backbone_weights"
        )
    _check_preprocessing(payload, frozen)


def _check_preprocessing(payload: Mapping[str, Any], frozen: FrozenBackbone) -> None:
    stored = Preprocessing.from_dict(payload["backbone"]["preprocessing"])
    if stored != frozen.preprocessing:
        raise ValueError(
            f"the head was trained with {stored}, but the backbone now says {frozen.preprocessing}"
        )
