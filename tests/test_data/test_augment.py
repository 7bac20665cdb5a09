"""Rates against the original's, operations against Pillow and OpenCV, and what decides a draw."""

from __future__ import annotations

import dataclasses
import math
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from data.augment.batch import RARE, AugmentParameters, BatchAugment
from data.augment.operations import blur_matrix, crop_matrix, down_up_matrix
from data.augment.parameters import CROP, SMALLEST
from utils.config import Augment
from utils.device import all_to_device

OFF = Augment(flip=0.0, blur=0.0, occlusion=0.0, rare=0.0)
ALL = Augment(flip=0.5, blur=0.7, occlusion=0.7, rare=0.9)

# Counted over 20000 images by the original.
RECORDED_DRAWS = 20000
RECORDED = {
    "occlusion": 0.0493,
    "slight_blur": 0.03835,
    "resize": 0.04015,
    "rotate": 0.00445,
    "grey": 0.00515,
    "swap_channels": 0.0043,
    "crop": 0.0051,
    "flip": 0.50025,
}


def _photos(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth colour fields with some sharp edges and grain, uint8."""
    generator = np.random.default_rng(seed)
    images = np.empty((count, 112, 112, 3), np.uint8)
    for image in images:
        coarse = generator.uniform(0, 255, (9, 9, 3)).astype(np.float32)
        field = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)
        top, left = generator.integers(10, 60, 2)
        field[top : top + 40, left : left + 25] += generator.uniform(-80, 80, 3)
        image[:] = np.clip(field + generator.normal(0, 6, field.shape), 0, 255)
    return torch.from_numpy(images)


def _nothing(count: int) -> AugmentParameters:
    return BatchAugment(OFF, seed=0).parameters(0, np.arange(count))


def _rare(name: str, count: int, **changes: np.ndarray) -> AugmentParameters:
    rare = np.full((count, 2), -1)
    rare[:, 0] = RARE.index(name)
    return dataclasses.replace(_nothing(count), rare=rare, **changes)


def _arrays(parameters: AugmentParameters) -> dict[str, np.ndarray]:
    named = dataclasses.asdict(parameters)
    return {**named.pop("strong"), **named}


def _numpy(changed: torch.Tensor) -> np.ndarray:
    return changed.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def augment() -> BatchAugment:
    return BatchAugment(ALL, seed=3)


@pytest.fixture(scope="module")
def many() -> AugmentParameters:
    return BatchAugment(Augment(), seed=1).parameters(5, np.arange(RECORDED_DRAWS))


@pytest.mark.parametrize("name", list(RECORDED))
def test_rates_are_the_originals(many, name):
    if name == "flip":
        found = many.flip.mean()
    elif name == "occlusion":
        found = (many.box[:, 2] > 0).mean()
    else:
        found = (many.rare == RARE.index(name)).any(axis=1).mean()
    # Two independent counts of the same rate, 3.5 standard deviations of their difference.
    error = math.sqrt(2 * RECORDED[name] * (1 - RECORDED[name]) / RECORDED_DRAWS)
    assert found == pytest.approx(RECORDED[name], abs=3.5 * error)


def test_blur_rate_and_radii(many):
    counts = np.bincount(many.blur + 1, minlength=4)
    for count, rate in zip(counts, (0.7, 0.1, 0.1, 0.1), strict=True):
        error = math.sqrt(rate * (1 - rate) / RECORDED_DRAWS)
        assert count / RECORDED_DRAWS == pytest.approx(rate, abs=3.5 * error)


def test_a_first_hit_halves_the_odds_of_the_second():
    drawn = BatchAugment(Augment(rare=0.6), seed=2).parameters(0, np.arange(RECORDED_DRAWS))
    first, second = (drawn.rare >= 0).T
    assert first.mean() == pytest.approx(0.6, abs=0.015)
    assert second[first].mean() == pytest.approx(0.3, abs=0.015)
    assert second[~first].mean() == pytest.approx(0.6, abs=0.02)


def test_ranges_of_parameters(many):
    assert (many.size.min(), many.size.max()) == (SMALLEST, 111)
    assert set(np.unique(many.angle)) == {-9.0, 9.0}
    assert (many.corner.min(), many.corner.max()) == (0, 112 - CROP)
    assert (many.colour.min(), many.colour.max()) == (0, 255)
    top, left, height, width = many.box[many.box[:, 2] > 0].T
    assert (top + height).max() <= 112
    assert (left + width).max() <= 112
    assert (height * width).min() / 112**2 > 0.018
    assert (height * width).max() / 112**2 < 0.41
    assert 0.4 < (height > width).mean() < 0.6


def test_draws_follow_seed_step_and_row_alone(augment):
    rows = np.array([40, 7, 19, 3, 88])
    whole = _arrays(augment.parameters(12, rows))
    again = _arrays(BatchAugment(ALL, seed=3).parameters(12, rows))
    order = np.array([2, 4, 1])
    part = _arrays(augment.parameters(12, rows[order]))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_array_equal(values[order], part[name])


def test_another_seed_step_or_row_is_another_draw(augment):
    rows = np.arange(50)
    keys = augment.parameters(0, rows).noise_key
    assert len(np.unique(keys)) == 50
    for other in (
        augment.parameters(1, rows),
        augment.parameters(0, rows + 50),
        BatchAugment(ALL, seed=4).parameters(0, rows),
    ):
        assert not np.isin(other.noise_key, keys).any()


def test_copies_of_a_row_get_draws_of_their_own(augment):
    keys = augment.parameters(0, np.array([5, 9, 5, 5, 9])).noise_key
    assert len(np.unique(keys)) == 5
    np.testing.assert_array_equal(augment.parameters(0, np.array([9, 5])).noise_key, keys[[1, 0]])


def test_all_rates_zero_is_the_identity():
    images = _photos(4)
    off = BatchAugment(OFF, seed=0)
    changed = off(images, off.parameters(3, np.arange(4)))
    assert changed.dtype == torch.float32
    assert changed.shape == (4, 3, 112, 112)
    assert torch.equal(changed, images.permute(0, 3, 1, 2).float())


def test_images_given_are_left_as_they_are(augment):
    images = _photos(12)
    before = images.clone()
    augment(images, augment.parameters(0, np.arange(12)))
    assert torch.equal(images, before)


def test_flip_is_exact(augment):
    images = _photos(3)
    flip = np.array([True, False, True])
    changed = _numpy(augment(images, dataclasses.replace(_nothing(3), flip=flip)))
    expected = np.stack([np.fliplr(images[0]), images[1], np.fliplr(images[2])])
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_blur_is_pillows(augment, index):
    images = _photos(4, seed=index)
    changed = _numpy(augment(images, dataclasses.replace(_nothing(4), blur=np.full(4, index))))
    _assert_close_to_pillow(
        changed, images, lambda image: image.filter(ImageFilter.GaussianBlur(index + 1))
    )


def test_slight_blur_is_pillows(augment):
    images = _photos(4)
    changed = _numpy(augment(images, _rare("slight_blur", 4)))
    _assert_close_to_pillow(
        changed, images, lambda image: image.filter(ImageFilter.GaussianBlur(0.5))
    )


@pytest.mark.parametrize("size", [28, 45, 64, 90, 111])
def test_down_and_up_resize_is_pillows(augment, size):
    images = _photos(4, seed=size)
    changed = _numpy(augment(images, _rare("resize", 4, size=np.full((4, 2), size))))

    def down_up(image):
        small = image.resize((size, size), Image.Resampling.BILINEAR)
        return small.resize((112, 112), Image.Resampling.BILINEAR)

    _assert_close_to_pillow(changed, images, down_up)


@pytest.mark.parametrize(("top", "left"), [(0, 6), (5, 1)])
def test_crop_is_pillows(augment, top, left):
    images = _photos(4)
    corner = np.tile(np.array([top, left]), (4, 2, 1))
    changed = _numpy(augment(images, _rare("crop", 4, corner=corner)))
    box = (left, top, left + 106, top + 106)
    _assert_close_to_pillow(
        changed,
        images,
        lambda image: image.crop(box).resize((112, 112), Image.Resampling.BILINEAR),
    )


def _assert_close_to_pillow(changed, images, operation):
    """Pillow rounds to whole levels after each pass, hence up to 3 levels."""
    expected = np.stack([np.asarray(operation(Image.fromarray(i.numpy()))) for i in images])
    difference = np.abs(changed - expected)
    assert difference.max() <= 3
    assert difference.mean() < 0.75
    assert np.abs(expected - images.numpy().astype(float)).max() > 10, "nothing happened"


@pytest.mark.parametrize("degrees", [-9.0, 9.0])
def test_rotation_is_opencvs(augment, degrees):
    images = _photos(4)
    changed = _numpy(augment(images, _rare("rotate", 4, angle=np.full((4, 2), degrees))))
    matrix = cv2.getRotationMatrix2D((55.5, 55.5), degrees, 1.0)
    expected = np.stack(
        [
            cv2.warpAffine(image.numpy(), matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)
            for image in images
        ]
    )
    # OpenCV rounds source positions to 1/32 of a pixel, which shows at sharp edges.
    difference = np.abs(changed - expected)[:, 10:-10, 10:-10]
    assert difference.mean() < 0.6
    assert difference.max() < 6
    assert np.abs(changed - images.numpy()).mean() > 5, "nothing happened"


def test_channel_swap_and_grey(augment):
    images = _photos(2)
    swapped = _numpy(augment(images, _rare("swap_channels", 2)))
    np.testing.assert_array_equal(swapped, images.numpy()[..., ::-1])
    grey = _numpy(augment(images, _rare("grey", 2)))
    expected = images.numpy() @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, np.repeat(expected[..., None], 3, axis=3), atol=1e-4)
    pillow = np.stack([np.asarray(Image.fromarray(i.numpy()).convert("L")) for i in images])
    assert np.abs(grey[..., 0] - pillow).max() <= 1


def test_occlusion_covers_its_box_and_nothing_else(augment):
    images = _photos(3)
    box = np.array([[10, 20, 30, 40], [0, 0, 0, 0], [62, 0, 50, 112]])
    colour = np.array([[0, 255, 128]] * 3)
    parameters = dataclasses.replace(
        _nothing(3), box=box, colour=colour, noisy=np.array([False, True, True])
    )
    changed = _numpy(augment(images, parameters))
    expected = images.numpy().astype(np.float32)
    expected[0, 10:40, 20:60] = colour[0]
    noise = changed[2, 62:112]
    expected[2, 62:112] = noise
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(noise, np.rint(noise))
    assert (noise.min(), noise.max()) == (0, 255)
    assert noise.mean() == pytest.approx(127.5, abs=3.5 * 73.9 / math.sqrt(noise.size))
    neighbours = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(noise.size)


def test_noise_differs_between_images_and_steps(augment):
    images = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    box = np.array([[0, 0, 112, 112]] * 2)
    changed = [
        augment(
            images,
            dataclasses.replace(
                augment.parameters(step, np.arange(2)),
                box=box,
                noisy=np.ones(2, bool),
                blur=np.full(2, -1),
                rare=np.full((2, 2), -1),
            ),
        )
        for step in range(2)
    ]
    levels = torch.cat(changed).flatten(1)
    for i in range(4):
        for j in range(i):
            assert (levels[i] == levels[j]).float().mean() == pytest.approx(1 / 256, abs=0.002)


def test_operations_run_in_the_order_of_the_original(augment):
    image = _photos(1)
    parameters = dataclasses.replace(
        _nothing(1),
        flip=np.array([True]),
        blur=np.array([2]),
        box=np.array([[40, 0, 20, 30]]),
        noisy=np.array([False]),
        colour=np.array([[200, 10, 10]]),
        rare=np.array([[RARE.index("crop"), RARE.index("resize")]]),
        corner=np.array([[[1, 6], [0, 0]]]),
        size=np.array([[50, 30]]),
    )

    def separable(left, channels, right):
        return left @ channels @ right.T

    blur, resize = blur_matrix(3.0), down_up_matrix(30)
    expected = np.fliplr(image[0].numpy()).astype(float).transpose(2, 0, 1)
    expected = separable(blur, expected, blur)
    expected[:, 40:60, 0:30] = np.array([200, 10, 10])[:, None, None]
    expected = separable(crop_matrix(1, CROP), expected, crop_matrix(6, CROP))
    expected = separable(resize, expected, resize)
    np.testing.assert_allclose(augment(image, parameters)[0].numpy(), expected, atol=1e-3)


def test_an_image_does_not_depend_on_how_the_batch_is_split(augment):
    images, rows = _photos(40), np.arange(100, 140)
    whole = augment(images, augment.parameters(9, rows))
    parts = [
        augment(images[part], augment.parameters(9, rows[part]))
        for part in (slice(0, 7), slice(7, 8), slice(8, 40))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    assert torch.equal(whole, augment(images, augment.parameters(9, rows)))


def test_levels_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    extreme = torch.randint(0, 2, (120, 112, 112, 3), generator=generator, dtype=torch.uint8) * 255
    augment = BatchAugment(ALL, seed=8)
    changed = augment(extreme, augment.parameters(0, np.arange(120)))
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_a_flat_grey_image_stays_flat_without_occlusion():
    augment = BatchAugment(dataclasses.replace(ALL, occlusion=0.0), seed=8)
    flat = torch.full((120, 112, 112, 3), 137, dtype=torch.uint8)
    parameters = augment.parameters(0, np.arange(120))
    assert set(parameters.rare.ravel()) == {-1, 0, 1, 2, 3, 4, 5}
    changed = augment(flat, parameters)
    torch.testing.assert_close(changed, torch.full_like(changed, 137.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("matrix", [blur_matrix(2.5), down_up_matrix(31), crop_matrix(4, 106)])
def test_every_row_of_a_matrix_is_an_average(matrix):
    assert matrix.shape == (112, 112)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.7, 6.0])
def test_blur_has_the_variance_of_its_gaussian(radius):
    weights = blur_matrix(radius)[56]
    offsets = np.arange(112) - 56
    assert weights @ offsets == pytest.approx(0, abs=1e-12)
    assert weights @ offsets**2 == pytest.approx(radius**2, rel=1e-9)


def test_drawing_is_faster_than_a_loop_over_images_could_be():
    augment, rows = BatchAugment(Augment(), seed=0), np.arange(80)
    seconds = []
    for step in range(100):
        start = time.perf_counter()
        augment.parameters(step, rows)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3


def test_refused_input(augment):
    parameters = _nothing(2)
    with pytest.raises(ValueError, match=r"uint8 images \(B, 112, 112, 3\), got torch.float32"):
        augment(torch.zeros(2, 112, 112, 3), parameters)
    with pytest.raises(ValueError, match=r"got torch.uint8 \(2, 3, 112, 112\)"):
        augment(torch.zeros(2, 3, 112, 112, dtype=torch.uint8), parameters)
    with pytest.raises(ValueError, match="3 images but 2 parameters"):
        augment(_photos(3), parameters)
    with pytest.raises(ValueError, match="augment: seed = -1: must be at least 0"):
        BatchAugment(Augment(), seed=-1)


def test_parameters_of_several_steps_are_joined(augment):
    rows = [np.array([4, 9, 4]), np.array([1]), np.array([9, 4])]
    parts = [augment.parameters(step, some) for step, some in enumerate(rows)]
    joined = AugmentParameters.concatenate(parts)
    assert len(joined) == 6
    for name, values in _arrays(joined).items():
        expected = np.concatenate([_arrays(part)[name] for part in parts])
        np.testing.assert_array_equal(values, expected)
        assert values.dtype == _arrays(parts[0])[name].dtype
    images = _photos(6)
    changed = augment(images, joined)
    for part, place in zip(parts, (slice(0, 3), slice(3, 4), slice(4, 6)), strict=True):
        torch.testing.assert_close(changed[place], augment(images[place], part), rtol=0, atol=1e-3)


def test_one_transfer_brings_all_that_a_batch_needs(augment, monkeypatch):
    sent = []

    def count(arrays, device):
        sent.append(len(arrays))
        return all_to_device(arrays, device)

    monkeypatch.setattr("data.augment.batch.all_to_device", count)
    augment(_photos(40), augment.parameters(0, np.arange(40)))
    assert len(sent) == 1
    assert sent[0] > 15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("degrade", [0.0, 0.7])
def test_cuda_agrees_and_the_host_never_waits(degrade):
    augment = BatchAugment(dataclasses.replace(ALL, degrade=degrade), seed=3)
    images, parameters = _photos(120), augment.parameters(1, np.arange(120))
    there = images.cuda()
    augment(there, parameters)
    torch.cuda.set_sync_debug_mode("error")
    try:
        changed = augment(there, parameters)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(changed.cpu(), augment(images, parameters), rtol=0, atol=0.02)
