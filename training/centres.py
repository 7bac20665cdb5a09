"""The centre of each identity, for losses that compare an image with it.

Either the mean of its training images' normalised embeddings, or its row of a classifier that the
backbone was trained with, such as PartialFC's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from data.faces import Faces, class_index
from data.loader import BatchLoader, Sampler
from losses.base import Centres
from models.frozen import FrozenBackbone
from models.load import load_tensors
from utils.device import to_device
from utils.distributed import World
from utils.files import write_bytes
from utils.run import LOGGER

FILE_NAME = "centres.safetensors"  # in the run folder
MOST_IMAGES = 16  # of an identity, that its centre is the mean of
_SHORTEST = 1e-4  # length of a sum that is more than rounding
FOLDS = 4  # an image is compared with the mean of those that are not in its own


class ClassCentres:
    """Centres on a device, unit vectors by label.

    `sums` (K, C, D) are of the embeddings in each fold; `fold_of` (N,) says in which each image is,
    -1 for none: its own centre is made of the other folds, so that it never meets itself.
    """

    def __init__(self, sums: Tensor, fold_of: NDArray[np.int8], device: torch.device) -> None:
        self.sums, self._fold_of, self._device = sums, fold_of, device
        self._total = sums.sum(0)
        self._every = F.normalize(self._total).to(device)

    def __call__(self, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Centres:
        """Return the centres for images (B,) of these rows and labels."""
        fold, label = torch.from_numpy(self._fold_of[rows]).long(), torch.from_numpy(labels)
        rest = self._total[label] - self.sums[fold, label] * (fold >= 0)[:, None]
        alone = rest.norm(dim=1, keepdim=True) < _SHORTEST  # where no other image could be read
        own = F.normalize(torch.where(alone, self._total[label], rest))
        return Centres(to_device(own.numpy(), self._device), self._every)


def classifier_centres(
    files: tuple[str, ...], faces: Faces, frozen: FrozenBackbone
) -> ClassCentres:
    """Read a classifier's weights (C, D), in the order of labels, from a file or several in a row.

    Raises:
        ValueError: no such tensor, or of other sizes than C identities and D numbers.
    """
    parts = []
    for file in files:
        tensors = load_tensors(file, ("state_dict_softmax_fc", "weight", "state_dict"))
        fitting = {
            name: tensor
            for name, tensor in tensors.items()
            if tensor.ndim == 2 and tensor.shape[1] == frozen.embedding_size
        }
        if len(fitting) != 1:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
            raise ValueError(
                f"centres = {file!r}: which tensor has the centres, (C, {frozen.embedding_size})? "
                f"It holds {shapes}"
            )
        parts += [tensor.float() for tensor in fitting.values()]
    weight = torch.cat(parts)
    if len(weight) != faces.num_classes:
        raise ValueError(
            f"centres = {', '.join(files)!r}: {len(weight)} rows, and the training images are of "
            f"{faces.num_classes} identities: a classifier goes with the faces it was trained on; "
            "leave centres out to take the means of the images"
        )
    nobody = np.full(len(faces), -1, np.int8)
    return ClassCentres(F.normalize(weight)[None], nobody, frozen.device)


def mean_centres(
    faces: Faces,
    frozen: FrozenBackbone,
    loader: Callable[[Sampler, range], BatchLoader],
    batch_size: int,
    file: Path,
    world: World,
) -> ClassCentres:
    """Return the means of up to `MOST_IMAGES` images of each identity, as they are.

    The first process keeps them in a file, and takes them from it where a run is resumed.
    """
    rows = _spread(faces.labels)
    fold_of = np.full(len(faces), -1, np.int8)
    fold_of[rows] = np.arange(len(rows)) % FOLDS
    about = torch.tensor([len(rows), zlib.crc32(faces.labels.tobytes())])
    sums = torch.zeros(FOLDS, faces.num_classes, frozen.embedding_size)
    stored = load_tensors(file) if world.is_main and file.is_file() else {}
    is_stored = torch.equal(stored.get("about", about[:0]), about)
    if world.gather(is_stored)[0]:
        sums = stored.get("sums", sums)
    else:
        LOGGER.info("centres: means of %d images of %d identities", len(rows), faces.num_classes)
        chunks = _Chunks(rows, batch_size)
        for batch in loader(chunks, range(world.rank, -(-len(rows) // batch_size), world.size)):
            good = ~batch.missing
            mu = F.normalize(frozen(batch.images).embedding).cpu()[torch.from_numpy(good)]
            places = fold_of[batch.rows[good]].astype(np.int64), batch.labels[good]
            sums.index_put_(tuple(map(torch.from_numpy, places)), mu, accumulate=True)
    world.sum_(sums)
    if world.is_main and not is_stored:
        write_bytes(file, save({"sums": sums, "about": about}))
    return ClassCentres(sums, fold_of, frozen.device)


class _Chunks(NamedTuple):
    chosen: NDArray[np.int64]
    size: int

    def rows(self, step: int) -> NDArray[np.int64]:
        return self.chosen[step * self.size : (step + 1) * self.size]


def _spread(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return rows of up to `MOST_IMAGES` images of each identity, from all of its range."""
    rows, starts = class_index(labels)
    counts = np.diff(starts)
    taken = np.minimum(counts, MOST_IMAGES)
    number = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    counts, taken, firsts = (np.repeat(each, taken) for each in (counts, taken, starts[:-1]))
    places = firsts + number * counts // taken
    return places if isinstance(rows, range) else rows[places].astype(np.int64)
