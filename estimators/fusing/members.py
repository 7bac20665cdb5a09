"""The members of a fusion, ready to run over one backbone.

A member is an estimator, written as on the command line, or the folder of a run of network.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from estimators.base import Estimator, build_estimator
from estimators.trained_head import TrainedHead
from models.frozen import FrozenBackbone
from models.heads.base import Head
from models.preprocessing import Preprocessing
from models.run import build_head
from utils.checkpoint import load_checkpoint
from utils.config_json import from_json, parse_method


def open_members(
    texts: Sequence[str],
    *,
    frozen: FrozenBackbone,
    head: Head | None,
    folder: Path,
    backbone: str,
) -> dict[str, Estimator]:
    """Open the members of a fusion.

    Args:
        texts: `embedding_norm`, `trained_head`, `ser_fiq:passes=50`, or a run folder.
        frozen: the backbone, which all share: a batch passes it once.
        head: of the member `trained_head`; None takes that of the run in `folder`.
        folder: from which relative run folders are taken.
        backbone: SHA-256 of the backbone's weights file.

    Returns:
        Name -> estimator.

    Raises:
        ValueError: a name that occurs twice, a fusion inside a fusion, an unknown estimator or
            option, a run on another backbone, or `trained_head` without a run.
    """
    members: dict[str, Estimator] = {}
    for text in texts:
        if text in members:
            raise ValueError(f"the fusion has the member {text!r} twice")
        if (folder / text).is_dir():
            found = _head_of(folder / text, frozen, backbone)
            members[text] = TrainedHead(frozen=frozen, head=found)
            continue
        method = parse_method(text)
        if method.name == "fusion":
            raise ValueError("a fusion cannot be a member of a fusion: name its members")
        if method.name == "trained_head":
            own = _head_of(folder, frozen, backbone) if head is None else head
            members[text] = TrainedHead(frozen=frozen, head=own)
        else:
            members[text] = build_estimator(method, frozen=frozen)
    return members


def head_hashes(members: Mapping[str, Estimator]) -> dict[str, str]:
    """SHA-256 of the head of each member that has one: its tensors' names, shapes and values."""
    heads = {
        name: member.head for name, member in members.items() if isinstance(member, TrainedHead)
    }
    return {name: _hash(head) for name, head in heads.items()}


def require_same(stored: Mapping[str, str], found: Mapping[str, str], path: str) -> None:
    """Refuse heads that are not those whose uncertainties the fusion was fitted on.

    Raises:
        ValueError: the message names the member.
    """
    for name, value in found.items():
        if stored.get(name) != value:
            raise ValueError(
                f"{path}: member {name!r} has another head than the fusion was fitted with: fit it "
                "again with evaluation/fit_fusion.py, or name the run that it was fitted for"
            )


def _head_of(folder: Path, frozen: FrozenBackbone, backbone: str) -> Head:
    """Load the best head of a run, without another backbone."""
    file = folder / "best.pt"
    if not file.is_file():
        raise ValueError(f"no trained run in {folder}: best.pt is missing (train with network.py)")
    payload = load_checkpoint(file)
    record = payload["backbone"]
    same = Preprocessing.from_dict(record["preprocessing"]) == frozen.preprocessing
    if record["sha256"] != backbone or not same:
        raise ValueError(
            f"{folder} was trained on another backbone (weights {record['sha256'][:12]}..., here "
            f"{backbone[:12]}...): a fusion joins methods over one"
        )
    config = from_json(payload["config"])
    head = build_head(dataclasses.replace(config, head_weights=None), frozen)
    head.load_state_dict(payload["head"])
    return head.eval()


def _hash(head: Head) -> str:
    digest = hashlib.sha256()
    for name, tensor in head.state_dict().items():
        values = tensor.detach().cpu().to(torch.float64).contiguous().numpy()
        digest.update(json.dumps([name, list(values.shape)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
