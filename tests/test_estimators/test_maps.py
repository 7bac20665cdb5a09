"""Maps of what raises the uncertainty: against finite differences, and by covering their worst."""

import cv2
import numpy as np
import pytest

from benchmarks.maps import effects, level
from data.rendered import mean_face
from data.synthetic import SyntheticFaces
from estimators.trained_head import MAP_SIGMA
from evaluation.open_model import open_model
from face_uncertainty import load_scorer
from scoring import score_images
from tests.helpers import python

FACES = SyntheticFaces(60, 4, seed=77)
DEGRADED = np.stack([FACES.read(row) for row in range(240) if FACES.degradation(row) > 0.4][:60])


@pytest.fixture(scope="module")
def demo():
    return open_model("demo")


def test_covering_the_worst_tenth_helps_more_than_any_other(demo):
    at_worst, at_random = effects(demo, DEGRADED)
    assert (at_worst < at_random).mean() >= 0.9
    assert (at_worst < 0).mean() >= 0.9


def test_a_map_is_the_smoothed_effect_of_each_pixel(demo):
    """Half-way between the faces, finite differences give each column of pixels its effect."""
    face = DEGRADED[:1].astype(np.float64)
    middle, gap = (face + mean_face()) / 2, face - mean_face()
    maps = demo.explain(DEGRADED[:1])
    assert (maps.shape, maps.dtype) == ((1, 112, 112), np.float32)
    kernel = cv2.getGaussianKernel(6 * int(MAP_SIGMA) + 1, MAP_SIGMA)[:, 0]
    at, reach = (50, 60), 3 * int(MAP_SIGMA)
    weights = np.zeros((112, 112))
    weights[at[0] - reach : at[0] + reach + 1, at[1] - reach : at[1] + reach + 1] = np.outer(
        kernel, kernel
    )
    step = 0.05 * weights[..., None] / weights.max() * gap
    above, below = (level(demo, middle + sign * step) for sign in (1, -1))
    effect = (above - below)[0] / 2 / 0.05 * weights.max()
    assert maps[0][at] == pytest.approx(effect, rel=0.05)


def test_the_scorer_explains_one_face(demo, tmp_path):
    scorer = load_scorer("demo")
    map_ = scorer.explain(DEGRADED[3])
    np.testing.assert_allclose(map_, demo.explain(DEGRADED[3:4])[0], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(map_, scorer.explain(scorer(DEGRADED[3])[0]))
    assert not scorer.explain(DEGRADED[3], mean_face=DEGRADED[3].astype(np.float32)).any()
    with pytest.raises(ValueError, match="2 images"):
        scorer.explain([DEGRADED[0], DEGRADED[1]])


def test_an_onnx_file_is_refused(tmp_path, refused):
    export = (
        pytest.importorskip("onnxruntime")
        and pytest.importorskip("onnx")
        and python("export/export.py", "--model", "demo", "--out", tmp_path / "demo.onnx")
    )
    assert export.returncode == 0, export.stderr
    words = ["--model", str(tmp_path / "demo.onnx"), "--report", str(tmp_path), "--why"]
    line = "demo.onnx: a map of what raises the uncertainty needs the gradient of a trained head"
    refused(score_images.main([str(tmp_path), *words]), line)
    refused(score_images.main([str(tmp_path), "--model", "demo", "--why"]), "goes with --report")
