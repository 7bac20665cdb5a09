"""Every set, every variant, all 100 points: the complete comparison with the original's outputs."""

import json

import numpy as np
import pytest

from data.features import Features
from evaluation.metrics.comparisons import cosine_of_pairs
from evaluation.original import equal_error_rates, original_table
from report.text import original_text
from tests.helpers import SHARED
from tests.test_evaluation.factories import ORIGINALS, point_of
from tests.test_evaluation.test_metrics.test_error_rates import assert_equals_pyeer, drawn_share

ORACLE = SHARED / "oracle" / "eval"
SETS = ["A_cfp7000_1col", "B_lfw6000_8col", "C_ties6000_1col", "D_const600", "H_2col1200"]
SETS += ["J_fewimpostors"]

pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason="needs ../shared/oracle")


@pytest.fixture(scope="module", params=SETS)
def case(request):
    features = Features.load(ORACLE / f"set_{request.param}.npz")
    expected = json.loads((ORACLE / f"expected_{request.param}.json").read_text())["variants"]
    return request.param, features, expected


def test_scores(case):
    name, features, _ = case
    with np.load(ORACLE / f"scores_{name}.npz") as archive:
        np.testing.assert_array_equal(cosine_of_pairs(features.mu), archive["cosine"])


@pytest.mark.parametrize("variant", ORIGINALS)
def test_text_and_all_points(case, variant):
    _, features, expected = case
    expected = expected[variant]
    result = original_table(features, ORIGINALS[variant])
    assert original_text(result) == expected["text"]
    for index, block in enumerate(result.blocks):
        part = slice(100 * index, 100 * index + 100)
        rows = {name: values[part] for name, values in expected["rows"].items()}
        assert block.kept.thresholds.tolist() == rows["risk_threshold"]
        kept = [block.kept.rows(index).sum() for index in range(100)]
        assert kept == rows["keep"]
        prefix = "fixed_" if variant == "fnmr_fixed" else ""
        for curve, column in zip(block.curves, ("fmr100", "fmr1000"), strict=True):
            assert curve.fnmr.tolist() == rows[prefix + column]
        assert block.curves[-1].fnmr.tolist() == expected["blocks"][index]["fnmr_curve"]
        areas = expected["blocks"][index]
        found = block.areas
        assert (found.auerc, found.auerc30) == (areas["AUERC"], areas["AUERC30"])
        assert (found.auc, found.auc30) == (areas["AUC"], areas["AUC30"])
        eer = equal_error_rates(block.scores, block.mated, block.kept, range(100))
        for place, column in enumerate(("eer", "eer_low", "eer_high", "eer_th")):
            assert [rate[place] for rate in eer] == rows[column]
        for target, column in ((1e-2, "fmr100_th"), (1e-3, "fmr1000_th")):
            thresholds = [
                point_of(block.scores[row], block.mated[row], "nearest", target).threshold
                for row in map(block.kept.rows, range(100))
            ]
            assert thresholds == rows[column]


@pytest.mark.parametrize(
    ("variant", "protocol"), [("acc_max", "original"), ("acc_add", "original-mcdropout-sum")]
)
def test_accuracy(case, variant, protocol):
    _, features, expected = case
    blocks = original_table(features, protocol).blocks
    found = [accuracy for block in blocks for accuracy in block.accuracy]
    rows = expected[variant]["rows"]
    assert [one.value for one in found] == rows["acc"]
    assert [one.threshold for one in found] == rows["threshold"]


@pytest.mark.parametrize("share", ["1.0", "0.5", "0.05"])
def test_operating_points(case, share):
    name, features, _ = case
    stats = json.loads((ORACLE / "pyeer_stats.json").read_text())[f"{name}/{share}"]
    scores, mated = cosine_of_pairs(features.mu), features.issame
    assert_equals_pyeer(*drawn_share(scores, mated, share), stats)
