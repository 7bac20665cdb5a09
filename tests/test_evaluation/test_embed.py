"""Embedding: batches, mirror images, parts that are resumed, several estimators, several ranks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, active_count

import numpy as np
import pytest
import torch

from data import verification
from data.images import Sizes, decode, encode_jpeg, first_rows
from data.verification import VerificationSet
from estimators.base import Batch, Estimate, build_estimator
from evaluation.embed import BATCHES, embed_images, embed_pairs, estimate_batch, plan_batches
from models.backbones.iresnet import IResNet
from models.frozen import FrozenBackbone
from utils.config import Method, parse_method
from utils.distributed import World


class Halves:
    """Embedding = means of the left and of the right half; uncertainty = row, and batch's size."""

    name = "halves"

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append((batch.rows[0], len(batch)))
        halves = batch.images.reshape(len(batch), 112, 2, 56, 3).mean(axis=(1, 3, 4)) + 1
        told = [[row, len(batch)] for row in batch.rows]
        return Estimate(halves.astype(np.float32), np.array(told, np.float32))


class Pictures:
    """Images of an evaluation set; some cannot be read."""

    sizes = Sizes()

    def __init__(self, pairs, count=23, bad=()):
        self.pairs, self.count, self.bad, self.decoded = pairs, count, bad, []

    def __len__(self):
        return self.count

    def decode(self, start, stop):
        self.decoded.append((start, stop))
        for row in self.bad:
            if start <= row < stop:
                raise ValueError(f"image {row} is damaged")
        return self.pairs.decode(start, stop)

    def fingerprint(self, row):
        return row

    def image_name(self, row):
        return f"image {row}"


@dataclass(frozen=True)
class Played(World):
    """A rank whose companions are other threads."""

    meeting: Barrier
    table: list = field(hash=False)

    def gather(self, value):
        self.table[self.rank] = value
        self.meeting.wait(timeout=60)
        gathered = list(self.table)
        self.meeting.wait(timeout=60)
        return gathered


def on_each_of(size, work):
    """Results or errors of work(world) on every rank."""
    meeting, table = Barrier(size), [None] * size
    worlds = [Played(rank, size, rank, meeting, table) for rank in range(size)]

    def caught(world):
        try:
            return work(world)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(caught, worlds))


def require_equal(estimate, expected):
    np.testing.assert_array_equal(estimate.mu, expected.mu)
    np.testing.assert_array_equal(estimate.sigma_sq, expected.sigma_sq)


def test_every_image_once_in_order_in_batches(tiny_pairs):
    estimator = Halves()
    (features,) = embed_pairs([estimator], tiny_pairs, batch_size=5)
    assert estimator.batches == [(0, 5), (5, 5), (10, 5), (15, 5), (20, 4)]
    np.testing.assert_allclose(features.mu[:, 0], [row * 7 % 251 + 1 for row in range(24)])
    np.testing.assert_array_equal(features.sigma_sq[:, 0], range(24))
    np.testing.assert_array_equal(features.issame, tiny_pairs.mated)


def test_flip_adds_the_mirror_image_and_normalises(tiny_pairs):
    (plain,), (flipped,) = (embed_pairs([Halves()], tiny_pairs, flip=flip) for flip in (0, 1))
    total = plain.mu + plain.mu[:, ::-1]
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(flipped.mu, expected, rtol=1e-6)
    np.testing.assert_allclose(flipped.sigma_sq, plain.sigma_sq)


@pytest.mark.parametrize("flip", [False, True])
def test_several_estimators_share_a_forward_pass_bit_by_bit(flip, tiny_pairs):
    torch.manual_seed(0)
    backbone = IResNet(layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)
    frozen, passes = FrozenBackbone(backbone, "cpu"), []
    frozen.register_forward_hook(lambda *_: passes.append(1))
    methods = ["embedding_norm", "flip_disagreement", "brightness"]
    estimators = [build_estimator(Method(name), frozen=frozen) for name in methods]
    expected = [embed_pairs([one], tiny_pairs, batch_size=10, flip=flip)[0] for one in estimators]
    passes.clear()
    together = embed_pairs(estimators, tiny_pairs, batch_size=10, flip=flip)
    assert len(passes) == 2 * 3  # the images and their mirror images, in three batches
    for features, alone in zip(together, expected, strict=True):
        require_equal(features, alone)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_ranks_share_the_batches_and_all_get_the_result_of_one(size, tiny_pairs):
    (expected,) = embed_pairs([Halves()], tiny_pairs, batch_size=5, flip=True)
    estimators = [Halves() for _ in range(size)]

    def work(world):
        own = estimators[world.rank]
        return embed_pairs([own], tiny_pairs, batch_size=5, flip=True, world=world)

    for (features,) in on_each_of(size, work):
        require_equal(features, expected)
    batches = [(0, 5), (5, 5), (10, 5), (15, 5), (20, 4)]
    for rank, estimator in enumerate(estimators):
        assert estimator.batches[::2] == batches[rank::size]


@pytest.fixture
def repeated():
    """86 rows of 19 images; among the last six are two that occur nowhere else."""
    rng = np.random.default_rng(1)
    faces = [encode_jpeg(rng.integers(0, 256, (112, 112, 3), np.uint8)) for _ in range(19)]
    order = [*range(17), *rng.integers(17, size=63), 3, 17, 18, 18, 3, 0]
    return VerificationSet("repeated", [faces[k] for k in order], np.arange(43) % 2 == 0)


METHODS = (
    *("embedding_norm", "brightness", "mc_dropout:passes=4", "mc_dropout:form=closed_form"),
    *("ser_fiq:passes=4", "faceqan:passes=2,steps=2"),
)


@pytest.mark.parametrize("flip", [False, True])
def test_repeated_images_are_embedded_once_with_the_values_of_all_rows(flip, repeated, monkeypatch):
    torch.manual_seed(0)
    backbone = IResNet(layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)
    frozen = FrozenBackbone(backbone, "cpu")
    estimators = [build_estimator(parse_method(text), frozen=frozen) for text in METHODS]
    batches = [Batch(repeated.decode(at, at + 16)) for at in range(0, 86, 16)]
    expected = [[estimate_batch(one, batch, flip=flip) for batch in batches] for one in estimators]
    sizes, decoded = [], []
    frozen.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    monkeypatch.setattr(verification, "decode", lambda data: decoded.append(data) or decode(data))
    found = embed_pairs(estimators, repeated, 16, flip=flip)
    for features, parts in zip(found, expected, strict=True):
        require_equal(features, Estimate(*map(np.concatenate, zip(*parts, strict=True))))
    assert len(decoded) == 17 + 4  # images; the last six rows are a batch of another size
    assert sizes == [16, 16, 16, 16, 6, 6]  # faces and mirror images, which faceqan always needs


@pytest.mark.parametrize("size", [1, 4, 7, 16, 86])
def test_images_are_given_in_the_order_of_the_rows(size, repeated):
    (features,) = embed_pairs([Halves()], repeated, size)
    halves = repeated.decode(0, 86).reshape(86, 112, 2, 56, 3).mean(axis=(1, 3, 4)) + 1
    np.testing.assert_array_equal(features.mu, halves.astype(np.float32))


@pytest.mark.parametrize("size", [1, 3, 8, 50, 64])
def test_plans_have_each_image_once_in_batches_as_large_as_those_of_all_rows(size):
    for kinds in (1, 5, 20, 1000):
        numbers = np.random.default_rng(kinds).integers(kinds, size=50)
        first = np.array([np.flatnonzero(numbers == number)[0] for number in numbers])
        np.testing.assert_array_equal(first_rows(numbers), first)
        plan, whole = plan_batches(first, size), 50 - 50 % size
        spread = plan.spread(Estimate(plan.rows[:, None], plan.rows[:, None]))
        np.testing.assert_array_equal(spread.mu[:, 0], first)
        distinct = np.unique(first[:whole])
        full = -(-len(distinct) // size) * size
        np.testing.assert_array_equal(plan.rows[: len(distinct)], distinct)
        np.testing.assert_array_equal(plan.rows[full:], first[whole:])


def test_repeated_images_in_parts_on_ranks_and_scored_by_row(repeated, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 8)
    images, options = repeated, {"batch_size": 4, "name": "some"}
    expected = embed_images(Halves(), images, **options)
    assert len(np.unique(expected.sigma_sq[:, 0])) == 19
    parts = {"parts": tmp_path / "parts"}
    for estimate in on_each_of(
        3, lambda world: embed_images(Halves(), images, **options, **parts, world=world)
    ):
        require_equal(estimate, expected)
    require_equal(embed_images(Halves(), images, **options, **parts), expected)
    repeated.images[:] = repeated.images[:1] * 86
    with pytest.raises(ValueError, match="was made with distinct 19, not 1"):
        embed_images(Halves(), images, **options, **parts)

    class ByName(Halves):
        def check_names(self, names):
            assert names == [str(row) for row in range(86)]

    by_name = embed_images(ByName(), images, **options)
    np.testing.assert_array_equal(by_name.sigma_sq[:, 0], range(86))


def test_parts_are_resumed_by_another_number_of_ranks(tiny_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 8)
    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts"}
    expected = embed_images(Halves(), Pictures(tiny_pairs), batch_size=4, name="some")
    for size, batches in (
        (2, [[(0, 4), (4, 4), (16, 4), (20, 3)], [(8, 4), (12, 4)]]),
        (3, [[], [], [(16, 4), (20, 3)]]),
    ):
        estimators = [Halves() for _ in range(size)]

        def work(world, estimators=estimators):
            own = estimators[world.rank]
            return embed_images(own, Pictures(tiny_pairs), **options, world=world)

        for estimate in on_each_of(size, work):
            require_equal(estimate, expected)
        assert [estimator.batches for estimator in estimators] == batches
        (tmp_path / "parts" / "part-000000016.npz").unlink()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "other"}, "was made with set 'some', not 'other'"),
        ({"batch_size": 5}, "was made with batch_size 4, not 5"),
        ({"about": "new weights"}, "was made with about '', not 'new weights'"),
        ({"flip": True}, "was made with flip False, not True"),
        ({"images": 22}, "was made with images 23, not 22"),
    ],
)
def test_parts_of_something_else_are_refused(changed, message, tiny_pairs, tmp_path):
    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts"}
    embed_images(Halves(), Pictures(tiny_pairs), **options)
    images = Pictures(tiny_pairs, changed.pop("images", 23))
    with pytest.raises(ValueError, match=message):
        embed_images(Halves(), images, **options | changed)


def test_damaged_parts_are_named(tiny_pairs, tmp_path):
    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts"}
    embed_images(Halves(), Pictures(tiny_pairs), **options)
    part = tmp_path / "parts" / "part-000000000.npz"
    np.savez(part, mu=np.ones((3, 2)), sigma_sq=np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"part-000000000\.npz has not the 23 images expected"):
        embed_images(Halves(), Pictures(tiny_pairs), **options)
    part.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"part-000000000\.npz: not an \.npz file .*: delete it"):
        embed_images(Halves(), Pictures(tiny_pairs), **options)


def test_names_are_checked_before_the_work_and_come_with_each_batch(tiny_pairs):
    class Reads(Halves):
        checked = ()

        def check_names(self, names):
            self.checked = names
            self.seen = []

        def __call__(self, batch):
            self.seen += batch.names
            return super().__call__(batch)

    estimator = Reads()
    embed_images(estimator, Pictures(tiny_pairs, 3), batch_size=2, name="some")
    assert estimator.checked == estimator.seen == ["image 0", "image 1", "image 2"]


def test_images_that_are_not_aligned_are_told_once(caplog):
    wide = [np.full((100, 180, 3), 10 * row, np.uint8) for row in range(20)]
    images = VerificationSet("wide", wide, np.arange(10) % 2 == 0)
    for _ in range(2):
        embed_images(Halves(), images, batch_size=4, name="wide")
    assert caplog.text.count("wide: 20 of 20 images (100 %) are not aligned faces") == 1


def test_an_error_comes_with_its_batch_and_ends_the_threads(tiny_pairs):
    threads = active_count()
    images, estimator = Pictures(tiny_pairs, bad=(6,)), Halves()
    with pytest.raises(ValueError, match="image 6 is damaged"):
        embed_images(estimator, images, batch_size=2, name="some")
    assert estimator.batches == [(0, 2), (2, 2), (4, 2)]
    assert len(images.decoded) <= 3 + BATCHES
    assert active_count() == threads


def test_an_error_on_one_rank_is_the_same_error_on_all(tiny_pairs):
    for bad in ((6,), (18, 9), (23 - 1,)):

        def work(world, bad=bad):
            images = Pictures(tiny_pairs, bad=bad)
            return embed_images(Halves(), images, batch_size=4, name="some", world=world)

        assert on_each_of(3, work) == [f"image {min(bad)} is damaged"] * 3


def test_unsound_estimates_are_named_as_by_one_process(tiny_pairs, tmp_path):
    class Broken(Halves):
        name = "broken"

        def __call__(self, batch):
            estimate = super().__call__(batch)
            return Estimate(estimate.mu * (batch.rows[0] < 12), estimate.sigma_sq)

    def work(world):
        options = {"parts": tmp_path / str(world.size), "world": world}
        return embed_images(Broken(), Pictures(tiny_pairs), batch_size=4, name="some", **options)

    (alone,) = on_each_of(1, work)
    assert alone.startswith("some, estimator broken, images from 12 on: mu has 4 embeddings of le")
    assert on_each_of(2, work) == [alone, alone]
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["about.json"]
    with pytest.raises(ValueError, match="tiny, estimator broken, images from 12 on: mu has 12 em"):
        embed_pairs([Halves(), Broken()], tiny_pairs, batch_size=12)


def test_nothing_to_embed_and_no_batch(tiny_pairs):
    with pytest.raises(ValueError, match="some: no images"):
        embed_images(Halves(), Pictures(tiny_pairs, 0), name="some")
    with pytest.raises(ValueError, match=r"batch_size = 0: must be at least 1"):
        embed_pairs([Halves()], tiny_pairs, batch_size=0)
    tiny_pairs.mated = tiny_pairs.mated[:0]
    with pytest.raises(ValueError, match="tiny: no pairs"):
        embed_pairs([Halves()], tiny_pairs)


def test_one_bar_for_all_ranks_and_on_request_only(tiny_pairs, capsys):
    embed_pairs([Halves()], tiny_pairs, progress=False)
    assert capsys.readouterr().err == ""
    on_each_of(2, lambda world: embed_pairs([Halves()], tiny_pairs, 5, progress=True, world=world))
    assert capsys.readouterr().err.count("0/14") == 1
