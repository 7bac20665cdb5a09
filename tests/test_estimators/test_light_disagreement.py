import numpy as np
import pytest
import torch

from estimators.base import Batch
from estimators.light_disagreement import LightDisagreement
from models.output import BackboneOutput

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), dtype=np.uint8)


def frozen(images):
    """Colour of one pixel as embedding: it takes uint8 (B, H, W, 3) and float (B, 3, H, W)."""
    pixels = images if images.dtype == torch.uint8 else images.permute(0, 2, 3, 1)
    embedding = pixels[:, 5, 7].double() + 1
    return BackboneOutput(embedding, embedding)


def test_it_is_the_geometric_mean_of_three_moves():
    estimator = LightDisagreement(frozen=frozen, gamma=3.0, noise=20.0, seed=4)
    found = estimator(Batch(IMAGES))
    noise = 20 * torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(4))
    for row, image in enumerate(IMAGES):
        pixel = image[5, 7].astype(np.float64)
        noisy = np.clip(pixel + noise[0, :, 5, 7].numpy(), 0, 255)
        changed = [255 * (pixel / 255) ** 3, 255 * (pixel / 255) ** (1 / 3), noisy]
        moves = []
        for other in changed:
            a, b = pixel + 1, other + 1
            moves.append(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) + 1e-4)
        assert found.sigma_sq[row, 0] == pytest.approx(np.prod(moves) ** (1 / 3), rel=1e-4)
        np.testing.assert_allclose(found.mu[row], pixel + 1)
