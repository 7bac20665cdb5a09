"""A small source of faces, a tiny backbone, heads on it, and the command as a person runs it."""

import pytest
import torch

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from extraction import extract
from utils.config import Method
from utils.methods import build

TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8))
HEADS = {"idq": ("probability", 1), "mls": ("variance", 512)}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "backbone.pth"
    torch.save(build("models.backbones", TINY).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def backbone(weights):
    name = "iresnet:layers=(1,1,1,1),widths=(4,4,8,8)"
    return ["--backbone_name", name, "--backbone_weights", str(weights)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory, weights, write_run):
    """loss -> run folder of an untrained head."""
    parent = tmp_path_factory.mktemp("runs")
    for number, (loss, (output, dim)) in enumerate(HEADS.items()):
        head = Method("fc2", output=output, hidden=4, dim=dim)
        fields = {"head": head, "loss": Method(loss), "backbone": TINY}
        write_run(parent / loss, weights=weights, seed=number, **fields)
    return {loss: parent / loss for loss in HEADS}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 26 faces of 13 people."""
    folder = tmp_path_factory.mktemp("source") / "faces"
    faces = SyntheticFaces(13, 2, seed=5)
    for row in range(len(faces)):
        path = folder / f"person{faces.labels[row]:02d}" / f"{row:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(faces.read(row)))
    return folder


@pytest.fixture(scope="session")
def flags():
    return ["--shard_images", "8", "--batch_size", "4", "--workers", "2", "--device", "cpu"]


@pytest.fixture
def run(images, backbone, flags):
    """Return a function that extracts the faces, with flags in place of or after the usual ones."""

    def extracted(out, *changes, source=images, model=backbone):
        return extract.main(
            ["--images", str(source), "--out", str(out), *model, *flags, *map(str, changes)]
        )

    return extracted


@pytest.fixture(scope="session")
def content():
    """Return a function that gives every file below a folder by name, without about.json."""

    def read(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "about.json"
        }

    return read
