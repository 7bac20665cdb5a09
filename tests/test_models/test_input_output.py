"""What goes into a backbone, and what comes out of a head."""

import json

import numpy as np
import pytest
import torch
from scipy.special import expit

from models.backbones.base import Preprocessing, cosine_distance
from models.heads.base import to_scalar, to_sigma_sq

RAW = torch.tensor([[-2.0], [0.0], [3.0]], dtype=torch.float64)


def test_it_normalises_as_the_original(golden):
    with np.load(golden / "preprocess.npz") as reference:
        image = torch.from_numpy(reference["image"])[None]
        expected = reference["normalised_every_8th"]
    out = Preprocessing()(image)
    assert out.shape == (1, 3, 112, 112)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out[0, :, ::8, ::8], expected, rtol=0, atol=1e-6)


def test_stored_and_augmented_images_agree(images):
    as_float = images.permute(0, 3, 1, 2).float()
    before = as_float.clone()
    torch.testing.assert_close(Preprocessing()(as_float), Preprocessing()(images), rtol=0, atol=0)
    assert torch.equal(as_float, before)
    assert Preprocessing()(as_float.half()).dtype == torch.float32


def test_color_order_and_scale(images):
    out = Preprocessing("BGR", mean=127.5, scale=128.0)(images)
    blue = (images[..., 2].numpy().astype(np.float64) - 127.5) / 128
    red = (images[..., 0].numpy().astype(np.float64) - 127.5) / 128
    np.testing.assert_allclose(out[:, 0], blue, atol=1e-6)
    np.testing.assert_allclose(out[:, 2], red, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 112, 112, dtype=torch.uint8),
        torch.zeros(2, 112, 112, 3),
        torch.zeros(2, 3, 96, 112),
        torch.zeros(112, 112, 3, dtype=torch.uint8),
        torch.zeros(2, 112, 112, 3, dtype=torch.int64),
    ],
)
def test_other_shapes_are_refused_with_the_shape(wrong):
    with pytest.raises(ValueError, match=r"images of shape \(.*expected uint8 \(B, 112, 112, 3\)"):
        Preprocessing()(wrong)


def test_it_survives_json():
    kept = Preprocessing("BGR", mean=120.0, scale=64.0, size=96)
    assert Preprocessing.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="no field 'std' .known: color, mean, scale, size"):
        Preprocessing.from_dict({"std": 1.0})
    for field, value in (("color", "GRB"), ("scale", 0), ("size", 0)):
        with pytest.raises(ValueError, match=f"{field} = .*must be"):
            Preprocessing(**{field: value})


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
