"""Batches in order, bad images, and threads that end."""

import threading
import time

import numpy as np
import pytest

from data.loader import BatchLoader


class FakeFaces:
    """Images whose pixels are their row; every row in `bad` is unreadable."""

    def __init__(self, count, bad=(), slow=False):
        self.labels = np.arange(count) // 2
        self.num_classes = count // 2
        self.bad, self.slow = set(bad), slow

    def __len__(self):
        return len(self.labels)

    def name(self, row):
        return f"face {row}"

    def read(self, row):
        if self.slow:
            time.sleep(0.002 * (row % 5))
        if row in self.bad:
            raise ValueError(f"face {row}: damaged")
        return np.full((112, 112, 3), row % 256, dtype=np.uint8)


class Consecutive:
    """Rows step*size, step*size + 1, ..., around the end."""

    def __init__(self, size, count):
        self.size, self.count = size, count

    def rows(self, step):
        return (np.arange(self.size) + step * self.size) % self.count


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def loader(faces, steps, *, size=10, workers=3, share=1.0, on_bad=lambda line: None):
    return BatchLoader(faces, Consecutive(size, len(faces)), steps, workers, share, on_bad)


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_batches_come_in_order_and_whole(workers):
    faces = FakeFaces(200, slow=True)
    batches = list(loader(faces, range(5, 15), workers=workers))
    assert [batch.step for batch in batches] == list(range(5, 15))
    for batch in batches:
        expected = Consecutive(10, 200).rows(batch.step)
        assert batch.rows.tolist() == expected.tolist()
        assert batch.images.dtype == np.uint8
        assert batch.images.shape == (10, 112, 112, 3)
        assert (batch.images == expected[:, None, None, None].astype(np.uint8)).all()
        assert batch.labels.tolist() == (expected // 2).tolist()
    assert not threads()


def test_bad_images_are_left_out_and_reported_once():
    said = []
    faces = FakeFaces(20, bad=[3, 4, 17])
    batches = list(loader(faces, range(6), on_bad=said.append))
    assert said == ["face 3: damaged", "face 4: damaged", "face 17: damaged"]
    assert batches[0].rows.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert batches[2].images[:, 0, 0, 0].tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert batches[5].labels.tolist() == [5, 5, 6, 6, 7, 7, 8, 9, 9]


def test_too_many_bad_images_stop_the_run_after_1000():
    faces = FakeFaces(100, bad=[0, 1, 2])
    seen = []
    with pytest.raises(
        ValueError,
        match="30 of 1000 images read are bad, more than max_bad_share = 0.02",
    ):
        seen.extend(batch.step for batch in loader(faces, range(500), share=0.02))
    assert len(seen) == 99
    assert not threads()


def test_too_many_bad_images_in_a_short_run_are_told_at_its_end():
    faces = FakeFaces(100, bad=[0])
    batches = iter(loader(faces, range(10), share=0.005))
    assert [next(batches).step for _ in range(10)] == list(range(10))
    with pytest.raises(ValueError, match="1 of 100 images read are bad"):
        next(batches)


def test_a_tolerated_share_passes():
    assert len(list(loader(FakeFaces(100, bad=[0]), range(200), share=0.011))) == 200


def test_repeated_bad_image_counts_each_time_it_is_read():
    class Twice:
        def rows(self, step):
            return np.array([0, 1, 0, 2])

    with pytest.raises(ValueError, match="2 of 4 images"):
        list(BatchLoader(FakeFaces(4, bad=[0]), Twice(), range(1), 2, 0.4, lambda line: None))


def test_batch_without_a_readable_image():
    with pytest.raises(ValueError, match="step 1: no image of the batch could be read"):
        list(loader(FakeFaces(40, bad=range(10, 20)), range(4)))
    assert not threads()


def test_leaving_early_ends_the_threads():
    batches = iter(loader(FakeFaces(200, slow=True), range(1000)))
    next(batches)
    assert threads()
    batches.close()
    assert not threads()


def test_leaving_early_drops_the_work_ahead():
    read = []

    class Counted(FakeFaces):
        def read(self, row):
            read.append(row)
            time.sleep(0.005)
            return super().read(row)

    batches = iter(loader(Counted(200), range(20), workers=1))
    next(batches)
    batches.close()
    assert len(read) <= 30


def test_an_error_in_the_loop_ends_the_threads():
    def stop_at(step):
        for batch in loader(FakeFaces(200), range(1000)):
            if batch.step == step:
                raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        stop_at(7)
    assert not threads()


def test_an_unexpected_error_in_a_thread_is_not_swallowed():
    class Broken(FakeFaces):
        def read(self, row):
            raise KeyError(row)

    with pytest.raises(KeyError):
        list(loader(Broken(20), range(3)))
    assert not threads()


def test_work_ahead_is_limited():
    started = []

    class Watched(Consecutive):
        def rows(self, step):
            started.append(step)
            return super().rows(step)

    faces = FakeFaces(100)
    batches = iter(BatchLoader(faces, Watched(10, 100), range(50), 2, 1.0, lambda line: None))
    next(batches)
    assert started == [0, 1, 2, 3, 4]
    batches.close()


def test_length():
    assert len(loader(FakeFaces(10), range(3, 9))) == 6
