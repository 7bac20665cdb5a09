import numpy as np
import pytest
import torch

from models.output import to_scalar, to_sigma_sq

RAW = torch.tensor([[-2.0], [0.0], [3.0]], dtype=torch.float64)


def test_a_logit_becomes_a_probability():
    expected = [[1 / (1 + np.exp(2))], [0.5], [1 / (1 + np.exp(-3))]]
    np.testing.assert_allclose(to_sigma_sq(RAW, "probability"), expected, rtol=1e-12)


def test_a_log_variance_becomes_a_variance_once():
    np.testing.assert_allclose(to_sigma_sq(RAW, "variance"), np.exp(RAW.numpy()), rtol=1e-12)


def test_an_unknown_output_is_refused():
    with pytest.raises(ValueError, match="output = 'kappa': must be 'probability' or 'variance'"):
        to_sigma_sq(RAW, "kappa")


def test_one_column_stays_as_it_is():
    assert torch.equal(to_scalar(RAW), RAW[:, 0])


def test_more_columns_are_joined_by_the_harmonic_mean():
    columns = torch.tensor([[1.0, 4.0], [2.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    expected = [2 / (1 / (1 + 1e-6) + 1 / (4 + 1e-6)), 2 + 1e-6, 2 / (1e6 + 1 / (1 + 1e-6))]
    np.testing.assert_allclose(to_scalar(columns), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 1, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"sigma_sq of shape .*expected \(N, c\)"):
        to_scalar(torch.zeros(shape))
