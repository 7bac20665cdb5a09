"""What tests of several rooms share: places, a tiny network, faces in folders, processes."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.images import encode_png
from estimators.base import Estimate
from utils.config import Method

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"
TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16)
TINY_NAME = "iresnet:layers=(1,1,1,1),widths=(4,4,8,8),embedding_size=16"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def child_of_rank(parent, rank):
    """Return the process that torchrun started as this rank."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            father = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if father == parent and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError("no such process")


def python(*words, cwd=ROOT, **environment):
    """Run Python with these words in a process of its own that imports this checkout."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def write_people(folder, faces, encode=encode_png, suffix="png"):
    """Write faces in one folder for each identity; their paths."""
    paths = []
    for row in range(len(faces)):
        paths.append(folder / f"p{faces.labels[row]:02d}" / f"{row:02d}.{suffix}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(encode(faces.read(row)))
    return paths


@dataclass
class Levels:
    """An estimator of pixels: the embedding is the mean colour of 12 blocks, less 100.

    The uncertainty is the share of light, 0..1; it writes down how large its batches were.
    """

    name: str = "levels"
    sizes: list[int] = field(default_factory=list)

    def __call__(self, batch):
        images = batch.images
        self.sizes.append(len(images))
        blocks = images.reshape(len(images), 2, 56, 2, 56, 3).mean(axis=(2, 4))
        mu = (blocks.reshape(len(images), 12) - 100).astype(np.float32)
        light = images.mean(axis=(1, 2, 3))[:, None] / 255
        return Estimate(mu, light.astype(np.float32))
