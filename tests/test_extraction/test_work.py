"""The work inside: batches that respect shards, memory that does not grow, results fetched late."""

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.extracted import ShardFolder
from data.images import Sizes
from estimators.base import Batch, Estimate, EstimatorGroup
from estimators.embedding_norm import EmbeddingNorm
from estimators.trained_head import TrainedHead
from evaluation.embed import estimate_batch
from extraction.job import DeviceQueue, Extraction, ExtractOptions, ShardBatches
from models.backbones.mobilefacenet import MobileFaceNet
from models.frozen import FrozenBackbone
from models.heads.fc2 import FC2Head


def folder(tmp_path, total, shard_images):
    return ShardFolder(tmp_path, "npy", total, shard_images, ("one",), "made so")


@pytest.mark.parametrize("todo", [[0, 1, 2, 3], [1, 3], [3], [0, 2], []])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10, 100])
def test_batches_cover_the_shards_in_order(todo, batch_size, tmp_path):
    shards = folder(tmp_path, 33, 10)
    sampler = ShardBatches(shards, todo, batch_size)
    batches = [sampler.rows(step).tolist() for step in range(sampler.num_steps)]
    assert sum(batches, []) == [row for number in todo for row in range(*shards.bounds(number))]
    assert all(len({row // 10 for row in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= batch_size for batch in batches)


class Many:
    """Faces without pixels; labels are all that grows with their number."""

    def __init__(self, count):
        self.labels = np.zeros(count, np.int64)
        self.sizes = Sizes()

    def __len__(self):
        return len(self.labels)

    def name(self, row):
        return f"face {row}"

    def read_into(self, row, out):
        if row % 5000 == 7:
            raise ValueError(f"face {row}: broken")

    def read_ahead(self, rows):
        pass


class Row:
    """A method that gives row numbers."""

    def __call__(self, batch):
        numbers = np.array(batch.rows, np.float32) + 1
        return Estimate(np.stack([numbers, numbers], axis=1), numbers[:, None])


def peak_of(tmp_path, count, monkeypatch):
    """Most memory that Python and NumPy held while extracting, bytes."""
    monkeypatch.setattr("data.loader.SIZE", 1)  # pixels would take all the time
    monkeypatch.setattr(
        DeviceQueue,
        "__init__",
        lambda self, one, flip: self.__dict__.update(estimator=one, flip=flip, queues=False),
    )
    faces = Many(count)
    tmp_path.mkdir()
    shards = folder(tmp_path, count, 4096)
    how = {"dtype": "float32", "batch_size": 1024, "workers": 1, "max_bad_share": 0.5}
    options = ExtractOptions(images=[], out=tmp_path, **how)
    job = Extraction(options, faces, faces.name, Row(), shards, 2, torch.device("cpu"))
    gc.collect()
    tracemalloc.start()
    assert job.run(range(len(shards)), lambda _: None, SimpleNamespace(is_requested=False))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, shards


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    small, _ = peak_of(tmp_path / "small", 3 * 4096, monkeypatch)
    large, shards = peak_of(tmp_path / "large", 60 * 4096, monkeypatch)
    assert large - small < 2 * 57 * 4096  # below 2 bytes an image; one pointer each would be 8
    assert shards.count_done() == 60
    assert shards.join_bad() == -(-(60 * 4096 - 7) // 5000)


def test_results_fetched_late_are_those_of_several():
    torch.manual_seed(0)
    frozen = FrozenBackbone(MobileFaceNet())
    sizes = {"features_shape": frozen.features_shape}
    heads = [
        FC2Head(output="probability", hidden=4, **sizes),
        FC2Head(output="variance", hidden=4, dim=5, **sizes),
    ]
    members = {
        str(place): TrainedHead(frozen=frozen, head=head) for place, head in enumerate(heads)
    }
    several = EstimatorGroup({"norm": EmbeddingNorm(frozen=frozen), **members})
    faces = torch.randint(0, 256, (2, 3, 112, 112, 3), dtype=torch.uint8)
    for flip in (False, True):
        queue = DeviceQueue(several, flip=flip)
        assert queue.queues
        late = [queue.submit(batch, range(len(batch)), None) for batch in faces]
        for result, batch in zip(late, faces, strict=True):
            expected = estimate_batch(several, Batch(batch.numpy()), flip=flip)
            np.testing.assert_array_equal(result().mu, expected.mu)
            np.testing.assert_array_equal(result().sigma_sq, expected.sigma_sq)


@pytest.mark.gpu
def test_results_on_a_gpu_are_those_of_several_while_the_next_batch_runs():
    torch.manual_seed(0)
    frozen = FrozenBackbone(MobileFaceNet(), "cuda")
    head = FC2Head(output="probability", features_shape=frozen.features_shape, hidden=4).cuda()
    several = EstimatorGroup(
        {"head": TrainedHead(frozen=frozen, head=head), "norm": EmbeddingNorm(frozen=frozen)}
    )
    faces = torch.randint(0, 256, (8, 64, 112, 112, 3), dtype=torch.uint8).pin_memory()
    expected = [estimate_batch(several, Batch(batch.numpy()), flip=True) for batch in faces]
    queue = DeviceQueue(several, flip=True)
    # all queued before one is fetched
    late = [queue.submit(batch, range(len(batch)), None) for batch in faces]
    for result, one in zip(late, expected, strict=True):
        np.testing.assert_allclose(result().mu, one.mu, atol=1e-5)
        np.testing.assert_allclose(result().sigma_sq, one.sigma_sq, rtol=1e-4)
