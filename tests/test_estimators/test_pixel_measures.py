"""Image measures against OpenCV, closed forms, brute force and rendered degradations."""

import math

import cv2
import numpy as np
import pytest

from data.synthetic import degradation_sweep
from estimators.base import grey, luminance
from estimators.brightness import Brightness
from estimators.contrast import Contrast
from estimators.resolution import Resolution, rms_frequency
from estimators.sharpness import Sharpness

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
FACES = degradation_sweep("blur", [0.0], 6)[0]


def even(*levels):
    """One image of one colour for each (r, g, b) or grey level."""
    return np.stack([np.full((112, 112, 3), level, np.uint8) for level in levels])


def test_grey_is_opencv_before_rounding():
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in NOISE])
    assert np.abs(grey(NOISE) - expected).max() < 0.51


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 1),
        ((255, 0, 0), 0.2126),
        ((0, 255, 0), 0.7152),
        ((0, 0, 255), 0.0722),
        ((10, 10, 10), 10 / 255 / 12.92),
        ((188, 188, 188), ((188 / 255 + 0.055) / 1.055) ** 2.4),
    ],
)
def test_luminance_is_linear_light(colour, expected):
    np.testing.assert_allclose(luminance(even(colour)), expected, rtol=1e-5)


def test_sharpness_is_opencvs_laplacian():
    images = np.concatenate([NOISE, FACES])
    expected = [cv2.Laplacian(one.astype(float), cv2.CV_64F).var() for one in grey(images)]
    found = Sharpness(frozen=None).uncertainty(images)
    np.testing.assert_allclose(found, np.negative(expected), rtol=1e-5)


def test_brightness_is_the_standards_mapping():
    levels = [0, 60, 124, 188, 231, 255]
    found = Brightness(frozen=None).uncertainty(even(*levels))
    for level, value in zip(levels, found, strict=True):
        x = level / 255
        mean = x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        dark = 1 / (1 + math.exp((0.2 - mean) / 0.05))
        bright = 1 / (1 + math.exp((0.8 - mean) / 0.05))
        assert value == pytest.approx(1 - dark * (1 - bright), abs=1e-6)
    assert found.argmin() == 3  # mean 0.5
    assert found[0] > 0.98
    assert found[-1] > 0.98


def test_contrast_closed_forms():
    halves = even(0)
    halves[:, :56] = 255
    images = np.concatenate([halves, even(77)])
    np.testing.assert_allclose(Contrast(frozen=None).uncertainty(images), [-0.5, 0], atol=1e-6)
    faint = (FACES.astype(float) * 0.2 + 100).astype(np.uint8)
    measure = Contrast(frozen=None).uncertainty
    assert (measure(faint) > measure(FACES)).all()


@pytest.mark.parametrize("cycles", [4, 10, 25, 50])
@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_resolution_of_a_grating_is_its_frequency(cycles, angle):
    y, x = np.indices((112, 112)) / 112
    wave = np.cos(2 * np.pi * cycles * (x * math.cos(angle) + y * math.sin(angle)) + 0.3)
    levels = (128 + 40 * wave)[None]
    assert rms_frequency(levels)[0] == pytest.approx(cycles / 112, rel=0.03)


@pytest.mark.parametrize("shape", [(112, 112), (15, 22), (16, 9)])
def test_resolution_is_the_full_spectrums(shape):
    levels = RNG.uniform(0, 255, (2, *shape))
    height, width = shape
    hann = [np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in shape]
    window = hann[0][:, None] * hann[1][None]
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.fftfreq(width)[None]
    for one, found in zip(levels, rms_frequency(levels), strict=True):
        centred = one - (one * window).sum() / window.sum()
        power = np.abs(np.fft.fft2(centred * window)) ** 2
        expected = math.sqrt((power * (fx**2 + fy**2)).sum() / power.sum())
        assert found == pytest.approx(expected, rel=1e-9)


def test_resolution_does_not_see_contrast_and_even_images_have_none():
    levels = grey(FACES).astype(float)
    np.testing.assert_allclose(rms_frequency(levels * 0.1 + 7), rms_frequency(levels), rtol=1e-6)
    assert rms_frequency(np.full((3, 112, 112), 93.7)).tolist() == [0, 0, 0]
    assert Resolution(frozen=None).uncertainty(even(0, 93, 255)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("measure", [Sharpness, Resolution])
@pytest.mark.parametrize("kind", ["blur", "resolution"])
def test_more_degradation_is_more_uncertain(measure, kind):
    sweep = degradation_sweep(kind, [0.0, 0.15, 0.35, 0.6, 1.0], 6)
    found = np.stack([measure(frozen=None).uncertainty(images) for images in sweep])
    assert (np.diff(found.mean(axis=1)) > 0).all()
    assert (found[-1] > found[0]).all()
