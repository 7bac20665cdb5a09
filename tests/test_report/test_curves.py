"""The picture of a training run: four panels from metrics.jsonl, whatever the loss logged."""

import json

import numpy as np
import pytest
from PIL import Image

from report.figures import draw_training_curves


def lines(spread="pconf", evaluations=2):
    for step in range(1, 9):
        yield {
            "global_step": step,
            "loss": 1 / step,
            "cos": [0.5, 0.9, 0.1],
            **({spread: [0.4, 0.8, 0.2]} if spread else {}),
        }
        if step % 4 == 0 and step // 4 <= evaluations:
            area = {"uncertainties": [{"auerc30": 0.1 / step}]}
            yield {"global_step": step, "evaluation": {"name": "lfw", **area}}


@pytest.mark.parametrize("spread", ["pconf", "sigma", ""])
@pytest.mark.parametrize("evaluations", [0, 2])
def test_a_picture_with_ink_in_every_quarter(tmp_path, spread, evaluations):
    metrics = tmp_path / "metrics.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines(spread, evaluations))
    metrics.write_text(text + '{"global_step": 9, "lo')
    assert draw_training_curves(metrics, tmp_path / "curves.png", "run", steps_per_epoch=4)
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("L"))
    height, width = picture.shape
    for rows in (slice(None, height // 2), slice(height // 2, None)):
        for columns in (slice(None, width // 2), slice(width // 2, None)):
            assert (picture[rows, columns] < 128).mean() > 0.001


def test_nothing_to_draw(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert not draw_training_curves(tmp_path / "metrics.jsonl", tmp_path / "c.png", "run", 4)
    assert not (tmp_path / "c.png").exists()
