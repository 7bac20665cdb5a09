import numpy as np
import pytest
import torch
from scipy.special import expit

from models.backbones.base import cosine_distance
from models.heads.base import to_scalar, to_sigma_sq

RAW = torch.tensor([[-2.0], [0.0], [3.0]], dtype=torch.float64)


def test_a_logit_becomes_a_probability_and_a_log_variance_a_variance():
    np.testing.assert_allclose(to_sigma_sq(RAW, "probability"), expit(RAW.numpy()), rtol=1e-12)
    np.testing.assert_allclose(to_sigma_sq(RAW, "variance"), np.exp(RAW.numpy()), rtol=1e-12)


def test_an_unknown_output_is_refused():
    with pytest.raises(ValueError, match="output = 'kappa': must be 'probability' or 'variance'"):
        to_sigma_sq(RAW, "kappa")


def test_a_cosine_distance_keeps_its_digits_near_zero():
    near = cosine_distance(torch.tensor([[3.0, 0.0]]), torch.tensor([[5.0, 5e-5]]))
    assert near.item() == pytest.approx(5e-11, rel=1e-3)  # float32 cosines have steps of 6e-8


def test_more_columns_are_joined_by_the_harmonic_mean():
    assert torch.equal(to_scalar(RAW), RAW[:, 0])
    columns = torch.tensor([[1.0, 4.0], [2.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    expected = [2 / (1 / (1 + 1e-6) + 1 / (4 + 1e-6)), 2 + 1e-6, 2 / (1e6 + 1 / (1 + 1e-6))]
    np.testing.assert_allclose(to_scalar(columns), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 1, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"sigma_sq of shape .*expected \(N, c\)"):
        to_scalar(torch.zeros(shape))
