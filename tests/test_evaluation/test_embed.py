import numpy as np
import pytest

from evaluation.embed import embed
from evaluation.estimate import Estimate


class Halves:
    """Embedding = mean of the left and of the right half; uncertainty = the left one."""

    name = "halves"

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        left = images[:, :, :56].mean(axis=(1, 2, 3)) + 1
        right = images[:, :, 56:].mean(axis=(1, 2, 3)) + 1
        mu = np.stack([left, right], axis=1).astype(np.float32)
        return Estimate(mu, mu[:, :1])


def test_every_image_once_in_order_in_batches(tiny_pairs):
    estimator = Halves()
    features = embed(estimator, tiny_pairs, batch_size=5)
    assert estimator.batches == [5, 5, 5, 5, 4]
    np.testing.assert_allclose(features.mu[:, 0], [row * 7 % 251 + 1 for row in range(24)])
    np.testing.assert_array_equal(features.issame, tiny_pairs.mated)


def test_batch_size_does_not_matter(tiny_pairs):
    one, all_at_once = (embed(Halves(), tiny_pairs, batch_size=size) for size in (1, 100))
    np.testing.assert_array_equal(one.mu, all_at_once.mu)
    np.testing.assert_array_equal(one.sigma_sq, all_at_once.sigma_sq)


def test_flip_adds_the_mirror_image_and_normalises(tiny_pairs):
    plain = embed(Halves(), tiny_pairs)
    flipped = embed(Halves(), tiny_pairs, flip=True)
    total = plain.mu + plain.mu[:, ::-1]
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(flipped.mu, expected, rtol=1e-6)
    np.testing.assert_allclose(flipped.sigma_sq[:, 0], plain.mu.mean(axis=1), rtol=1e-6)


def test_an_estimator_that_reads_rows_gets_the_first_row(tiny_pairs):
    class Rows(Halves):
        reads_rows = True

        def __call__(self, images, start):
            rows = np.arange(start, start + len(images), dtype=np.float32)
            return Estimate(super().__call__(images).mu, rows[:, None])

    features = embed(Rows(), tiny_pairs, batch_size=7, flip=True)
    np.testing.assert_array_equal(features.sigma_sq[:, 0], np.arange(24))


def test_errors_name_set_and_estimator(tiny_pairs):
    class Broken(Halves):
        def __call__(self, images):
            mu, sigma_sq = super().__call__(images)
            return Estimate(mu, sigma_sq * np.nan)

    with pytest.raises(ValueError, match=r"tiny, estimator halves: sigma_sq has 24 of 24 values"):
        embed(Broken(), tiny_pairs)
    with pytest.raises(ValueError, match=r"batch_size = 0: must be at least 1"):
        embed(Halves(), tiny_pairs, batch_size=0)
    tiny_pairs.mated = tiny_pairs.mated[:0]
    with pytest.raises(ValueError, match="tiny: no pairs"):
        embed(Halves(), tiny_pairs)


def test_progress_bar_on_request_only(tiny_pairs, capsys):
    embed(Halves(), tiny_pairs, progress=False)
    assert capsys.readouterr().err == ""
    embed(Halves(), tiny_pairs, progress=True)
    assert "tiny" in capsys.readouterr().err
