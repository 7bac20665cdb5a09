"""A small source of faces, a tiny backbone, heads on it, and the command as a person runs it."""

import pytest

from data.images import encode_jpeg
from data.synthetic import SyntheticFaces
from extraction import extract
from tests.helpers import TINY_NAME, write_people
from utils.config import Method

HEADS = {"idq": ("probability", 1), "mls": ("variance", 16)}


@pytest.fixture(scope="session")
def backbone(tiny_weights):
    return ["--backbone_name", TINY_NAME, "--backbone_weights", str(tiny_weights)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory, tiny_weights, write_run):
    """loss -> run folder of an untrained head."""
    parent = tmp_path_factory.mktemp("runs")
    for number, (loss, (output, dim)) in enumerate(HEADS.items()):
        head = Method("fc2", output=output, hidden=4, dim=dim)
        fields = {"head": head, "loss": Method(loss)}
        write_run(parent / loss, weights=tiny_weights, seed=number, **fields)
    return {loss: parent / loss for loss in HEADS}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 26 faces of 13 people."""
    folder = tmp_path_factory.mktemp("source") / "faces"
    write_people(folder, SyntheticFaces(13, 2, seed=5), encode_jpeg, "jpg")
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
