"""benchmarks/score_faces.py: what it stores, and that it does not compute anything twice."""

import numpy as np
import pytest
import torch

from benchmarks import score_faces
from data.faces import open_faces
from models.frozen import FrozenBackbone
from models.load import load_backbone
from tests.helpers import TINY, TINY_NAME

SET = "synthetic:identities=3,images=3,seed=1"


@pytest.fixture
def call(tmp_path, tiny_weights):
    argv = ["--backbone", TINY_NAME, "--weights", str(tiny_weights), "--batch_size", "4"]
    argv += ["--out", str(tmp_path / "scores.npz"), "--device", "cpu", "--estimators"]
    return lambda *estimators, faces=SET: score_faces.main(["--faces", faces, *argv, *estimators])


def stored(tmp_path):
    with np.load(tmp_path / "scores.npz") as archive:
        return dict(archive)


def test_scores_of_each_face_in_the_order_of_the_set(call, tiny_weights, tmp_path, capsys):
    assert call("sharpness", "short=ser_fiq:passes=5", "flip_disagreement") == 0
    arrays = stored(tmp_path)
    faces = open_faces(SET)
    assert arrays["key"].tolist() == [faces.name(row) for row in range(9)]
    images = np.stack([faces.read(row) for row in range(9)])
    backbone = FrozenBackbone(load_backbone(TINY, tiny_weights))
    expected = backbone(torch.from_numpy(images)).embedding.numpy()
    np.testing.assert_allclose(arrays["mu"], expected, rtol=1e-5, atol=1e-6)
    for name in ("sharpness", "short", "flip_disagreement"):
        assert arrays[name].shape == (9,)
        assert arrays[name].dtype == np.float32
    before = arrays["short"]
    capsys.readouterr()
    assert call("short=ser_fiq:passes=7", "contrast") == 0
    assert "short: already in" in capsys.readouterr().out
    np.testing.assert_array_equal(stored(tmp_path)["short"], before)
    assert "contrast" in stored(tmp_path)


def test_mistakes_take_one_line(call, tmp_path, refused):
    assert call("sharpness") == 0
    code = call("contrast", faces="synthetic:identities=3,images=3,seed=2")
    refused(code, "scores.npz has another key: it belongs to other faces or weights")
    refused(call("sharpnes"), "did you mean 'sharpness'?")
    refused(call("ser_fiq:passes=1"), "passes = 1")
    assert set(stored(tmp_path)) == {"key", "backbone_sha256", "sharpness"}
