"""Batches in order, bad images, and threads that end."""

import threading
import time

import numpy as np
import pytest
import torch

from data.loader import BatchLoader


class FakeFaces:
    """Images whose pixels are their row; every row in `bad` is unreadable."""

    def __init__(self, count, bad=(), slow=False):
        self.labels = np.arange(count) // 2
        self.num_classes = count // 2
        self.bad, self.slow = set(bad), slow
        self.announced = []

    def __len__(self):
        return len(self.labels)

    def name(self, row):
        return f"face {row}"

    def read_into(self, row, out):
        if self.slow:
            time.sleep(0.002 * (row % 5))
        out[:50] = 99  # a damaged file leaves part of an image behind
        if row in self.bad:
            raise ValueError(f"face {row}: damaged")
        out[:] = row % 256

    def read_ahead(self, rows):
        self.announced.append(rows.tolist())


class Consecutive:
    """Rows step*size, step*size + 1, ..., around the end."""

    def __init__(self, size, count):
        self.size, self.count = size, count

    def rows(self, step):
        return (np.arange(self.size) + step * self.size) % self.count


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def loader(faces, steps, *, size=10, workers=3, share=1.0, on_bad=lambda line: None, **options):
    sampler = Consecutive(size, len(faces))
    return BatchLoader(faces, sampler, steps, workers, share, on_bad, **options)


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_batches_come_in_order_and_whole(workers):
    faces = FakeFaces(200, slow=True)
    batches = list(loader(faces, range(5, 15), workers=workers))
    assert [batch.steps for batch in batches] == [range(step, step + 1) for step in range(5, 15)]
    for batch in batches:
        expected = Consecutive(10, 200).rows(batch.steps.start)
        assert batch.rows.tolist() == expected.tolist()
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (10, 112, 112, 3)
        assert (batch.images.numpy() == expected[:, None, None, None]).all()
        assert not batch.missing.any()
        assert batch.labels.tolist() == (expected // 2).tolist()
    assert not threads()


def test_a_bad_image_is_reported_once_and_gives_its_place_to_one_of_its_identity():
    said = []
    faces = FakeFaces(20, bad=[3, 17])
    batches = list(loader(faces, range(6), on_bad=said.append))
    assert said == ["face 3: damaged", "face 17: damaged"]
    assert batches[0].rows.tolist() == [0, 1, 2, 2, 4, 5, 6, 7, 8, 9]
    assert batches[0].images[:, 0, 0, 0].tolist() == batches[0].rows.tolist()
    assert batches[0].labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.flatnonzero(batches[0].missing).tolist() == [3]
    assert batches[5].rows.tolist() == [10, 11, 12, 13, 14, 15, 16, 16, 18, 19]
    assert (batches[5].images == batches[5].images[:, :1, :1, :1]).all()


def test_without_a_good_image_of_the_identity_any_other_of_the_step_stands_in():
    batch = next(iter(loader(FakeFaces(20, bad=[4, 5, 6]), range(1))))
    assert np.flatnonzero(batch.missing).tolist() == [4, 5, 6]
    assert not {4, 5, 6} & set(batch.rows.tolist())
    assert batch.rows[6] == 7
    assert batch.labels.tolist() == (batch.rows // 2).tolist()
    assert batch.images[:, 111, 0, 0].tolist() == batch.rows.tolist()


@pytest.mark.parametrize("per_batch", [2, 3, 7])
def test_steps_together_are_the_steps_one_by_one(per_batch):
    faces = FakeFaces(70, bad=[1, 8, 9, 33])
    single = list(loader(faces, range(3, 10)))
    several = list(loader(faces, range(3, 10), workers=4, steps_per_batch=per_batch))
    assert [step for batch in several for step in batch.steps] == list(range(3, 10))
    assert [len(batch.steps) for batch in several[:-1]] == [per_batch] * (len(several) - 1)
    assert len(several) == len(loader(faces, range(3, 10), steps_per_batch=per_batch))
    for name in ("rows", "labels", "missing", "images"):
        one_by_one = np.concatenate([np.asarray(getattr(batch, name)) for batch in single])
        together = np.concatenate([np.asarray(getattr(batch, name)) for batch in several])
        assert np.array_equal(one_by_one, together), name


def test_bad_images_left_in_place_are_zeros():
    said = []
    faces = FakeFaces(30, bad=[3, *range(10, 20)])
    batches = list(loader(faces, range(3), on_bad=said.append, replace_bad=False))
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tolist() == list(range(30))
    assert np.concatenate([batch.labels for batch in batches]).tolist() == (rows // 2).tolist()
    missing = np.concatenate([batch.missing for batch in batches])
    assert np.flatnonzero(missing).tolist() == [3, *range(10, 20)]
    images = np.concatenate([batch.images for batch in batches])
    assert (images == np.where(missing, 0, rows)[:, None, None, None]).all()
    assert len(said) == 11


def test_too_many_bad_images_stop_the_run_after_1000():
    faces = FakeFaces(100, bad=[0, 1, 2])
    seen = []
    with pytest.raises(ValueError, match="30 of 1000 images read are bad, more than max_bad_share"):
        seen.extend(batch.steps.start for batch in loader(faces, range(500), share=0.02))
    assert len(seen) == 99
    assert not threads()


def test_batch_without_a_readable_image():
    with pytest.raises(ValueError, match="step 1: no image of the batch could be read"):
        list(loader(FakeFaces(40, bad=range(10, 20)), range(4)))
    assert not threads()


def test_leaving_early_drops_the_work_ahead():
    read = []

    class Counted(FakeFaces):
        def read_into(self, row, out):
            read.append(row)
            time.sleep(0.005)
            super().read_into(row, out)

    batches = iter(loader(Counted(200), range(20), workers=1))
    next(batches)
    batches.close()
    assert len(read) <= 30


def test_an_error_in_the_loop_ends_the_threads():
    def stop_at(step):
        for batch in loader(FakeFaces(200), range(1000)):
            if batch.steps.start == step:
                raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        stop_at(7)
    assert not threads()


def test_work_ahead_is_limited():
    """Beyond the batch in use, 4 are decoded and 2000 images announced, in order and once."""
    started = []

    class Watched(Consecutive):
        def rows(self, step):
            started.append(step)
            return super().rows(step)

    faces = FakeFaces(800)
    batches = iter(BatchLoader(faces, Watched(200, 800), range(50), 1, 1.0, lambda line: None))
    next(batches)
    assert started == list(range(15))
    batches.close()
    expected = [Consecutive(200, 800).rows(n).tolist() for n in range(len(faces.announced))]
    assert faces.announced == expected
    assert 1 <= len(faces.announced) <= 15


@pytest.mark.parametrize("method", ["read_into", "read_ahead"])
def test_an_unexpected_error_in_a_thread_is_raised(method, monkeypatch):
    def fail(self, *_):
        raise KeyError(method)

    monkeypatch.setattr(FakeFaces, method, fail)
    with pytest.raises(KeyError):
        list(loader(FakeFaces(20), range(3)))
    assert not threads()


def test_a_short_run_is_judged_at_its_end_and_each_reading_counts():
    assert len(list(loader(FakeFaces(100, bad=[0]), range(200), share=0.011))) == 200
    batches = iter(loader(FakeFaces(40, bad=[0]), range(8), share=0.02))
    assert [next(batches).steps.start for _ in range(8)] == list(range(8))
    with pytest.raises(ValueError, match="2 of 80 images read are bad"):
        next(batches)


@pytest.mark.gpu
def test_pinned_batches_reach_the_device_whole():
    """Memory of a batch must not be taken again before its copy has ended."""
    faces = FakeFaces(256)
    copies, expected = [], []
    for batch in loader(faces, range(60), size=64, pin=True):
        assert batch.images.is_pinned()
        copies.append(batch.images.to("cuda", non_blocking=True))
        expected.append(batch.rows % 256)
        del batch
    for copy, rows in zip(copies, expected, strict=True):
        assert (copy.cpu().numpy() == rows[:, None, None, None]).all()
