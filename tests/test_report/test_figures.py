import cv2
import numpy as np
import pytest

from evaluation.original import original_table
from evaluation.sets.features import Features
from report.figures import contact_sheet, edc_figure


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
    path = contact_sheet(Watched(), uncertainty, tmp_path / "faces.png", title="tiny")
    assert asked[0] == order[0]
    assert order[-1] in asked
    assert cv2.imread(str(path)).shape[1] > 1000


def test_contact_sheet_of_one_pair(tiny_pairs, tmp_path):
    path = contact_sheet(
        tiny_pairs, np.array([0.1, 0.9], np.float32), tmp_path / "faces.png", "tiny"
    )
    assert path.stat().st_size > 1000
