"""Whom a head learns from, besides the loss's own target: a finished run, or scores in a file.

A branch of the same run as teacher needs nothing from here but `logit_of`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from data.augment import BatchAugment
from data.faces import Faces
from estimators.from_file import FromFile
from models.backbones.base import BackboneOutput
from models.frozen import FrozenBackbone
from models.heads.base import to_scalar, to_sigma_sq
from models.load import load_checkpoint
from models.run import check_backbone, load_run, trained_head
from utils.config import TrainConfig, from_json
from utils.device import to_device


class Teacher(Protocol):
    """Says how uncertain each image of a step is."""

    def __call__(self, step: int, rows: NDArray[np.int64], output: BackboneOutput) -> Tensor:
        """Return (B,) logits of the uncertainty on the device, NaN where it cannot say.

        The output is the backbone's for the images of these rows (B,), as the step augments them.
        """


def logit_of(raw: Tensor, output: str) -> Tensor:
    """Return (B,) logits of the uncertainty that a head's raw output (B, d) stands for.

    A variance v, summed over dimensions, reads as the odds v : 1: embeddings have length one.
    """
    if output == "probability" and raw.shape[1] == 1:
        return raw.detach()[:, 0]
    scalar = to_scalar(to_sigma_sq(raw.detach(), output))
    if output == "probability":
        return scalar.logit()
    return (scalar * raw.shape[1]).log()


class RunTeacher:
    """The head of a finished run on the same backbone; it does not learn any more.

    Raises:
        ValueError: no run in the folder, or one of another backbone than the student's.
    """

    def __init__(self, folder: Path, config: TrainConfig, frozen: FrozenBackbone) -> None:
        saved = folder / "best.pt"
        if not saved.is_file():
            load_run(folder)  # says what is wrong with it
        checkpoint = load_checkpoint(saved)
        other = from_json(checkpoint["config"]).backbone
        if other != config.backbone:
            raise ValueError(
                f"teacher = {str(folder)!r}: its head reads {other!r}, and this run has "
                f"{config.backbone!r}"
            )
        check_backbone(checkpoint, frozen, config.backbone_weights)
        self.head = trained_head(checkpoint, frozen, saved).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, step: int, rows: NDArray[np.int64], output: BackboneOutput) -> Tensor:
        """Return what the head says of the augmented images."""
        return logit_of(self.head(output), self.head.output)


class FileTeacher:
    """Scores of another tool for the training images, by their rank.

    The best of N images has the probability 1/(2N) of being unreliable, the worst 1 - 1/(2N). A
    score holds for the image as it was, or mirrored: changed in any other way it has no opinion.

    For the file see `estimators.from_file`; names are those of the training images.

    Raises:
        ValueError: not such a file, or images without a score.
    """

    def __init__(
        self, path: Path, faces: Faces, augment: BatchAugment, device: torch.device
    ) -> None:
        file = FromFile(path=str(path))
        uncertainty = file.uncertainty_of(_names(faces, file))
        share = (rankdata(uncertainty) - 0.5) / len(uncertainty)
        self._logits = np.log(share / (1 - share)).astype(np.float32)
        self._augment, self._device = augment, device

    def __call__(self, step: int, rows: NDArray[np.int64], output: BackboneOutput) -> Tensor:
        """Return the stored score of each image that is as it was, or mirrored."""
        unchanged = self._augment.parameters(step, rows).unchanged
        return to_device(np.where(unchanged, self._logits[rows], np.float32(np.nan)), self._device)


def open_teachers(
    config: TrainConfig, frozen: FrozenBackbone, faces: Faces, augment: BatchAugment
) -> dict[str, Teacher]:
    """Open every teacher that is no branch of the run, by what the config calls it.

    Raises:
        ValueError: a path where no run and no file is, or what its kind of teacher refuses.
    """
    teachers: dict[str, Teacher] = {}
    for branch in config.heads.values():
        text = branch.teacher
        if text is None or text in config.heads:
            continue
        path = Path(text)
        if path.is_dir():
            teachers[text] = RunTeacher(path, config, frozen)
        elif path.is_file():
            teachers[text] = FileTeacher(path, faces, augment, frozen.device)
        else:
            branches = ", ".join(filter(None, config.heads))
            others = f" and none of the branches {branches}" if branches else ""
            raise ValueError(f"teacher = {text!r}: no run folder, no file of scores{others}")
    return teachers


def _names(faces: Faces, file: FromFile) -> list[str]:
    """Return what the file calls each face: its full name, or what follows the folder or pack."""
    full = [faces.name(row) for row in range(len(faces))]
    if full[0] in file.scores:
        return full
    keys = [name.rpartition(": key ")[2] for name in full]
    if keys[0] in file.scores or keys[0] != full[0]:
        return keys
    ends = ["/".join(Path(name).parts[-2:]) for name in full]
    return ends if ends[0] in file.scores else full
