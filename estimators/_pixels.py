"""What the image measures share: grey levels, luminance, and the way from a measure to `Estimate`.

They look at pixels alone; the backbone only gives the embeddings beside them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch, Estimate
from models.frozen import FrozenBackbone

_REC_601 = np.array([0.299, 0.587, 0.114], np.float32)
_REC_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)


def _linear_light() -> NDArray[np.float32]:
    level = np.arange(256) / 255
    curved = ((level + 0.055) / 1.055) ** 2.4
    return np.where(level <= 0.04045, level / 12.92, curved).astype(np.float32)


_LINEAR = _linear_light()


class PixelMeasure(ABC):
    """An uncertainty from the pixels alone; subclasses give it for a batch.

    Args:
        frozen: gives the embeddings.
    """

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


def grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (B, H, W) grey levels, 0 to 255: luma of Rec. 601, as OpenCV's but not rounded."""
    return images.astype(np.float32) @ _REC_601


def luminance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return (B, H, W) luminance, 0 (black) to 1 (white).

    As ISO/IEC 29794-5 has it: sRGB values made proportional to light, weights of Rec. 709.
    """
    return _LINEAR[images] @ _REC_709
