import numpy as np
import pytest

from estimators.base import Estimate
from evaluation.embed import embed, embed_images


class Halves:
    """Embedding = mean of the left and of the right half; uncertainty = the left one."""

    name = "halves"

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        images = batch.images
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


def test_a_batch_knows_its_rows(tiny_pairs):
    class Rows(Halves):
        def __call__(self, batch):
            rows = np.array(batch.rows, np.float32)
            return Estimate(super().__call__(batch).mu, rows[:, None])

    features = embed(Rows(), tiny_pairs, batch_size=7, flip=True)
    np.testing.assert_array_equal(features.sigma_sq[:, 0], np.arange(24))


def test_errors_name_set_and_estimator(tiny_pairs):
    class Broken(Halves):
        def __call__(self, batch):
            mu, sigma_sq = super().__call__(batch)
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


class Named:
    """Images of an evaluation set, as many as asked for."""

    def __init__(self, pairs, count=23):
        self.pairs, self.count, self.decoded = pairs, count, []

    def __len__(self):
        return self.count

    def decode(self, start, stop):
        self.decoded.append((start, stop))
        return self.pairs.decode(start, stop)

    def image_name(self, row):
        return f"image {row}"


@pytest.mark.parametrize("flip", [False, True])
def test_images_of_any_set_are_embedded_as_pairs_are(tiny_pairs, flip, monkeypatch):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 10)
    images = Named(tiny_pairs)
    found = embed_images(Halves(), images, batch_size=4, name="some", flip=flip)
    expected = embed(Halves(), tiny_pairs, flip=flip)
    np.testing.assert_array_equal(found.mu, expected.mu[:23])
    np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq[:23])
    assert sorted(images.decoded) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 23)]


def test_a_stopped_run_goes_on_where_it_was(tiny_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 8)
    expected = embed_images(Halves(), Named(tiny_pairs), batch_size=4, name="some")

    class Stops(Halves):
        def __call__(self, batch):
            if len(self.batches) == 5:
                raise KeyboardInterrupt
            return super().__call__(batch)

    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts", "about": "abc"}
    with pytest.raises(KeyboardInterrupt):
        embed_images(Stops(), Named(tiny_pairs), **options)
    for still_to_do in ([(16, 20), (20, 23)], []):
        images = Named(tiny_pairs)
        found = embed_images(Halves(), images, **options)
        np.testing.assert_array_equal(found.mu, expected.mu)
        np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq)
        assert sorted(images.decoded) == still_to_do


def test_parts_of_something_else_are_refused(tiny_pairs, tmp_path):
    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts"}
    embed_images(Halves(), Named(tiny_pairs), **options)
    for changed, message in (
        ({"name": "other"}, r"parts holds parts with set 'some', not 'other': delete it, or name"),
        ({"batch_size": 5}, "parts with batch_size 4, not 5"),
        ({"about": "new weights"}, "parts with about '', not 'new weights'"),
        ({"flip": True}, "parts with flip False, not True"),
    ):
        with pytest.raises(ValueError, match=message):
            embed_images(Halves(), Named(tiny_pairs), **options | changed)
    with pytest.raises(ValueError, match="parts with images 23, not 22"):
        embed_images(Halves(), Named(tiny_pairs, 22), **options)
    part = tmp_path / "parts" / "part-000000000.npz"
    np.savez(part, mu=np.ones((3, 2)), sigma_sq=np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"part-000000000\.npz has not the 23 images expected"):
        embed_images(Halves(), Named(tiny_pairs), **options)
    part.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"part-000000000\.npz: not an \.npz file .*: delete it"):
        embed_images(Halves(), Named(tiny_pairs), **options)
    (tmp_path / "parts" / "about.json").unlink()
    with pytest.raises(ValueError, match="parts holds other files: name an empty folder"):
        embed_images(Halves(), Named(tiny_pairs), **options)


def test_an_estimator_that_asks_for_names_gets_those_of_the_set(tiny_pairs):
    class Asks(Halves):
        def __init__(self):
            super().__init__()
            self.checked, self.seen = [], []

        def check_names(self, names):
            self.checked.append(names)

        def __call__(self, batch):
            self.seen.append(batch.names)
            return super().__call__(batch)

    estimator = Asks()
    embed_images(estimator, Named(tiny_pairs, 3), name="some")
    embed(estimator, tiny_pairs)
    assert estimator.checked == [["image 0", "image 1", "image 2"]]
    assert estimator.seen == [*estimator.checked, None]


def test_unsound_estimates_of_images_are_named(tiny_pairs, tmp_path):
    class Broken(Halves):
        def __call__(self, batch):
            mu, sigma_sq = super().__call__(batch)
            return Estimate(mu * 0, sigma_sq)

    with pytest.raises(ValueError, match="some, estimator halves, images from 0 on: mu has 23 emb"):
        embed_images(Broken(), Named(tiny_pairs), name="some", parts=tmp_path / "parts")
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["about.json"]
    with pytest.raises(ValueError, match="some: no images"):
        embed_images(Halves(), Named(tiny_pairs, 0), name="some")
    with pytest.raises(ValueError, match="batch_size = 0: must be at least 1"):
        embed_images(Halves(), Named(tiny_pairs), batch_size=0, name="some")
