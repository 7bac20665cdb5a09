"""The uncertainty that a trained head gives, beside the frozen backbone's embedding.

What `evaluation/verification_risk_fnmr.py` uses unless another estimator is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.base import Batch, Estimate, Estimator
from models.frozen import FrozenBackbone
from models.heads.base import Head, to_scalar, to_sigma_sq
from models.load import load_checkpoint
from models.run import trained_head
from utils.files import DAMAGE, naming

__all__ = ["TrainedHead"]

MAP_SIGMA = 3.0  # pixels
MAP_CHUNK = {"cpu": 16}  # images; a gradient keeps all activations in memory
LARGEST_CHUNK = 64


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

    def explain(
        self, images: NDArray[np.uint8], mean_face: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return maps (B, 112, 112) of what raises the uncertainty of (B, 112, 112, 3) RGB faces.

        What a pixel x adds beside that of `mean_face` (112, 112, 3), m, is g (x - m), summed over
        the colours. g is the gradient half-way between the two faces: the integrated gradient
        (Sundararajan et al., ICML 2017, arXiv 1703.01365, eq. 1) by the midpoint rule, in one pass
        back. It is of the logit of a probability, or the logarithm of a variance, so that a face
        that is as bad as can be has one too. A Gaussian of `MAP_SIGMA` pixels smooths the map.
        Positive: the uncertainty would be lower if the mean face were there.

        Raises:
            ValueError: the backbone gives no gradients.
        """
        self.frozen.require_gradients("a map of the uncertainty")
        size = MAP_CHUNK.get(self.frozen.device.type, LARGEST_CHUNK)
        with in_eval_mode(self.head):
            maps = [
                self._effects(part, torch.from_numpy(mean_face))
                for part in torch.from_numpy(np.ascontiguousarray(images)).split(size)
            ]
        return np.stack([cv2.GaussianBlur(x, (0, 0), MAP_SIGMA) for x in torch.cat(maps).numpy()])

    def _effects(self, images: Tensor, mean_face: Tensor) -> Tensor:
        faces, mean = images.permute(0, 3, 1, 2).float(), mean_face.permute(2, 0, 1)
        middle = ((faces + mean) / 2).to(self.frozen.device).requires_grad_()
        output = self.frozen.differentiable(middle)
        with torch.enable_grad():
            raw = self.head(output)
            level = raw[:, 0] if raw.shape[1] == 1 else to_scalar(raw.exp()).log()
        (gradient,) = torch.autograd.grad(level.sum(), middle)
        return (gradient.cpu() * (faces - mean)).sum(1)


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
