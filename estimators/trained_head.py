"""The uncertainty that a trained head gives, beside the frozen backbone's embedding.

What `evaluation/verification_risk_fnmr.py` uses unless another estimator is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from estimators.base import Batch, Estimate, Estimator
from models.frozen import FrozenBackbone
from models.heads.base import Head, to_sigma_sq
from models.load import load_checkpoint
from models.run import trained_head
from utils.files import DAMAGE, naming

__all__ = ["TrainedHead"]


class TrainedHead:
    """One forward pass of backbone and head, on the backbone's device.

    The head is put into eval mode at each call and back afterwards, so that training may use it in
    between. Variances (`gives_variances`) are what a likelihood score can be made of.
    """

    name = "trained_head"

    def __init__(self, *, frozen: FrozenBackbone, head: Head) -> None:
        self.frozen = frozen
        self.head = head
        if head.reads == "stages":
            frozen.give_stages()
        self.gives_variances = head.output == "variance"

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has the head's d columns."""
        with in_eval_mode(self.head), torch.no_grad():
            output = batch.output(self.frozen)
            sigma_sq = to_sigma_sq(self.head(output).float(), self.head.output)
        return Estimate(output.embedding.cpu().numpy(), sigma_sq.cpu().numpy())


@contextmanager
def in_eval_mode(head: Head) -> Iterator[None]:
    """Put a head into eval mode, and back afterwards."""
    training = head.training
    head.eval()
    try:
        yield
    finally:
        head.train(training)


def head_of_run(folder: Path, frozen: FrozenBackbone, backbone_sha256: str) -> Head:
    """Load the best head of a run over a backbone, whose weights file has this SHA-256.

    Raises:
        ValueError: no trained run, or one on another backbone.
    """
    file = folder / "best.pt"
    if not file.is_file():
        raise ValueError(f"no trained run in {folder}: best.pt is missing (train with network.py)")
    checkpoint = load_checkpoint(file)
    with naming(file, *DAMAGE):
        sha256 = str(checkpoint["backbone"]["sha256"])
    if sha256 != backbone_sha256:
        raise ValueError(
            f"{folder} was trained on another backbone (weights {sha256[:12]}..., here "
            f"{backbone_sha256[:12]}...): its head needs that one"
        )
    return trained_head(checkpoint, frozen, file)


def head_hashes(members: Mapping[str, Estimator]) -> dict[str, str]:
    """SHA-256 of the head of each member that has one: its tensors' names, shapes and values."""
    return {
        name: head_hash(member.head)
        for name, member in members.items()
        if isinstance(member, TrainedHead)
    }


def head_hash(head: Head) -> str:
    """SHA-256 of a head: its tensors' names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in head.state_dict().items():
        values = tensor.detach().cpu().to(torch.float64).contiguous().numpy()
        digest.update(json.dumps([name, list(values.shape)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
