"""Rates against the original's, operations against Pillow and OpenCV, and what decides a draw."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from data.augment import (
    COLUMNS,
    CROP,
    KINDS,
    RADII,
    RARE,
    SMALLEST,
    STRONG_COLUMNS,
    AugmentParameters,
    BatchAugment,
    blur_matrix,
    crop_matrix,
    down_up_matrix,
    keyed_uniforms,
    motion_matrix,
)
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


def _mild(count: int, **changes: np.ndarray) -> AugmentParameters:
    return dataclasses.replace(_nothing(count), **changes)


def _rare(name: str, count: int, **changes: np.ndarray) -> AugmentParameters:
    rare = np.full((count, 2), -1)
    rare[:, 0] = RARE.index(name)
    return _mild(count, rare=rare, **changes)


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


def test_flip_is_exact(augment):
    images = _photos(3)
    flip = np.array([True, False, True])
    changed = _numpy(augment(images, _mild(3, flip=flip)))
    expected = np.stack([np.fliplr(images[0]), images[1], np.fliplr(images[2])])
    np.testing.assert_array_equal(changed, expected)


def small_and_back(size):
    def operation(image):
        small = image.resize((size, size), Image.Resampling.BILINEAR)
        return small.resize((112, 112), Image.Resampling.BILINEAR)

    return operation


@pytest.mark.parametrize("size", [14, 27, 28, 45, 64, 80, 90, 111])
def test_down_and_up_resize_is_pillows(augment, size):
    images = _photos(4, seed=size)
    mild = _rare("resize", 4, size=np.full((4, 2), size))
    for parameters in (mild, _only({"resolution": {"size": size}}, 4)):
        _assert_close_to_pillow(augment, parameters, images, small_and_back(size))


@pytest.mark.parametrize(("top", "left"), [(0, 6), (5, 1)])
def test_crop_is_pillows(augment, top, left):
    crop = _rare("crop", 4, corner=np.tile(np.array([top, left]), (4, 2, 1)))
    box, whole = (left, top, left + 106, top + 106), (112, 112)
    _assert_close_to_pillow(
        augment, crop, _photos(4), lambda i: i.crop(box).resize(whole, Image.Resampling.BILINEAR)
    )


def _assert_close_to_pillow(augment, parameters, images, operation):
    """Pillow rounds to whole levels after each pass, hence up to 3 levels."""
    changed = _numpy(augment(images, parameters))
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
    border = {"borderMode": cv2.BORDER_REPLICATE}
    expected = [cv2.warpAffine(i, matrix, (112, 112), **border) for i in images.numpy()]
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
    parameters = _mild(3, box=box, colour=colour, noisy=np.array([False, True, True]))
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


def test_operations_run_in_the_order_of_the_original(augment):
    image = _photos(1)
    parameters = _mild(
        1,
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

    monkeypatch.setattr("data.augment.all_to_device", count)
    augment(_photos(40), augment.parameters(0, np.arange(40)))
    assert len(sent) == 1
    assert sent[0] > 15


@pytest.fixture(params=[0.0, 1.0], ids=["mild", "strong"])
def either(request) -> BatchAugment:
    return BatchAugment(dataclasses.replace(ALL, degrade=request.param), seed=3)


def test_draws_follow_seed_step_and_row_alone(either):
    rows = np.array([40, 7, 19, 3, 88])
    whole = _arrays(either.parameters(12, rows))
    again = _arrays(BatchAugment(either.config, seed=3).parameters(12, rows))
    order = np.array([2, 4, 1])
    part = _arrays(either.parameters(12, rows[order]))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, again[name])
        np.testing.assert_array_equal(values[order], part[name])


def test_an_image_does_not_depend_on_how_the_batch_is_split(either):
    images, rows = _photos(40), np.arange(100, 140)
    before = images.clone()
    whole = either(images, either.parameters(9, rows))
    parts = [
        either(images[part], either.parameters(9, rows[part]))
        for part in (slice(0, 7), slice(7, 8), slice(8, 40))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    assert torch.equal(whole, either(images, either.parameters(9, rows)))
    assert torch.equal(images, before)


def test_levels_stay_in_range(either):
    generator = torch.Generator().manual_seed(0)
    extreme = torch.randint(0, 2, (120, 112, 112, 3), generator=generator, dtype=torch.uint8) * 255
    changed = either(extreme, either.parameters(0, np.arange(120)))
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 255


@pytest.mark.parametrize(
    ("radius", "parameters"),
    [
        (0.5, lambda: _rare("slight_blur", 4)),
        *((n + 1, lambda n=n: _mild(4, blur=np.full(4, n))) for n in (0, 1, 2)),
        *((RADII[n], lambda n=n: _only({"blur": {"blur": n}}, 4)) for n in (0, 5, len(RADII) - 1)),
    ],
)
def test_blur_is_pillows(augment, radius, parameters):
    blur = ImageFilter.GaussianBlur(radius)
    _assert_close_to_pillow(
        augment, parameters(), _photos(4, int(radius)), lambda i: i.filter(blur)
    )


def test_blur_rate_and_radii(many):
    counts = np.bincount(many.blur + 1, minlength=4) / RECORDED_DRAWS
    for found, rate in zip(counts, (0.7, 0.1, 0.1, 0.1), strict=True):
        assert _within(found, rate)


# --- strong degradations ----------------------------------------------------------------------

SHARES = {1: 0.5, 2: 0.35, 3: 0.15}
# First 16 digits of the SHA-256 of 500 drawn rows, of the images' means and deviations as well:
# of the augmentation before it had strong degradations (ALL, seed 3, step 12).
BEFORE = {
    "flip": "1edaf0963f4fda82",
    "blur": "aa10f93b0e03ebb7",
    "box": "e6ef13d0484009d7",
    "noisy": "b0a76fc501e54b4a",
    "colour": "05d559c66e343a52",
    "noise_key": "a134755ac5d109cd",
    "rare": "daf6531c906785a0",
    "size": "a5899583f7e3243c",
    "angle": "041011e8e3932f5e",
    "corner": "274cc8c7b2071d59",
}
MEANS = (127.633, 127.449, 127.442, 127.571, 127.359, 162.044)
DEVIATIONS = (18.468, 50.190, 7.154, 4.304, 43.964, 50.309)


def _only(kinds: dict[str, dict[str, object]], count: int) -> AugmentParameters:
    """Parameters with these kinds alone, each with its values."""
    nothing = _nothing(count)
    has = np.zeros((count, len(KINDS)), bool)
    values = {}
    for kind, fields in kinds.items():
        has[:, KINDS.index(kind)] = True
        for name, value in fields.items():
            old = getattr(nothing.strong, name)
            values[name] = np.broadcast_to(np.array(value, old.dtype), old.shape).copy()
    strong = dataclasses.replace(nothing.strong, kinds=has, **values)
    return dataclasses.replace(nothing, strong=strong)


def _changed(strong: BatchAugment, images: torch.Tensor, **kinds: dict[str, object]) -> np.ndarray:
    return _numpy(strong(images, _only(kinds, len(images))))


@pytest.fixture(scope="module")
def strong() -> BatchAugment:
    return BatchAugment(Augment(degrade=1.0), seed=3)


@pytest.fixture(scope="module")
def degraded(strong: BatchAugment) -> AugmentParameters:
    return strong.parameters(5, np.arange(RECORDED_DRAWS))


def _within(found: float, rate: float, draws: int = RECORDED_DRAWS) -> bool:
    return abs(found - rate) < 3.5 * math.sqrt(rate * (1 - rate) / draws)


def test_without_degradations_draws_are_as_they_were_before():
    drawn = BatchAugment(ALL, seed=3).parameters(12, np.arange(500))
    for name, digits in BEFORE.items():
        values = np.ascontiguousarray(getattr(drawn, name).astype("<i8"))
        assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == digits, name
    assert not drawn.strong.kinds.any()
    rows = np.arange(50)
    first = keyed_uniforms(3, 12, rows, COLUMNS)[:, : COLUMNS - STRONG_COLUMNS]
    np.testing.assert_array_equal(first, keyed_uniforms(3, 12, rows, 25))


def test_without_degradations_images_are_as_they_were_before():
    at = torch.arange(6 * 112 * 112 * 3)
    images = (at * 7919 % 65521 % 256).to(torch.uint8).view(6, 112, 112, 3)
    augment = BatchAugment(ALL, seed=3)
    changed = augment(images, augment.parameters(12, np.arange(6)))
    np.testing.assert_allclose(changed.mean((1, 2, 3)), MEANS, atol=0.01)
    np.testing.assert_allclose(changed.std((1, 2, 3)), DEVIATIONS, atol=0.01)


def test_images_that_are_spared_are_changed_as_without_degradations():
    rows, images = np.arange(60), _photos(60)
    plain, mixed = (
        BatchAugment(dataclasses.replace(ALL, degrade=rate), seed=3) for rate in (0.0, 0.5)
    )
    before, after = plain.parameters(2, rows), mixed.parameters(2, rows)
    spared = ~after.strong.kinds.any(axis=1)
    assert 15 < spared.sum() < 45
    for name in BEFORE:
        np.testing.assert_array_equal(getattr(before, name)[spared], getattr(after, name)[spared])
    expected, changed = plain(images, before)[spared], mixed(images, after)[spared]
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-3)


def test_how_degraded_kinds_and_which(degraded):
    count = degraded.strong.kinds.sum(axis=1)
    assert set(count) == set(SHARES)
    for number, rate in SHARES.items():
        assert _within((count == number).mean(), rate), number
        of_these = degraded.strong.kinds[count == number]
        for index, kind in enumerate(KINDS):
            found = of_these[:, index].mean()
            assert _within(found, number / len(KINDS), len(of_these)), (number, kind)


def test_degraded_images_get_no_mild_changes():
    config = dataclasses.replace(ALL, degrade=0.5)
    drawn = BatchAugment(config, seed=1).parameters(0, np.arange(RECORDED_DRAWS))
    degraded = drawn.strong.kinds.any(axis=1)
    assert (drawn.blur[degraded] == -1).all()
    assert (drawn.rare[degraded] == -1).all()
    occluded = drawn.strong.has("occlusion")[degraded]
    np.testing.assert_array_equal(drawn.box[degraded, 2] > 0, occluded)
    assert _within((drawn.blur[~degraded] >= 0).mean(), 0.7, (~degraded).sum())
    assert _within((drawn.box[~degraded, 2] > 0).mean(), 0.7, (~degraded).sum())
    assert _within((drawn.flip[degraded]).mean(), 0.5, degraded.sum())


def test_ranges_are_filled_evenly(degraded):
    drawn = degraded.strong
    for values, low, high in (
        (drawn.exponent, -1.1, 1.1),
        (drawn.deviation, 3.0, 35.0),
        (drawn.size, 13.5, 80.5),
        (drawn.motion.max(axis=1), 2.5, 13.5),
        (drawn.blur, -0.5, len(RADII) - 0.5),
    ):
        assert low <= values.min() < low + 0.55
        assert high - 0.55 < values.max() <= high
        # Mean of uniform draws; 4 standard deviations.
        error = 4 * (high - low) / math.sqrt(12 * RECORDED_DRAWS)
        assert values.mean() == pytest.approx((low + high) / 2, abs=error)
    assert (RADII[0], RADII[-1], RADII[1] - RADII[0]) == (0.5, 3.5, 0.25)
    assert (drawn.motion.min(axis=1) == 1).all()
    assert _within((drawn.motion[:, 0] > 1).mean(), 0.5)


def test_boxes_are_of_the_strong_kind(degraded):
    covered = degraded.strong.has("occlusion")
    height, width = degraded.box[covered, 2:].T
    share, aspect = height * width / 112**2, height / width
    assert 0.047 < share.min() < 0.055
    assert 0.345 < share.max() < 0.356
    assert share.mean() == pytest.approx(0.2, abs=0.005)
    assert 0.38 < aspect.min() < 0.43
    assert 2.35 < aspect.max() < 2.65
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03)
    assert _within(degraded.noisy[covered].mean(), 0.5, covered.sum())
    assert (degraded.box[~covered] == 0).all()


def test_draws_are_independent_of_one_another(degraded):
    drawn = degraded.strong
    columns = [drawn.exponent, drawn.motion[:, 0], drawn.blur, drawn.size, drawn.deviation]
    columns += [drawn.noise_key, *drawn.kinds.T[:3], degraded.flip, degraded.noise_key]
    found = np.corrcoef(np.stack([np.asarray(column, float) for column in columns]))
    found[6:9, 6:9] = np.eye(3)  # kinds exclude one another
    assert np.abs(found - np.eye(len(columns))).max() < 4.5 / math.sqrt(RECORDED_DRAWS)


@pytest.mark.parametrize("exponent", [-1.1, -0.4, 0.7, 1.1])
def test_gamma_is_numpys(strong, exponent):
    levels = torch.arange(256, dtype=torch.uint8).repeat(147).view(1, 112, 112, 3)
    changed = _changed(strong, levels, gamma={"exponent": exponent})
    expected = 255 * (levels.numpy() / 255.0) ** np.exp(exponent)
    np.testing.assert_allclose(changed, expected, atol=1e-3)


@pytest.mark.parametrize("length", range(3, 14))
@pytest.mark.parametrize("axis", [0, 1])
def test_motion_is_opencvs_box_filter(strong, length, axis):
    images = _photos(2, seed=length)
    motion = [length, 1] if axis == 0 else [1, length]
    changed = _changed(strong, images, motion={"motion": motion})
    border = {"borderType": cv2.BORDER_REPLICATE}
    expected = [cv2.blur(i, motion[::-1], **border) for i in images.numpy().astype(np.float32)]
    np.testing.assert_allclose(changed, expected, atol=1e-3)


@pytest.mark.parametrize("deviation", [3.0, 17.5, 35.0])
def test_noise_has_the_deviation_asked_for_and_looks_gaussian(strong, deviation):
    flat = torch.full((4, 112, 112, 3), 128, dtype=torch.uint8)
    keys = np.array([1, 2, 3 * 10**9, 2**32 - 1])
    noise = _changed(strong, flat, noise={"deviation": deviation, "noise_key": keys}) - 128
    error = 4 / math.sqrt(2 * noise[0].size)
    for values in noise:
        assert values.std() == pytest.approx(deviation, rel=error)
        for axis in range(3):
            first, second = (np.delete(values, end, axis).ravel() for end in (0, -1))
            assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / math.sqrt(first.size)
    assert noise.mean() == pytest.approx(0, abs=3.5 * deviation / math.sqrt(noise.size))
    shares = [(np.abs(noise) < width * deviation).mean() for width in (1, 2)]
    np.testing.assert_allclose(shares, [0.683, 0.954], atol=0.02)
    different = np.corrcoef(noise.reshape(4, -1)) - np.eye(4)
    assert np.abs(different).max() < 4.5 / math.sqrt(noise[0].size)


def test_operations_run_in_the_order_of_kinds(strong):
    assert KINDS == ("gamma", "occlusion", "motion", "blur", "resolution", "noise")
    image = _photos(1)
    parameters = _only(
        {
            "gamma": {"exponent": 0.5},
            "occlusion": {},
            "motion": {"motion": [1, 9]},
            "blur": {"blur": 4},
            "resolution": {"size": 30},
            "noise": {"deviation": 10.0, "noise_key": 5},
        },
        1,
    )
    parameters = dataclasses.replace(
        parameters,
        flip=np.array([True]),
        box=np.array([[40, 0, 20, 30]]),
        noisy=np.array([False]),
        colour=np.array([[200, 40, 90]]),
    )
    expected = np.fliplr(image[0].numpy()).astype(float).transpose(2, 0, 1)
    expected = 255 * (expected / 255) ** math.exp(0.5)
    expected[:, 40:60, 0:30] = np.array([200, 40, 90])[:, None, None]
    expected = expected @ motion_matrix(9).T
    for matrix in (blur_matrix(RADII[4]), down_up_matrix(30)):
        expected = matrix @ expected @ matrix.T
    flat = torch.full_like(image, 128)
    noise = _changed(strong, flat, noise={"deviation": 10.0, "noise_key": 5})[0] - 128
    expected = np.clip(expected + noise.transpose(2, 0, 1), 0, 255)
    np.testing.assert_allclose(strong(image, parameters)[0].numpy(), expected, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("degrade", [0.0, 0.7])
def test_cuda_agrees_and_the_host_never_waits(no_waiting, degrade):
    augment = BatchAugment(dataclasses.replace(ALL, degrade=degrade), seed=3)
    images, parameters = _photos(120), augment.parameters(1, np.arange(120))
    there = images.cuda()
    augment(there, parameters)
    with no_waiting():
        changed = augment(there, parameters)
    torch.testing.assert_close(changed.cpu(), augment(images, parameters), rtol=0, atol=0.02)
