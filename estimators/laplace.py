"""A trained head's own doubt: a Laplace approximation of its last layer, in closed form.

MacKay, Neural Computation 4 (1992); Daxberger et al., NeurIPS 2021, arXiv 2106.14806.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from estimators.base import Batch, Estimate, Fitted, OverFaces, models_of
from estimators.trained_head import head_hash, head_of_run, in_eval_mode
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import Head, to_sigma_sq
from utils.arrays import Array

__all__ = ["Laplace"]

Of = Literal["variance", "mean"]

_MOST = 4096  # inputs of the last layer: the Hessian is that large, squared


class Laplace(Fitted):
    """Uncertainty = variance of the head's raw output if its last layer's weights are uncertain.

    With x the last layer's input and a 1 for its bias, and g the derivative of the head's output by
    that layer's, the variance is g^2 x' H^-1 x, averaged over outputs. H is the generalised
    Gauss-Newton matrix of the faces of the fit plus the precision of a Gaussian prior,

        H = sum over faces of c g^2 x x'  +  precision I

    where c is the Fisher information of one observation of the face: p (1 - p) of a probability p
    (Bernoulli), 1/2 of a log variance (Gaussian). Each face counts once, not once for each of its
    pairs, which are not independent. The precision is that of the largest marginal likelihood.

    Args:
        reference: file of evaluation/fit_fusion.py --fit laplace.
        frozen: the backbone.
        backbone_sha256: of its weights file.
        head: the head; None takes that of the run in the file's folder.
        of: "variance"; or "mean": the expected uncertainty, sigmoid(raw / sqrt(1 + pi v / 8)) of a
            probability (MacKay), exp(raw + v / 2) of a variance.

    Raises:
        ValueError: no such file, or one of another backbone or head.
    """

    name = "laplace"
    reads_head: ClassVar[bool] = True

    def __init__(
        self,
        *,
        reference: str,
        frozen: FrozenBackbone,
        backbone_sha256: str,
        head: Head | None = None,
        of: Of = "variance",
    ) -> None:
        if of not in get_args(Of):
            raise ValueError(f"laplace: of = {of!r}: must be one of {', '.join(get_args(Of))}")
        if head is None:
            head = head_of_run(Path(reference).parent, frozen, backbone_sha256)
        self.frozen, self.head, self.of = frozen, head, of
        self._size = _last_layer(head, _blank(frozen)).inputs.shape[1]
        arrays = self.load(reference, models_of(frozen, backbone_sha256, head_hash(head)))
        self.root = torch.from_numpy(arrays["root"].astype(np.float32)).to(frozen.device)

    @classmethod
    def fit(
        cls, over_faces: OverFaces, frozen: FrozenBackbone, head: Head | None
    ) -> dict[str, Array]:
        """Return `root` (h + 1, h + 1) with R R' = H^-1, and the prior's `precision`.

        Raises:
            ValueError: no head, or a last layer with too many inputs.
        """
        if head is None:
            raise ValueError("laplace needs a head: name a run folder or a packed model")
        layer = _last_layer(head, _blank(frozen)).layer
        if layer.in_features > _MOST:
            raise ValueError(
                f"laplace: the head's last layer has {layer.in_features} inputs, more than {_MOST}"
            )

        def rows(batch: Batch) -> NDArray[np.float32]:
            last = _last_layer(head, batch.output(frozen))
            odds = last.raw.sigmoid()
            information = odds * (1 - odds) if head.output == "probability" else 0.5
            weight = (information * last.slope.square()).mean(dim=1, keepdim=True)
            return torch.cat([last.inputs * weight.sqrt(), weight.sqrt()], dim=1).cpu().numpy()

        scaled = over_faces(rows).astype(np.float64)
        curvature, vectors = np.linalg.eigh(scaled.T @ scaled)
        squares = sum(float(weight.detach().square().sum()) for weight in layer.parameters())
        precision = best_precision(curvature, squares, layer.out_features)
        root = vectors / np.sqrt(np.maximum(curvature, 0) + precision)
        return {"root": root, "precision": np.array(precision)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return that of `root`."""
        return {"root": (self._size + 1, self._size + 1)}

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column, or the head's for "mean"."""
        output = batch.output(self.frozen)
        last = _last_layer(self.head, output)
        spread = last.inputs @ self.root[:-1] + self.root[-1]
        variance = last.slope.square() * spread.square().sum(dim=1, keepdim=True)
        if self.of == "variance":
            estimate = variance.mean(dim=1, keepdim=True)
        elif self.head.output == "probability":
            estimate = torch.sigmoid(last.raw / (1 + math.pi / 8 * variance).sqrt())
        else:
            estimate = to_sigma_sq(last.raw + variance / 2, self.head.output)
        return Estimate(output.embedding.cpu().numpy(), estimate.cpu().numpy())


class LastLayer(NamedTuple):
    """A head's last linear layer in one forward pass of B images."""

    layer: nn.Linear
    inputs: Tensor  # (B, h)
    slope: Tensor  # (B, d), derivative of each raw output by the layer's
    raw: Tensor  # (B, d)


def _last_layer(head: Head, output: BackboneOutput) -> LastLayer:
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def cut(layer: nn.Module, inputs: tuple[Tensor], result: Tensor) -> Tensor:
        assert isinstance(layer, nn.Linear)
        calls.append((layer, inputs[0].detach().float(), result.detach().requires_grad_()))
        return calls[-1][2]

    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    hooks = [layer.register_forward_hook(cut) for layer in layers]
    try:
        with in_eval_mode(head), torch.enable_grad():
            raw = head(output).float()
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][2].shape != raw.shape:
        raise ValueError(f"laplace: {type(head).__name__} does not end with a linear layer")
    layer, inputs, last = calls[-1]
    (slope,) = torch.autograd.grad(raw.sum(), last)
    return LastLayer(layer, inputs, slope.float(), raw.detach())


def _blank(frozen: FrozenBackbone) -> BackboneOutput:
    """Return an output of the right sizes for one image."""
    sizes = frozen.embedding_size, frozen.features_size
    embedding, features = (torch.zeros(1, size, device=frozen.device) for size in sizes)
    images = torch.zeros(1, 112, 112, 3, dtype=torch.uint8, device=frozen.device)
    return BackboneOutput(embedding, features, images)


def best_precision(curvature: NDArray[np.float64], squares: float, outputs: int) -> float:
    """Return the prior's precision with the largest marginal likelihood in Laplace's approximation.

    Up to terms without it, the logarithm of that is
    outputs / 2 sum_k log(p / (e_k + p)) - p / 2 squares.

    Args:
        curvature: (h,) eigenvalues e_k of the Gauss-Newton matrix of one output.
        squares: sum of the squares of all outputs' weights.
        outputs: how many there are.
    """
    eigenvalues = np.maximum(curvature, 0)

    def loss(log_precision: float) -> float:
        precision = math.exp(log_precision)
        return outputs * float(np.log1p(eigenvalues / precision).sum()) + precision * squares

    return math.exp(minimize_scalar(loss, bounds=(-25, 25), method="bounded").x)
