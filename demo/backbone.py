"""The small backbone of the demo: its recipe, and its training on rendered faces.

The loss is CosFace's margin softmax (Wang et al., arXiv 1801.09414) and, since the renderer knows
what it drew, the error of a linear read-out of each person's shape and colours: with it a few
thousand images are enough.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from data.synthetic import HAIR_STYLES, Identity, SyntheticFaces
from models.backbones.base import Backbone
from utils.config import Method
from utils.files import write_bytes
from utils.methods import build

BACKBONE = Method(
    "iresnet", layers=(1, 1, 1, 1), widths=(8, 16, 32, 64), embedding_size=64
)  # as in config/config_demo.py


@dataclass(frozen=True)
class Recipe:
    """What the shipped file was made with."""

    identities: int = 600  # rendered people to tell apart
    images: int = 10  # of each
    severity: float = 0.5  # of their degradations: mild, so that strong ones stay hard
    epochs: int = 4  # passes over all images
    batch_size: int = 32  # images per step
    lr: float = 5e-3  # highest learning rate of the one-cycle schedule
    weight_decay: float = 0.02  # of Adam, decoupled
    scale: float = 16.0  # of the softmax
    margin: float = 0.15  # taken off the cosine of the right class
    read_out: float = 10.0  # weight of the read-out's error
    seed: int = 1000  # of the population, the initial weights and the order of images


RECIPE = Recipe()


def rendered(recipe: Recipe, workers: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render all images in several processes.

    Returns:
        images (N, 112, 112, 3) uint8 RGB and labels (N,).
    """
    people = range(recipe.identities)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = pool.map(_render_person, [recipe] * len(people), people, chunksize=10)
        images = list(tqdm(tasks, "rendering", len(people), unit="identity", disable=None))
    return np.concatenate(images), np.repeat(np.arange(len(people)), recipe.images)


def _render_person(recipe: Recipe, person: int) -> NDArray[np.uint8]:
    import cv2

    cv2.setNumThreads(1)
    faces = SyntheticFaces(recipe.identities, recipe.images, recipe.seed, recipe.severity)
    start = person * recipe.images
    return np.stack([faces.read(row) for row in range(start, start + recipe.images)])


class MarginSoftmax(nn.Module):
    """Cross-entropy over scaled cosines to class centres, the right one handicapped by a margin."""

    def __init__(self, classes: int, embedding_size: int, scale: float, margin: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(0.1 * torch.randn(classes, embedding_size))
        self.scale, self.margin = scale, margin

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of embeddings (B, D) with labels (B,)."""
        cosines = F.normalize(embedding) @ F.normalize(self.centres).T
        handicap = self.margin * F.one_hot(labels, len(self.centres))
        return F.cross_entropy(self.scale * (cosines - handicap), labels)


def appearance(identity: Identity) -> list[float]:
    """Return what every picture of a person shows, mirrored or not, as about 60 numbers near 1."""
    numbers = [channel / 128 - 1 for color in _COLORS for channel in getattr(identity, color)]
    for item in dataclasses.fields(Identity):
        value = getattr(identity, item.name)
        if item.name in _CHOICES:
            numbers += [2.0 * (value == choice) for choice in range(_CHOICES[item.name])]
        elif item.name not in _HIDDEN and "low" in item.metadata:
            low, high = item.metadata["low"], item.metadata["high"]
            numbers.append((2 * value - low - high) / (high - low) * 3**0.5)
    return numbers


_COLORS = ("skin", "hair", "iris", "lips")
_CHOICES = {"hair_style": len(HAIR_STYLES), "beard": 5, "glasses": 2}
_HIDDEN = {  # in some pictures, or the other way round in a mirror
    *("asymmetry", "mole_x", "mole_y", "mark_size", "lines"),
    *("frame_size", "frame_height", "frame_round", "frame_tone"),
    *("skin_tone", "skin_warmth", "hair_tone", "hair_grey", "iris_tone", "lip_red"),
}


class Objective(nn.Module):
    """Margin softmax plus the squared error of the read-out."""

    def __init__(self, recipe: Recipe, embedding_size: int) -> None:
        super().__init__()
        people = [Identity.draw(recipe.seed, index) for index in range(recipe.identities)]
        self.appearance = torch.tensor([appearance(person) for person in people])
        self.softmax = MarginSoftmax(len(people), embedding_size, recipe.scale, recipe.margin)
        self.read_out = nn.Linear(embedding_size, self.appearance.shape[1])
        self.weight = recipe.read_out

    def forward(self, embedding: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of embeddings (B, D) with labels (B,)."""
        error = F.mse_loss(self.read_out(embedding), self.appearance[labels])
        return self.softmax(embedding, labels) + self.weight * error


def train(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    recipe: Recipe,
    report: Callable[[str], object] = lambda line: None,
) -> Backbone:
    """Train a backbone from scratch; one line per epoch goes to `report`."""
    torch.manual_seed(recipe.seed)
    backbone: Backbone = build("models.backbones", BACKBONE)
    objective = Objective(recipe, backbone.embedding_size)
    steps = len(images) // recipe.batch_size
    parameters = [*backbone.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=recipe.epochs * steps, pct_start=0.15
    )
    order = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        rows = order.permutation(len(images))[: steps * recipe.batch_size]
        batches = rows.reshape(steps, recipe.batch_size)
        total = 0.0
        for batch in tqdm(batches, f"epoch {epoch + 1}/{recipe.epochs}", unit="step", disable=None):
            pixels = _flipped(torch.from_numpy(images[batch]), order.random(len(batch)) < 0.5)
            # contiguous: torch 2.13's backward pass in channels_last crashes with this few channels
            embedding = backbone(backbone.preprocessing(pixels).contiguous()).embedding
            loss = objective(embedding, torch.from_numpy(labels[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        report(f"epoch {epoch + 1}: loss {total / steps:.3f}")
    return backbone.eval()


def _flipped(images: Tensor, which: NDArray[np.bool_]) -> Tensor:
    """Mirror some images (B, 112, 112, 3) from left to right."""
    return torch.where(torch.from_numpy(which)[:, None, None, None], images.flip(2), images)


def save(backbone: nn.Module, path: Path) -> None:
    """Write the tensors as float16, half the size; loading them into a network widens them."""
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in backbone.state_dict().items()
    }
    buffer = io.BytesIO()  # torch.save writes a file's own name into it, but a buffer has none
    torch.save(halved, buffer)
    write_bytes(path, buffer.getvalue())
