import dataclasses
import json

import numpy as np
import pytest

from data.features import Features
from evaluation.calibration_run import calibrate
from evaluation.comparison import ComparisonOptions
from evaluation.metrics.curve import protocol_curve
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.open_model import open_models
from evaluation.run import (
    DISCARDS,
    EvaluationOptions,
    embed_set,
    evaluate,
    protocol_rows,
    save_features,
)
from evaluation.sets.open_set import open_set
from evaluation.sets.stored import comparisons_of, open_stored
from report.results import row_dict
from report.text import protocol_table, result_text, row_warnings
from report.words import caution_sentences, protocol_sentence, risk_sentences
from tests.helpers import Levels
from tests.test_evaluation.factories import truncated


@pytest.fixture
def comparisons(golden_features):
    ((_, found),) = comparisons_of(golden_features["J"], "J")
    return found


def test_every_preset_has_its_rows(comparisons):
    rows = protocol_rows(comparisons)
    names = [row.protocol.name for row in rows]
    assert names == [name for name in PROTOCOLS for _ in range(1 if name == "nist" else 2)]
    lines = protocol_table("J", rows).splitlines()
    assert lines[0] == "---J"
    curve = protocol_curve(comparisons, "iso29794", 1e-3)
    (line,) = [one for one in lines if one.startswith("iso29794") and "FMR 0.001" in one][:1]
    words, below = line.split(), lines[lines.index(line) + 1].split()
    assert words[3:5] == [f"{curve.edc.score_threshold[0]:.4f}", "FNMR"]
    for word, share in zip(words[5:], DISCARDS, strict=True):
        index = np.flatnonzero(curve.edc.fractions <= share + 1e-9)[-1]
        assert word == f"{curve.edc.false_non_matches[index]}/{curve.edc.mated[index]}"
    assert below == ["FMR", *[f"{curve.edc.false_matches[0]}/280"] * len(DISCARDS)]
    areas = [one.split() for one in lines if one.startswith("iso29794") and "/" not in one]
    assert areas[-1][3:] == [
        "0.3",
        f"{curve.areas[0.3]:.6f}",
        f"{curve.relative[0.3]:.4f}",
        f"{curve.best_relative[0.3]:.4f}",
    ]
    for protocol in PROTOCOLS.values():
        assert f"{protocol_sentence(protocol)}." in lines
    (row,) = [line.split() for line in lines if "efficiency" in line]
    efficiency = protocol_curve(comparisons, "nist").efficiencies(DISCARDS)
    assert row == ["efficiency", "-", *(f"{value:.2f}" for value in efficiency.values())]


def test_warnings_name_the_protocols(comparisons):
    rows = protocol_rows(comparisons)
    (line,) = [one for one in row_warnings(rows) if "FMR 0.001" in one]
    assert line.startswith("original, original-mcdropout, original-mcdropout-sum, lightqnet, ")
    assert "280 non-mated pairs leave 0.28 expected false matches (fewer than 5)" in line
    assert line not in protocol_table("J", rows)  # scripts write warnings to stderr


def test_json_has_the_numbers(comparisons):
    rows = protocol_rows(comparisons, fmr_targets=(0.01,))
    data = json.loads(json.dumps([row_dict(row) for row in rows], allow_nan=False))
    by_name = {row["protocol"]["name"]: row for row in data}
    assert list(by_name) == list(PROTOCOLS)
    assert by_name["nist"]["fmr_target"] is None
    for name, row in by_name.items():
        curve = protocol_curve(comparisons, name, 0.01)
        assert row["areas"] == {f"{limit:g}": area for limit, area in curve.areas.items()}
        assert row["relative"] == {f"{limit:g}": one for limit, one in curve.relative.items()}
        assert row["fmr"] == row["false_matches"] / row["non_mated"]
        assert row["discards"][0]["mated"] == 1500
        assert [one["discard_fraction"] for one in row["discards"]] == list(DISCARDS)
        assert row["protocol"]["grid"] == PROTOCOLS[name].grid
        assert row["protocol"]["in_words"] == protocol_sentence(PROTOCOLS[name])
        assert row["warnings"] == list(caution_sentences(curve.cautions))
        assert row["reason"] is None
        assert row.get("efficiency", {}) == {
            f"{share:g}": value for share, value in curve.efficiencies(DISCARDS).items()
        }
        assert ("efficiency" in row) == (name == "nist")


def test_a_preset_that_cannot_be_applied_says_why(comparisons):
    rows = protocol_rows(truncated(comparisons, 0.0), fmr_targets=(0.01,))
    applied = [row.protocol.name for row in rows if row.curve]
    assert applied == ["iso29794", "pauc", "nist"]
    (line,) = [one for one in protocol_table("J", rows).splitlines() if one.startswith("crfiqa")]
    assert "not applicable: J: protocol crfiqa has discard_over 'all'" in line
    assert row_dict(rows[0])["reason"].startswith("J: protocol or")


def test_nothing_that_can_be_applied(comparisons):
    only = dataclasses.replace(comparisons, mated=np.zeros_like(comparisons.mated))
    with pytest.raises(ValueError, match=r"^J: no mated pair: there is no FNMR to measure$"):
        protocol_rows(only)
    with pytest.raises(ValueError, match=r"^J: give one protocol and one FMR target at least$"):
        protocol_rows(comparisons, ())


def test_no_error_at_all_is_a_dash_and_null(made_up):
    features = made_up(pairs=40)
    mu = np.repeat(np.eye(16, dtype=np.float32)[np.arange(40) % 16], 2, axis=0)
    mu[1::2][~features.issame] *= -1
    ((_, comparisons),) = comparisons_of(Features(mu, features.sigma_sq, features.issame), "easy")
    rows = protocol_rows(comparisons, [PROTOCOLS["iso29794"]], [0.3])
    assert row_dict(rows[0])["relative"] == {"0.2": None, "0.3": None}
    assert protocol_table("J", rows).count(" - ") == 2
    assert any("no false non-match without discard" in line for line in row_warnings(rows))


def test_equal_embeddings_are_one_image(made_up):
    features = made_up(pairs=3000)
    rng = np.random.default_rng(0)
    source = rng.integers(0, 500, 6000)
    mu = features.mu[source]
    sigma_sq = features.sigma_sq[source]
    ((_, one),) = comparisons_of(Features(mu, sigma_sq, features.issame))
    _, expected = np.unique(source, return_inverse=True)
    assert len(np.unique(one.image)) == expected.max() + 1
    for row in range(0, 6000, 97):
        np.testing.assert_array_equal(one.image == one.image[row], expected == expected[row])


def test_sets_estimates_and_stored_files_give_the_same(tmp_path):
    source = open_set("faces:synthetic:identities=20,images=4,seed=1")
    options = EvaluationOptions(fmr=(0.05,), replicates=20, target_risk=0.3)
    result = evaluate(source, Levels(), options)
    assert (result.original, result.protocols[0].name) == (None, "iso29794")
    (part,) = result.uncertainties
    assert part.method == "levels"
    assert risk_sentences(part.risk) in result_text(result)
    estimate = embed_set(source, Levels(), options)
    save_features(tmp_path / "e.npz", source, estimate)
    for again in (
        evaluate(source, estimate, options),
        evaluate(open_stored(tmp_path / "e.npz"), options=options),
    ):
        for row, expected in zip(again.uncertainties[0].rows, part.rows, strict=True):
            np.testing.assert_array_equal(row.curve.edc.fnmr, expected.curve.edc.fnmr)
        assert again.uncertainties[0].risk.to_dict()["held_out"] == part.risk.to_dict()["held_out"]


def test_what_does_not_go_together(tmp_path):
    source = open_set("synthetic:pairs=20")
    with pytest.raises(ValueError, match="which model"):
        evaluate(source)
    with pytest.raises(ValueError, match=r"e\.npz has its own uncertainties"):
        evaluate(open_stored(tmp_path / "e.npz"), Levels())
    with pytest.raises(ValueError, match="did you mean 'original'"):
        evaluate(source, Levels(), EvaluationOptions(protocols=("orignal",)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: open_set(5), "target = 5: must be a text, such as 'lfw'"),
        (lambda _: evaluate("x", "y"), "source = 'x': must be a set, as of open_set"),
        (lambda source: evaluate(source, "y"), "model = 'y': must be a model, as of open_model"),
        (lambda source: calibrate(Levels(), source), "source = .*Levels.*: must be a set"),
        (lambda _: EvaluationOptions(protocols="nist"), r"a tuple, such as \('nist',\)"),
        (lambda _: EvaluationOptions(fmr=0.01), r"fmr = 0\.01: must be several, .* \(0\.01,\)"),
        (lambda _: ComparisonOptions(fmr=0.01), r"fmr = 0\.01: must be several"),
        (lambda _: open_models("demo"), r"specs = 'demo': must be several, such as \['demo'\]"),
    ],
)
def test_an_argument_of_another_kind_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(open_set("synthetic:pairs=20"))
