"""Strong degradations: how often, how strong, against NumPy, OpenCV and Pillow."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from data.augment.batch import AugmentParameters, BatchAugment
from data.augment.operations import blur_matrix, down_up_matrix, motion_matrix
from data.augment.parameters import COLUMNS, KINDS, RADII, STRONG_COLUMNS, keyed_uniforms
from utils.config import Augment

DRAWS = 20000
MILD = Augment(flip=0.5, blur=0.7, occlusion=0.7, rare=0.9)
SHARES = {1: 0.5, 2: 0.35, 3: 0.15}
# First 16 digits of the SHA-256 of 500 drawn rows, of the images' means and deviations as well:
# of the augmentation before it had strong degradations (MILD, seed 3, step 12).
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


def _photos(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth colour fields with grain, uint8."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (count, 12, 12, 3)).astype(np.float32)
    fields = np.stack([cv2.resize(field, (112, 112)) for field in coarse])
    fields += generator.normal(0, 8, fields.shape)
    return torch.from_numpy(np.clip(fields, 0, 255).astype(np.uint8))


def _only(kinds: dict[str, dict[str, object]], count: int) -> AugmentParameters:
    """Parameters with these kinds alone, each with its values."""
    off = Augment(flip=0.0, blur=0.0, occlusion=0.0, rare=0.0)
    nothing = BatchAugment(off, seed=0).parameters(0, np.arange(count))
    has = np.zeros((count, len(KINDS)), bool)
    values = {}
    for kind, fields in kinds.items():
        has[:, KINDS.index(kind)] = True
        for name, value in fields.items():
            old = getattr(nothing.strong, name)
            values[name] = np.broadcast_to(np.array(value, old.dtype), old.shape).copy()
    return dataclasses.replace(
        nothing, strong=dataclasses.replace(nothing.strong, kinds=has, **values)
    )


def _changed(augment: BatchAugment, images: torch.Tensor, **kinds: dict[str, object]) -> np.ndarray:
    changed = augment(images, _only(kinds, len(images)))
    return changed.permute(0, 2, 3, 1).numpy()


def _moved(augment: BatchAugment, images: torch.Tensor, **kinds: dict[str, object]) -> float:
    return float(np.abs(_changed(augment, images, **kinds) - images.numpy()).mean())


@pytest.fixture(scope="module")
def augment() -> BatchAugment:
    return BatchAugment(Augment(degrade=1.0), seed=3)


@pytest.fixture(scope="module")
def many(augment: BatchAugment) -> AugmentParameters:
    return augment.parameters(5, np.arange(DRAWS))


def _within(found: float, rate: float, draws: int = DRAWS) -> bool:
    return abs(found - rate) < 3.5 * math.sqrt(rate * (1 - rate) / draws)


def test_without_degradations_draws_are_as_they_were_before():
    drawn = BatchAugment(MILD, seed=3).parameters(12, np.arange(500))
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
    augment = BatchAugment(MILD, seed=3)
    changed = augment(images, augment.parameters(12, np.arange(6)))
    np.testing.assert_allclose(changed.mean((1, 2, 3)), MEANS, atol=0.01)
    np.testing.assert_allclose(changed.std((1, 2, 3)), DEVIATIONS, atol=0.01)


def test_images_that_are_spared_are_changed_as_without_degradations():
    rows, images = np.arange(60), _photos(60)
    plain, mixed = (
        BatchAugment(dataclasses.replace(MILD, degrade=rate), seed=3) for rate in (0.0, 0.5)
    )
    before, after = plain.parameters(2, rows), mixed.parameters(2, rows)
    spared = ~after.strong.kinds.any(axis=1)
    assert 15 < spared.sum() < 45
    for name in BEFORE:
        np.testing.assert_array_equal(getattr(before, name)[spared], getattr(after, name)[spared])
    expected, changed = plain(images, before)[spared], mixed(images, after)[spared]
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-3)


def test_how_many_images_are_degraded():
    drawn = BatchAugment(Augment(degrade=0.3), seed=2).parameters(0, np.arange(DRAWS))
    degraded = drawn.strong.kinds.any(axis=1)
    assert _within(degraded.mean(), 0.3)
    assert _within(drawn.flip[degraded].mean(), 0.5, degraded.sum())


def test_how_many_kinds_and_which(many):
    count = many.strong.kinds.sum(axis=1)
    assert set(count) == set(SHARES)
    for number, rate in SHARES.items():
        assert _within((count == number).mean(), rate), number
        of_these = many.strong.kinds[count == number]
        for index, kind in enumerate(KINDS):
            found = of_these[:, index].mean()
            assert _within(found, number / len(KINDS), len(of_these)), (number, kind)


def test_every_pair_of_kinds_occurs_equally_often(many):
    pairs = many.strong.kinds[many.strong.kinds.sum(axis=1) == 2].astype(float)
    together = (pairs.T @ pairs)[np.triu_indices(len(KINDS), 1)] / len(pairs)
    assert all(_within(found, 1 / 15, len(pairs)) for found in together)


def test_degraded_images_get_no_mild_changes():
    config = dataclasses.replace(MILD, degrade=0.5)
    drawn = BatchAugment(config, seed=1).parameters(0, np.arange(DRAWS))
    degraded = drawn.strong.kinds.any(axis=1)
    assert (drawn.blur[degraded] == -1).all()
    assert (drawn.rare[degraded] == -1).all()
    np.testing.assert_array_equal(
        drawn.box[degraded, 2] > 0, drawn.strong.has("occlusion")[degraded]
    )
    assert _within((drawn.blur[~degraded] >= 0).mean(), 0.7, (~degraded).sum())
    assert _within((drawn.box[~degraded, 2] > 0).mean(), 0.7, (~degraded).sum())
    assert _within((drawn.flip[degraded]).mean(), 0.5, degraded.sum())


def test_ranges_are_filled_evenly(many):
    strong = many.strong
    for values, low, high in (
        (strong.exponent, -1.1, 1.1),
        (strong.deviation, 3.0, 35.0),
        (strong.size, 13.5, 80.5),
        (strong.motion.max(axis=1), 2.5, 13.5),
        (strong.blur, -0.5, len(RADII) - 0.5),
    ):
        assert low <= values.min() < low + 0.55
        assert high - 0.55 < values.max() <= high
        # Mean of uniform draws; 4 standard deviations.
        error = 4 * (high - low) / math.sqrt(12 * DRAWS)
        assert values.mean() == pytest.approx((low + high) / 2, abs=error)
    assert (RADII[0], RADII[-1], RADII[1] - RADII[0]) == (0.5, 3.5, 0.25)
    assert (strong.motion.min(axis=1) == 1).all()
    assert _within((strong.motion[:, 0] > 1).mean(), 0.5)


def test_boxes_are_of_the_strong_kind(many):
    covered = many.strong.has("occlusion")
    height, width = many.box[covered, 2:].T
    share, aspect = height * width / 112**2, height / width
    assert 0.047 < share.min() < 0.055
    assert 0.345 < share.max() < 0.356
    assert share.mean() == pytest.approx(0.2, abs=0.005)
    assert 0.38 < aspect.min() < 0.43
    assert 2.35 < aspect.max() < 2.65
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03)
    assert _within(many.noisy[covered].mean(), 0.5, covered.sum())
    assert (many.box[~covered] == 0).all()


def test_draws_follow_seed_step_and_row_alone(augment):
    rows = np.array([40, 7, 19, 3, 88])
    whole = dataclasses.asdict(augment.parameters(12, rows).strong)
    order = np.array([2, 4, 1])
    part = dataclasses.asdict(augment.parameters(12, rows[order]).strong)
    other = augment.parameters(13, rows).strong
    for name, values in whole.items():
        np.testing.assert_array_equal(values[order], part[name])
    assert not np.isin(other.noise_key, whole["noise_key"]).any()


def test_draws_are_independent_of_one_another(many):
    strong = many.strong
    columns = [strong.exponent, strong.motion[:, 0], strong.blur, strong.size, strong.deviation]
    columns += [strong.noise_key.astype(float), *strong.kinds.T[:3], many.flip, many.noise_key]
    found = np.corrcoef(np.stack([np.asarray(column, float) for column in columns]))
    found[6:9, 6:9] = np.eye(3)  # kinds exclude one another
    assert np.abs(found - np.eye(len(columns))).max() < 4.5 / math.sqrt(DRAWS)


@pytest.mark.parametrize("exponent", [-1.1, -0.4, 0.7, 1.1])
def test_gamma_is_numpys(augment, exponent):
    levels = torch.arange(256, dtype=torch.uint8).repeat(147).view(1, 112, 112, 3)
    changed = _changed(augment, levels, gamma={"exponent": exponent})
    expected = 255 * (levels.numpy() / 255.0) ** np.exp(exponent)
    np.testing.assert_allclose(changed, expected, atol=1e-3)


@pytest.mark.parametrize("length", range(3, 14))
@pytest.mark.parametrize("axis", [0, 1])
def test_motion_is_opencvs_box_filter(augment, length, axis):
    images = _photos(2, seed=length)
    motion = [length, 1] if axis == 0 else [1, length]
    changed = _changed(augment, images, motion={"motion": motion})
    expected = np.stack(
        [
            cv2.blur(i.numpy().astype(np.float32), motion[::-1], borderType=cv2.BORDER_REPLICATE)
            for i in images
        ]
    )
    np.testing.assert_allclose(changed, expected, atol=1e-3)


@pytest.mark.parametrize("index", [0, 5, len(RADII) - 1])
def test_blur_is_pillows(augment, index):
    images = _photos(3, seed=index)
    changed = _changed(augment, images, blur={"blur": index})
    gaussian = ImageFilter.GaussianBlur(RADII[index])
    expected = [np.asarray(Image.fromarray(i.numpy()).filter(gaussian)) for i in images]
    # Pillow rounds to whole levels after each pass.
    assert np.abs(changed - np.stack(expected)).max() <= 3


@pytest.mark.parametrize("size", [14, 27, 28, 80])
def test_resolution_is_pillows(augment, size):
    images = _photos(3, seed=size)
    changed = _changed(augment, images, resolution={"size": size})
    for image, found in zip(images, changed, strict=True):
        small = Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((112, 112), Image.Resampling.BILINEAR))
        assert np.abs(found - expected).max() <= 3


@pytest.mark.parametrize("deviation", [3.0, 17.5, 35.0])
def test_noise_has_the_deviation_asked_for_and_looks_gaussian(augment, deviation):
    flat = torch.full((4, 112, 112, 3), 128, dtype=torch.uint8)
    keys = np.array([1, 2, 3 * 10**9, 2**32 - 1])
    noise = _changed(augment, flat, noise={"deviation": deviation, "noise_key": keys}) - 128
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


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        ("gamma", "exponent", (0.1, 0.5, 1.1)),
        ("gamma", "exponent", (-0.1, -0.5, -1.1)),
        ("motion", "motion", ([3, 1], [7, 1], [13, 1])),
        ("blur", "blur", (0, 6, 12)),
        ("resolution", "size", (80, 40, 14)),
        ("noise", "deviation", (3.0, 15.0, 35.0)),
    ],
)
def test_effects_are_graded(augment, kind, name, values):
    images = _photos(4)
    moved = [_moved(augment, images, **{kind: {name: value}}) for value in values]
    assert 0.5 < moved[0] < 0.9 * moved[1]
    assert moved[1] < 0.95 * moved[2]


def test_operations_run_in_the_order_of_kinds(augment):
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
    noise = _changed(augment, flat, noise={"deviation": 10.0, "noise_key": 5})[0] - 128
    expected = np.clip(expected + noise.transpose(2, 0, 1), 0, 255)
    np.testing.assert_allclose(augment(image, parameters)[0].numpy(), expected, atol=2e-3)


def test_no_image_is_left_as_it_is():
    augment = BatchAugment(Augment(flip=0.0, degrade=1.0), seed=6)
    images, rows = _photos(200), np.arange(200)
    changed = augment(images, augment.parameters(0, rows)).permute(0, 2, 3, 1)
    moved = (changed - images).abs().mean((1, 2, 3))
    assert moved.min() > 0.05
    assert moved.median() > 8


def test_an_image_does_not_depend_on_how_the_batch_is_split(augment):
    images, rows = _photos(40), np.arange(100, 140)
    whole = augment(images, augment.parameters(9, rows))
    parts = [
        augment(images[part], augment.parameters(9, rows[part]))
        for part in (slice(0, 7), slice(7, 8), slice(8, 40))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    assert torch.equal(whole, augment(images, augment.parameters(9, rows)))


def test_levels_stay_in_range(augment):
    generator = torch.Generator().manual_seed(0)
    extreme = torch.randint(0, 2, (120, 112, 112, 3), generator=generator, dtype=torch.uint8) * 255
    changed = augment(extreme, augment.parameters(0, np.arange(120)))
    assert torch.isfinite(changed).all()
    assert changed.min() == 0
    assert changed.max() == 255


@pytest.mark.parametrize("length", [1, 2, 4, 13])
def test_motion_matrix_averages(length):
    matrix = motion_matrix(length)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)
    assert (matrix[56] > 0).sum() == length
