import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.sets import templates
from evaluation.sets.templates import fuse_templates

NAMED = ["mean", "inverse_variance", "quality", "norm"]


def drawn(images=40, dims=6, columns=1, seed=0):
    rng = np.random.default_rng(seed)
    mu = rng.normal(size=(images, dims)) * rng.uniform(0.5, 3, (images, 1))
    sigma_sq = rng.uniform(0.05, 0.95, (images, columns))
    template = rng.integers(10, 10 + max(1, images // 5), images)
    return mu.astype(np.float32), sigma_sq.astype(np.float32), template, rng.integers(0, 4, images)


def brute_force(mu, sigma_sq, template, media, weights, correlated=True):
    """The docstring in nested loops over templates, media and frames, in float64."""
    fused, spread = [], []
    for one in sorted(set(template.tolist())):
        direction, total, believed = 0.0, 0.0, 0.0
        for medium in sorted(set(media[template == one].tolist())):
            rows = np.flatnonzero((template == one) & (media == medium))
            x = mu[rows].astype(np.float64)
            size = np.sqrt((x**2).sum(axis=1, keepdims=True))
            s = sigma_sq[rows].astype(np.float64)
            w = {"mean": 1 + 0 * size, "norm": size, "quality": 1 - s, "inverse_variance": 1 / s}
            w = w[weights]
            pooled = (w * x / size).sum(axis=0) / w.sum(axis=0)
            if weights != "inverse_variance":
                weight, variance = w.mean(axis=0), (w * s).sum(axis=0) / w.sum(axis=0)
            else:
                variance = s.min(axis=0) if correlated else 1 / (1 / s).sum(axis=0)
                weight = 1 / variance
            direction = direction + weight * pooled
            total = total + weight
            believed = believed + weight * variance
        direction = direction / total  # matters where there is a weight for each dimension
        fused.append(direction / np.linalg.norm(direction))
        spread.append(1 / total if weights == "inverse_variance" else believed / total)
    return np.array(fused), np.array(spread)


@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("weights", NAMED)
def test_equals_nested_loops(weights, correlated):
    for columns in (1, 6) if weights == "inverse_variance" else (1,):
        values = drawn(columns=columns)
        found = fuse_templates(*values, weights, correlated=correlated)
        mu, sigma_sq = brute_force(*values, weights, correlated)
        np.testing.assert_array_equal(found.ids, np.unique(values[2]))
        np.testing.assert_allclose(found.mu, mu, atol=1e-6)
        np.testing.assert_allclose(found.sigma_sq, sigma_sq, rtol=1e-6)
        assert found.mu.dtype == found.sigma_sq.dtype == np.float32


@pytest.mark.parametrize("columns", [1, 2])
def test_inverse_variance_of_two_images_in_closed_form(columns):
    mu = np.array([[3, 0], [0, 5]], np.float32)
    sigma_sq = np.array([[0.1, 0.2], [0.3, 0.6]], np.float32)[:, :columns]
    template = np.array([8, 8])
    ids, fused, spread = fuse_templates(mu, sigma_sq, template, np.array([1, 2]))
    # mu = (e1 / s1 + e2 / s2) / (1 / s1 + 1 / s2) in each dimension, then length 1
    precision = 1 / np.array([[0.1, 0.2], [0.3, 0.6]])[:, :columns].T
    raw = np.array([precision[0][0], precision[-1][1]]) / precision.sum(axis=1)
    assert ids.tolist() == [8]
    np.testing.assert_allclose(fused, [raw / np.hypot(*raw)], rtol=1e-6)
    expected = [0.1 * 0.3 / 0.4, 0.2 * 0.6 / 0.8][:columns]
    np.testing.assert_allclose(spread, [expected], rtol=1e-6)


def test_frames_of_one_medium_do_not_add_up_unless_taken_as_independent():
    mu = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    sigma_sq = np.array([[0.2], [0.4], [0.2]], np.float32)
    template, media = np.array([1, 1, 1]), np.array([5, 5, 6])
    _, fused, spread = fuse_templates(mu, sigma_sq, template, media)
    np.testing.assert_allclose(fused, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)  # .2 against .2
    np.testing.assert_allclose(spread, [[0.1]], rtol=1e-6)
    _, fused, spread = fuse_templates(mu, sigma_sq, template, media, correlated=False)
    np.testing.assert_allclose(fused, [np.array([7.5, 5]) / np.hypot(7.5, 5)], rtol=1e-6)
    np.testing.assert_allclose(spread, [[1 / 12.5]], rtol=1e-6)
    alone = fuse_templates(mu, sigma_sq, template, np.arange(3))
    np.testing.assert_allclose(alone.sigma_sq, spread, rtol=1e-6)


@pytest.mark.parametrize("weights", NAMED)
def test_templates_of_one_image_are_that_image(weights):
    mu, sigma_sq, _, media = drawn()
    found = fuse_templates(mu, sigma_sq, np.arange(40)[::-1], media, weights)
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    np.testing.assert_allclose(found.mu[::-1], unit, atol=2e-7)
    np.testing.assert_allclose(found.sigma_sq[::-1], sigma_sq, rtol=2e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(NAMED))
def test_neither_order_nor_names_of_media_nor_block_size_matter(seed, weights):
    mu, sigma_sq, template, media = drawn(seed=seed)
    found = fuse_templates(mu, sigma_sq, template, media, weights)
    order = np.random.default_rng(seed).permutation(len(mu))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "ROWS_AT_ONCE", 3)
        again = fuse_templates(
            mu[order], sigma_sq[order], template[order], 900 - media[order], weights
        )
    np.testing.assert_array_equal(again.ids, found.ids)
    np.testing.assert_allclose(again.mu, found.mu, atol=1e-6)
    np.testing.assert_allclose(again.sigma_sq, found.sigma_sq, rtol=1e-6)


def test_weights_of_ones_own():
    mu, sigma_sq, template, media = drawn()
    for weights, name in (
        (np.ones(40), "mean"),
        (7 * (1 - sigma_sq[:, 0]), "quality"),
        (np.linalg.norm(mu, axis=1), "norm"),
    ):
        found = fuse_templates(mu, sigma_sq, template, media, weights)
        expected = fuse_templates(mu, sigma_sq, template, media, name)
        np.testing.assert_allclose(found.mu, expected.mu, atol=1e-6)
        np.testing.assert_allclose(found.sigma_sq, expected.sigma_sq, rtol=1e-6)
    only = np.arange(40) == np.argmax(template == 12)
    kept = fuse_templates(mu, sigma_sq, np.where(template == 12, 12, np.arange(40)), media,
                          only + (template != 12))  # fmt: skip
    row = int(np.argmax(only))
    place = kept.ids.tolist().index(12)
    np.testing.assert_allclose(kept.mu[place], mu[row] / np.linalg.norm(mu[row]), atol=1e-6)
    assert kept.sigma_sq[place, 0] == pytest.approx(sigma_sq[row, 0])


def test_hopeless_images_still_have_a_direction():
    mu = np.array([[1, 0], [0, 1]], np.float32)
    _, fused, spread = fuse_templates(
        mu, np.ones((2, 1), np.float32), np.zeros(2, int), np.arange(2), "quality"
    )
    np.testing.assert_allclose(fused, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(spread, [[1]])


@pytest.mark.parametrize(
    ("change", "weights", "words"),
    [
        ({"sigma_sq": -np.ones((4, 1))}, "inverse_variance", "inverse variance needs variances ab"),
        ({"sigma_sq": np.ones((4, 3))}, "inverse_variance", r"shape \(4, 3\) for 4 images"),
        ({"sigma_sq": -np.ones((4, 1))}, "quality", "got 1 within -1 to -1: use 'mean', 'norm'"),
        ({"sigma_sq": np.ones((4, 2))}, "quality", "one uncertainty per image .* got 2 within"),
        ({"mu": np.array([[1, 0], [0, 0], [1, 1], [1, 1]])}, "mean", "image 1 has no direction"),
        ({"mu": np.array([[1, 0], [-1, 0], [1, 1], [1, 1]])}, "mean", "template 3 has no direct"),
        ({"media": np.zeros(3)}, "mean", r"shapes do not fit: .*media \(3,\)"),
        ({}, "best", "unknown weights 'best' .known: mean, inverse_variance, quality, norm"),
        ({}, np.array([1, -1, 1, 1]), "weights must be 4 finite numbers of 0 or more"),
        ({}, np.array([0, 0, 1, 1]), "template 3 has no direction: the weights .* are all 0"),
        ({}, np.array([1, 1, 1]), r"one per image; got shape \(3,\)"),
    ],
    ids=[
        "negative", "columns", "not-probability", "two-columns", "zero", "cancel", "shape", "name",
        "negative-weight", "no-weight", "count",
    ],
)  # fmt: skip
def test_what_cannot_be_fused(change, weights, words):
    values = {
        "mu": np.eye(4, 2) + 1,
        "sigma_sq": np.full((4, 1), 0.5),
        "template": np.array([3, 3, 4, 4]),
        "media": np.arange(4),
    } | change
    with pytest.raises(ValueError, match=words):
        fuse_templates(*values.values(), weights)
