import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.synthetic import DEGRADATIONS, degradation_sweep, synthetic_verification
from demo.backbone import BACKBONE, MarginSoftmax, Recipe, rendered, save, train
from demo.train_backbone import main
from models.frozen import FrozenBackbone
from models.load import load_backbone
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "demo" / "backbone.pth"
TINY = Recipe(identities=4, images=8, epochs=6, batch_size=16, lr=3e-3, severity=0.0)


@pytest.fixture(scope="module")
def shipped():
    return FrozenBackbone(load_backbone(BACKBONE, WEIGHTS))


def embed(backbone, images):
    return F.normalize(backbone(torch.from_numpy(images)).embedding)


def test_the_shipped_file_is_small_and_is_what_the_config_names():
    config = load_config(ROOT / "config" / "config_demo.py")
    assert WEIGHTS.stat().st_size < 1_000_000
    assert config.backbone == BACKBONE
    assert Path(config.backbone_weights) == WEIGHTS
    assert load_backbone(config.backbone, config.backbone_weights).features_shape == (64, 7, 7)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_degradation_takes_embeddings_further_from_the_clean_image(shipped, kind):
    levels = (0, 0.2, 0.4, 0.6, 0.8, 1)
    images = degradation_sweep(kind, levels, identities=16)
    clean = embed(shipped, images[0])
    cosines = [float((embed(shipped, level) * clean).sum(dim=1).mean()) for level in images]
    assert cosines[0] == pytest.approx(1, abs=1e-5)
    assert all(later < earlier for earlier, later in itertools.pairwise(cosines)), cosines
    assert cosines[-1] < 0.85


def test_clean_faces_of_strangers_are_told_apart_and_degraded_ones_less(shipped):
    def errors(severity):
        pairs = synthetic_verification(150, seed=77, severity=severity)
        mu = embed(shipped, pairs.decode(0, 300)).numpy()
        cosine = (mu[::2] * mu[1::2]).sum(axis=1)
        threshold = np.quantile(cosine[~pairs.mated], 0.95)
        return (cosine[pairs.mated] <= threshold).mean()

    clean, degraded = errors(0.0), errors(1.0)
    assert clean < 0.05
    assert clean + 0.02 < degraded < 0.5


def test_training_learns_and_repeats_itself(tmp_path):
    images, labels = rendered(TINY, workers=1)
    assert images.shape == (32, 112, 112, 3)
    assert labels.tolist() == np.repeat(np.arange(4), 8).tolist()
    runs = []
    for name in ("first", "second"):
        lines = []
        save(train(images, labels, TINY, lines.append), tmp_path / name)
        runs.append((tmp_path / name).read_bytes())
        losses = [float(line.split()[-1]) for line in lines]
        assert len(losses) == TINY.epochs
        assert losses[-1] < 0.7 * losses[0]
    assert runs[0] == runs[1]


def test_the_margin_softmax_is_cosfaces():
    torch.manual_seed(0)
    loss = MarginSoftmax(3, 5, scale=8.0, margin=0.3)
    embedding, labels = torch.randn(4, 5), torch.tensor([0, 2, 1, 2])
    expected = 0.0
    for vector, label in zip(embedding, labels.tolist(), strict=True):
        logits = []
        for index, centre in enumerate(loss.centres.detach()):
            cosine = float(vector @ centre / vector.norm() / centre.norm())
            logits.append(8.0 * (cosine - 0.3 * (index == label)))
        expected += np.log(np.exp(logits).sum()) - logits[label]
    assert loss(embedding, labels).item() == pytest.approx(expected / 4, rel=1e-5)


def test_the_script_writes_where_it_is_told(tmp_path, monkeypatch, capsys):
    tiny = Recipe(2, 4, epochs=1, batch_size=4)
    monkeypatch.setattr("demo.backbone.RECIPE", tiny)
    threads = torch.get_num_threads()
    try:
        assert main(["--out", str(tmp_path / "small.pth")]) == 0
    finally:
        torch.set_num_threads(threads)
    assert "small.pth: 0.59 MB" in capsys.readouterr().out
    load_backbone(BACKBONE, tmp_path / "small.pth")
