"""A trained head on its backbone: a run folder, finished or not, or one packed file.

For the evaluation scripts and anyone who scores faces with a trained head. A packed file holds
config, backbone, head, preprocessing, calibration and provenance; export/pack_model.py writes it.
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
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from models.backbones.base import Preprocessing
from models.frozen import FrozenBackbone
from models.heads.base import Head
from models.load import (
    Checkpoint,
    build_backbone,
    check_size,
    load_backbone,
    load_checkpoint,
    load_head,
    load_state,
    read_safely,
    save_checkpoint,
    weights_files,
    weights_sha256,
)
from utils.config import (
    Execution,
    Method,
    Precision,
    TrainConfig,
    from_json,
    parse_method,
    parsed,
    to_json,
)
from utils.device import resolve_device
from utils.files import DAMAGE, check_archive, naming, read_json
from utils.methods import build, check_options, find


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
    head: Head = build("models.heads", config.head, **_sizes(config.head, frozen))
    if config.head_weights is not None:
        load_head(head, config.head_weights)
    return head.to(frozen.device)


def _sizes(head: Method, frozen: FrozenBackbone) -> dict[str, object]:
    sizes: dict[str, object] = {
        "features_shape": frozen.features_shape,
        "embedding_size": frozen.embedding_size,
    }
    if find("models.heads", head.name).reads == "stages":
        sizes["stages_size"] = sum(frozen.give_stages())
    return sizes


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
    with naming(file, *DAMAGE):
        return [str(branch["name"]) for branch in read_json(file).get("branches", [])]


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
    if path.is_file():
        raise ValueError(
            f"{path} is a file, not the folder of a run: a recogniser goes into backbone_weights "
            "of a config, and network.py trains the run on it (docs/train.md)"
        )
    if not file.is_file():
        raise ValueError(
            f"no trained run in {path}: {file.name} is missing (train with network.py)"
        )
    payload = load_checkpoint(file)
    with naming(file, *DAMAGE):
        config, step = from_json(payload["config"]), int(payload["step"])
        sha256 = str(payload["backbone"]["sha256"])
    weights = Path(backbone_weights or config.backbone_weights)
    if shared is not None and (shared.config.backbone, shared.sha256) == (config.backbone, sha256):
        frozen, weights = shared.frozen, shared.files[1]
    else:
        with naming(file):
            frozen = load_frozen(config, device, precision, backbone_weights, execution)
        with naming(file, *DAMAGE):
            check_backbone(payload, frozen, str(weights))
    head = trained_head(payload, frozen, file)
    return Run(path, config, frozen, head, step, sha256, (file, *weights_files(weights)))


def trained_head(checkpoint: Checkpoint, frozen: FrozenBackbone, path: Path) -> Head:
    """Build the head of a checkpoint over a backbone, in eval mode on its device.

    Raises:
        ValueError: the backbone's preprocessing is not the one that the head was trained with, or
            the checkpoint is damaged.
    """
    with naming(path, *DAMAGE):
        _check_preprocessing(checkpoint, frozen)
        config = dataclasses.replace(from_json(checkpoint["config"]), head_weights=None)
        return _filled_head(config, frozen, checkpoint["head"], path)


def _filled_head(
    config: TrainConfig, frozen: FrozenBackbone, tensors: Mapping[str, Tensor], path: Path
) -> Head:
    assert config.head is not None
    check_size("models.heads", config.head, tensors, path, **_sizes(config.head, frozen))
    head = build_head(config, frozen)
    load_state(head, tensors, path, f"head {config.head!r}")
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
    files = (Path(config.head_weights), *weights_files(weights))
    head = build_head(config, frozen).eval()
    return Run(Path(), config, frozen, head, 0, weights_sha256(weights), files)


def backbone_record(frozen: FrozenBackbone, weights: str) -> Checkpoint:
    """Return what a checkpoint says of its backbone: the file's hash and the preprocessing."""
    return {"sha256": weights_sha256(weights), "preprocessing": frozen.preprocessing.to_dict()}


def check_backbone(payload: Checkpoint, frozen: FrozenBackbone, weights: str) -> None:
    """Raise ValueError for another weights file or preprocessing than a head was trained on."""
    record = payload["backbone"]
    sha256 = weights_sha256(weights)
    if record["sha256"] != sha256:
        raise ValueError(
            f"the head was trained on backbone weights with SHA-256 {record['sha256'][:12]}..., "
            f"but {weights} has {sha256[:12]}...; give the right file as backbone_weights"
        )
    _check_preprocessing(payload, frozen)


def _check_preprocessing(payload: Checkpoint, frozen: FrozenBackbone) -> None:
    stored = Preprocessing.from_dict(payload["backbone"]["preprocessing"])
    if stored != frozen.preprocessing:
        raise ValueError(
            f"the head was trained with {stored}, but the backbone now says {frozen.preprocessing}"
        )


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


def recalibrate(path: Path, out: Path, calibration: dict[str, Any]) -> None:
    """Write a packed model with another calibration, and everything else as it was.

    Raises:
        ValueError: not a sound packed model.
    """
    save_checkpoint(out, {**_payload(path), "calibration": calibration})


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
    with naming(path, *DAMAGE):
        config = dataclasses.replace(from_json(payload["config"]), head_weights=None)
        about: About = parsed(About, payload["about"], "about")
        backbone = build_backbone(config.backbone, payload["backbone"], path)
        backbone.preprocessing = Preprocessing.from_dict(payload["preprocessing"])
        load_state(backbone, payload["backbone"], path, f"backbone {config.backbone!r}")
    frozen = FrozenBackbone(backbone, resolve_device(device), precision, execution)
    with naming(path, *DAMAGE):
        head = _filled_head(config, frozen, payload["head"], path)
    run = path, config, frozen, head, 0, about.sha256, (path,)
    return PackedModel(*run, calibration=payload["calibration"], about=about)


def is_packed(path: str | Path) -> bool:
    """Whether a file is one of `save_packed`; loads no tensor.

    Raises:
        ValueError: a damaged archive.
    """
    names = check_archive(path) if Path(path).is_file() else []
    tables = [name for name in names if name.endswith("/data.pkl")]
    if len(tables) != 1:
        return False
    with naming(path, *DAMAGE), zipfile.ZipFile(path) as archive:
        return KIND.encode() in archive.read(tables[0])


def without_paths(config: TrainConfig) -> TrainConfig:
    """Return the config with file names for paths: a model file goes to others."""
    plain = _without_folders(dataclasses.asdict(config))
    plain["backbone"] = dataclasses.asdict(config.backbone)  # names in a network may have slashes
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


class _Parts(TypedDict):
    """What a packed model is made of."""

    config: str
    preprocessing: dict[str, object]
    backbone: dict[str, object]
    head: dict[str, object]
    calibration: dict[str, object] | None
    about: dict[str, object]


def _payload(path: Path) -> Checkpoint:
    """Read the file and check what it is made of."""
    payload = read_safely(path)
    with naming(path, *DAMAGE):
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
        parsed(_Parts, payload, "the model file")
        for name in ("backbone", "head"):
            wrong = [key for key, value in payload[name].items() if not isinstance(value, Tensor)]
            if wrong:
                raise ValueError(f"{path}: {name} entry {wrong[0]!r} is not a tensor")
        return payload
