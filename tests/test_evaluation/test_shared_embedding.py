"""Embedding of one set by several estimators, and by several ranks (threads play them here)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

import numpy as np
import pytest
import torch

from estimators.base import Estimate, build_estimator
from evaluation.embed import embed, embed_each, embed_images
from models.backbones.iresnet import IResNet
from models.frozen import FrozenBackbone
from utils.config import Method
from utils.distributed import World


@dataclass(frozen=True)
class Played(World):
    """A rank whose companions are other threads."""

    meeting: Barrier
    table: list = field(hash=False)

    def gather(self, value):
        self.table[self.rank] = value
        self.meeting.wait(timeout=60)
        found = list(self.table)
        self.meeting.wait(timeout=60)
        return found


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


class Means:
    """Embedding = means of both halves; uncertainty = the batch's first row and its length."""

    name = "means"

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        images, start = batch.images, batch.rows[0]
        self.batches.append((start, len(images)))
        halves = images.reshape(len(images), 112, 2, 56, 3).mean(axis=(1, 3, 4)) + 1
        told = np.tile(np.float32([start, len(images)]), (len(images), 1))
        return Estimate(halves.astype(np.float32), told)


class Pictures:
    """Images of an evaluation set; some cannot be read."""

    def __init__(self, pairs, bad=()):
        self.pairs, self.bad = pairs, bad

    def __len__(self):
        return 23

    def decode(self, start, stop):
        for row in self.bad:
            if start <= row < stop:
                raise ValueError(f"image {row} is damaged")
        return self.pairs.decode(start, stop)

    def image_name(self, row):
        return f"image {row}"


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_ranks_share_the_batches_and_all_get_the_result_of_one(size, tiny_pairs):
    expected = embed(Means(), tiny_pairs, batch_size=5, flip=True)
    estimators = [Means() for _ in range(size)]

    def work(world):
        return embed(estimators[world.rank], tiny_pairs, batch_size=5, flip=True, world=world)

    for found in on_each_of(size, work):
        np.testing.assert_array_equal(found.mu, expected.mu)
        np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq)
        np.testing.assert_array_equal(found.issame, expected.issame)
    everything = [(0, 5), (5, 5), (10, 5), (15, 5), (20, 4)]
    for rank, estimator in enumerate(estimators):
        assert estimator.batches[::2] == everything[rank::size]


@pytest.mark.parametrize("parts", [False, True])
def test_images_and_parts_are_shared_and_resumed_by_another_number(
    parts, tiny_pairs, tmp_path, monkeypatch
):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 8)
    options = {"batch_size": 4, "name": "some", "parts": tmp_path / "parts" if parts else None}
    expected = embed_images(Means(), Pictures(tiny_pairs), batch_size=4, name="some")
    for size in (2, 3):
        estimators = [Means() for _ in range(size)]

        def work(world, estimators=estimators):
            images = Pictures(tiny_pairs)
            return embed_images(estimators[world.rank], images, **options, world=world)

        for found in on_each_of(size, work):
            np.testing.assert_array_equal(found.mu, expected.mu)
            np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq)
        done = [estimator.batches for estimator in estimators]
        if parts and size == 2:
            assert done == [[(0, 4), (4, 4), (16, 4), (20, 3)], [(8, 4), (12, 4)]]
            (tmp_path / "parts" / "part-000000016.npz").unlink()
        elif parts:
            assert done == [[], [], [(16, 4), (20, 3)]]
        else:
            everything = [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 3)]
            assert done == [everything[rank::size] for rank in range(size)]


def test_an_error_on_one_rank_is_the_same_error_on_all(tiny_pairs):
    for bad in ((6,), (18, 9), (23 - 1,)):

        def work(world, bad=bad):
            images = Pictures(tiny_pairs, bad)
            return embed_images(Means(), images, batch_size=4, name="some", world=world)

        assert on_each_of(3, work) == [f"image {min(bad)} is damaged"] * 3


def test_unsound_estimates_are_named_as_by_one_process(tiny_pairs, monkeypatch):
    monkeypatch.setattr("evaluation.embed.PART_IMAGES", 8)

    class Broken(Means):
        def __call__(self, batch):
            found = super().__call__(batch)
            return Estimate(found.mu * (batch.rows[0] < 12), found.sigma_sq)

    def work(world):
        return embed_images(
            Broken(), Pictures(tiny_pairs), batch_size=4, name="some", progress=False, world=world
        )

    (alone,) = on_each_of(1, work)
    assert alone.startswith("some, estimator means, images from 8 on: mu has 4 emb")
    assert on_each_of(2, work) == [alone, alone]


def test_one_bar_for_all_ranks(tiny_pairs, capsys):
    on_each_of(2, lambda world: embed(Means(), tiny_pairs, 5, progress=True, world=world))
    assert capsys.readouterr().err.count("0/14") == 1


class Counted(FrozenBackbone):
    passes = 0

    def forward(self, images):
        self.passes += 1
        return super().forward(images)


@pytest.mark.parametrize("flip", [False, True])
def test_several_estimators_share_a_forward_pass_bit_by_bit(flip, tiny_pairs):
    torch.manual_seed(0)
    backbone = IResNet(layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)
    frozen = Counted(backbone, "cpu")
    methods = ["embedding_norm", "flip_disagreement", "brightness"]
    estimators = [build_estimator(Method(name), frozen=frozen) for name in methods]
    expected = [embed(one, tiny_pairs, batch_size=10, flip=flip) for one in estimators]
    frozen.passes = 0
    found = embed_each(estimators, tiny_pairs, batch_size=10, flip=flip)
    assert frozen.passes == 2 * 3  # the images and their mirror images, in three batches
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.mu, other.mu)
        np.testing.assert_array_equal(one.sigma_sq, other.sigma_sq)


def test_an_error_of_one_of_several_estimators_names_it(tiny_pairs):
    class Broken(Means):
        name = "broken"

        def __call__(self, batch):
            found = super().__call__(batch)
            return Estimate(found.mu, found.sigma_sq * np.nan)

    with pytest.raises(ValueError, match="tiny, estimator broken: sigma_sq has 48 of 48 values"):
        embed_each([Means(), Broken()], tiny_pairs)
