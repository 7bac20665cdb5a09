"""The contract of a method: a batch of aligned faces in, embeddings and uncertainties out.

Importing this module loads NumPy alone; PyTorch comes with the first backbone.
"""

from __future__ import annotations

import difflib
import json
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from utils.arrays import Array, read_npz
from utils.config import Method
from utils.files import DAMAGE, atomic_file, naming, parse_json
from utils.methods import available, build

if TYPE_CHECKING:
    from models.backbones.base import BackboneOutput
    from models.frozen import FrozenBackbone
    from models.heads.base import Head


_REC_601 = np.array([0.299, 0.587, 0.114], np.float32)
_REC_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)
DIRECTION = "uncertainty: larger = less reliable"  # stands in every file of scores
NEEDS_RUN = (
    "trained_head needs a run: name its folder, or give --model_dir; for a recogniser alone, "
    "--estimator embedding_norm"
)


class Estimate(NamedTuple):
    """What an estimator says of B images: float32 embeddings and uncertainties.

    `sigma_sq` is the file format's name; larger = less reliable, and c is 1 for most methods and D
    for per-dimension variances.
    """

    mu: NDArray[np.float32]  # (B, D); their length does not matter, scores are cosines
    sigma_sq: NDArray[np.float32]  # (B, c)

    def scalar(self) -> NDArray[np.float32]:
        """Return one uncertainty per image, (B,): several columns become their harmonic mean."""
        return self.sigma_sq[:, 0] if self.sigma_sq.shape[1] == 1 else harmonic_mean(self.sigma_sq)


class Batch:
    """B images on their way through estimators, which share each backbone's forward pass.

    They are (B, 112, 112, 3) uint8 RGB and must not change while the batch is in use. `rows` are
    their places in a set, if they are of one, and `names` what the set calls them, if it does.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.images, self.rows, self.names = images, rows, names
        self._outputs: dict[FrozenBackbone, BackboneOutput] = {}
        self._mirrored: Batch | None = None
        self._mirror_of: weakref.ref[Batch] | None = None

    def __len__(self) -> int:
        """Return B."""
        return len(self.images)

    def output(self, frozen: FrozenBackbone) -> BackboneOutput:
        """Return what a backbone says of the images; computed once, when first asked for."""
        if frozen not in self._outputs:
            import torch

            images = torch.from_numpy(np.ascontiguousarray(self.images))
            self._outputs[frozen] = frozen(images)
        return self._outputs[frozen]

    def mirrored(self) -> Batch:
        """Return the batch of the mirror images; that one's `mirrored()` is this batch again."""
        original = self._mirror_of() if self._mirror_of is not None else None
        if original is not None:
            return original
        if self._mirrored is None:
            flipped = np.ascontiguousarray(self.images[:, :, ::-1])
            self._mirrored = Batch(flipped, self.rows, self.names)
            self._mirrored._mirror_of = weakref.ref(self)
        return self._mirrored


class Estimator(Protocol):
    """A method that gives embeddings and uncertainties; owns its device, gradients and seed."""

    name: str

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; no value depends on the other images."""
        ...


@runtime_checkable
class ReadsNames(Protocol):
    """An estimator that looks images up by their names, such as stored scores."""

    def check_names(self, names: Sequence[str]) -> None:
        """Raise ValueError for unknown names (their number, the first), before any embedding."""


@runtime_checkable
class Explains(Protocol):
    """An estimator that says where in a face its uncertainty comes from."""

    def explain(
        self, images: NDArray[np.uint8], mean_face: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return (B, 112, 112) maps of (B, 112, 112, 3) RGB faces; see `TrainedHead.explain`."""
        ...


def estimate_of(estimator: Estimator, batch: Batch) -> Estimate:
    """Return what an estimator says of a batch; ValueError where it is not one row per image."""
    estimate = estimator(batch)
    mu, sigma_sq = map(np.shape, estimate)
    is_shaped = len(mu) == len(sigma_sq) == 2 and mu[0] == sigma_sq[0] == len(batch)
    if not (is_shaped and sigma_sq[1] and all(part.dtype.kind == "f" for part in estimate)):
        raise ValueError(
            f"estimator {estimator.name} gives embeddings {mu} and uncertainties {sigma_sq} for "
            f"{len(batch)} images: expected fractions, one row for each"
        )
    return estimate


class EstimatorGroup:
    """Several estimators, at least one, as one with a column of uncertainty for each.

    So a comparison of methods decodes and embeds every image once. The embeddings are those of the
    first member that has any.
    """

    def __init__(self, members: Mapping[str, Estimator]) -> None:
        self.members = dict(members)
        self.name = "+".join(self.members)

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; several columns of a member become one."""
        estimates = [estimate_of(member, batch) for member in self.members.values()]
        columns = np.stack([estimate.scalar() for estimate in estimates], axis=1)
        embeddings = (estimate.mu for estimate in estimates if estimate.mu.shape[1])
        return Estimate(next(embeddings, estimates[0].mu), columns)


def name_readers(estimator: Estimator) -> list[ReadsNames]:
    """Return the estimator, or those in the group, that look images up by name."""
    if isinstance(estimator, EstimatorGroup):
        return [reader for member in estimator.members.values() for reader in name_readers(member)]
    return [estimator] if isinstance(estimator, ReadsNames) else []


def harmonic_mean(sigma_sq: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one number per row of (N, c) variances: 1 / mean(1 / (sigma_sq + 1e-6)) in float32."""
    mean: NDArray[np.float32] = 1 / np.mean(1 / (sigma_sq + np.float32(1e-6)), axis=1)
    return mean


class PixelMeasure(ABC):
    """An uncertainty from the pixels alone; subclasses give it, and `frozen` the embeddings."""

    name: str

    def __init__(self, *, frozen: FrozenBackbone) -> None:
        self.frozen = frozen

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column."""
        uncertainty = self.uncertainty(batch.images).astype(np.float32)
        embedding = batch.output(self.frozen).embedding.cpu().numpy()
        return Estimate(embedding, uncertainty[:, None])

    @abstractmethod
    def uncertainty(self, images: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Return (B,) uncertainties of (B, H, W, 3) RGB images."""


OverFaces = Callable[[Callable[[Batch], NDArray[np.float32]]], NDArray[np.float32]]
FIT = "face-uncertainty fit"


class Fitted(ABC):
    """An estimator with arrays that evaluation/fit_fusion.py fits on faces and keeps in a file.

    The file is `.npz`: the arrays, and in `about` (JSON) the estimator's name, how many images, and
    which backbone (`models_of`), and head if one takes part; others are refused.
    """

    name: str
    reads_head: ClassVar[bool] = False  # whether a fit is valid for one head alone

    def load(self, reference: str, models: Mapping[str, str]) -> dict[str, Array]:
        """Read the arrays that `shapes` names.

        Raises:
            ValueError: no such file, a damaged one, or one of other models; names it.
        """
        way_out = f"fit it with evaluation/fit_fusion.py --fit {self.name}"
        if not Path(reference).is_file():
            raise ValueError(f"no file {reference}: {way_out}")
        shapes = self.shapes()
        with naming(reference, *DAMAGE):
            arrays = read_npz(reference, [*shapes, "about"])
            about = parse_json(str(arrays.pop("about")))
            if [about["format"], about["version"], about["estimator"]] != [FIT, 1, self.name]:
                raise ValueError(f"it is not a fit of {self.name}, version 1: {way_out}")
            different = [part for part in models if about["models"].get(part) != models[part]]
            if different:
                raise ValueError(f"fitted with another {' and '.join(different)}: {way_out}")
            for name, shape in shapes.items():
                array = arrays[name]
                if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
                    raise ValueError(f"array {name} is not {shape} finite numbers")
        return arrays

    @classmethod
    @abstractmethod
    def fit(
        cls, over_faces: OverFaces, frozen: FrozenBackbone, head: Head | None
    ) -> dict[str, Array]:
        """Return the arrays; `over_faces` computes an (N, k) array of faces, batch by batch."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array that the file must have."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images."""


def models_of(
    frozen: FrozenBackbone, backbone_sha256: str, head_sha256: str = ""
) -> dict[str, str]:
    """Return what a fit is valid for, by part."""
    scaling = json.dumps(frozen.preprocessing.to_dict(), sort_keys=True)
    models = {"backbone": backbone_sha256, "preprocessing": scaling}
    return models | ({"head": head_sha256} if head_sha256 else {})


def save_fit(
    path: str | Path, name: str, arrays: Mapping[str, Array], models: Mapping[str, str], images: int
) -> None:
    """Write what `Fitted.load` reads."""
    about = {"format": FIT, "version": 1, "estimator": name, "images": images, "models": models}
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (B, H, W) grey levels, 0 to 255: luma of Rec. 601, as OpenCV's but not rounded."""
    return images.astype(np.float32) @ _REC_601


def luminance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (B, H, W) luminance, 0 (black) to 1 (white).

    As ISO/IEC 29794-5 has it: sRGB values made proportional to light, weights of Rec. 709.
    """
    level = np.arange(256) / 255
    curved = ((level + 0.055) / 1.055) ** 2.4
    linear = np.where(level <= 0.04045, level / 12.92, curved).astype(np.float32)
    return linear[images] @ _REC_709


def estimator_names() -> list[str]:
    """Return the name of every estimator that `build_estimator` knows."""
    return available("estimators")


def build_estimator(method: Method, **runtime: object) -> Estimator:
    """Build an estimator by name and options; `runtime` is `frozen`, and `head` if there is one.

    Raises:
        ValueError: an unknown name or option, or one that needs a head where there is none.
    """
    if method.name == "trained_head" and "head" not in runtime:
        raise ValueError(NEEDS_RUN)
    known = estimator_names()
    if method.name not in known:
        close = difflib.get_close_matches(method.name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"no file, folder or estimator {method.name!r}{hint} (estimators: {', '.join(known)})"
        )
    estimator: Estimator = build("estimators", method, **runtime)
    return estimator
