import json

import cv2
import numpy as np
import pytest

from data.features import Features
from evaluation.original import original_table
from report.figures import contact_sheet, draw_training_curves, edc_figure


@pytest.mark.parametrize("name", ["D", "H"])
def test_edc_figure_is_a_picture_with_ink(name, golden_features, tmp_path):
    path = edc_figure(
        original_table(golden_features[name], name="set"), tmp_path / "new" / "edc.png"
    )
    image = cv2.imread(str(path))
    assert image.shape[0] > 800
    assert image.shape[1] > 1200
    blue = (image.astype(int) - [0x99, 0x6E, 0x0B]).__abs__().max(axis=2) < 12
    assert blue.sum() > 1000  # the curve's own colour


def test_edc_figure_without_any_error(tmp_path):
    mu = np.eye(4, dtype=np.float32)[[0, 0, 1, 2] * 10]
    features = Features(mu, np.linspace(0, 1, 40), np.arange(20) % 2 == 0)
    result = original_table(features)
    assert result.blocks[0].curves[-1].fnmr[0] == 0
    assert edc_figure(result, tmp_path / "edc.png").stat().st_size > 10_000


def test_contact_sheet_shows_the_ends_and_no_image_twice(tiny_pairs, tmp_path):
    asked = []

    class Watched:
        name, mated = tiny_pairs.name, tiny_pairs.mated

        def decode(self, start, stop):
            asked.append(start)
            return tiny_pairs.decode(start - start % 2, start - start % 2 + 1)  # pairs of copies

    order = np.random.default_rng(0).permutation(24)
    uncertainty = np.argsort(order).astype(np.float32)
    path = tmp_path / "faces.png"
    contact_sheet(tiny_pairs, uncertainty[:2], path, title="one pair")
    contact_sheet(Watched(), uncertainty, path, title="tiny")
    assert asked[0] == order[0]
    assert order[-1] in asked
    assert cv2.imread(str(path)).shape[1] > 1000


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
    picture = cv2.imread(str(tmp_path / "curves.png"), cv2.IMREAD_GRAYSCALE)
    height, width = picture.shape
    for rows in (slice(None, height // 2), slice(height // 2, None)):
        for columns in (slice(None, width // 2), slice(width // 2, None)):
            assert (picture[rows, columns] < 128).mean() > 0.001


def test_nothing_to_draw(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    assert not draw_training_curves(tmp_path / "metrics.jsonl", tmp_path / "c.png", "run", 4)
    assert not (tmp_path / "c.png").exists()
