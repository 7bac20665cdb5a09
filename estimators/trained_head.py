"""The uncertainty that a trained head gives, beside the frozen backbone's embedding.

What `evaluation/verification_risk_fnmr.py` uses unless another estimator is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch

from estimators.base import Batch, Estimate, Estimator
from models.frozen import FrozenBackbone
from models.heads.base import Head, to_sigma_sq

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
        training = self.head.training
        self.head.eval()
        try:
            with torch.no_grad():
                output = batch.output(self.frozen)
                sigma_sq = to_sigma_sq(self.head(output).float(), self.head.output)
        finally:
            self.head.train(training)
        return Estimate(output.embedding.cpu().numpy(), sigma_sq.cpu().numpy())


def head_hashes(members: Mapping[str, Estimator]) -> dict[str, str]:
    """SHA-256 of the head of each member that has one: its tensors' names, shapes and values."""
    return {
        name: _hash(member.head)
        for name, member in members.items()
        if isinstance(member, TrainedHead)
    }


def _hash(head: Head) -> str:
    digest = hashlib.sha256()
    for name, tensor in head.state_dict().items():
        values = tensor.detach().cpu().to(torch.float64).contiguous().numpy()
        digest.update(json.dumps([name, list(values.shape)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
