import json

import pytest

from evaluation.original import original_table
from report.results import original_dict
from report.text import original_notes, original_report, original_text
from report.words import caution_sentence


def test_notes_say_the_switches_and_the_counts(golden_features):
    result = original_table(golden_features["J"])
    lines = original_notes(result).splitlines()
    assert lines[0].startswith("protocol original: cosine scores;")
    curve = result.blocks[0].curves[-1]
    assert lines[2] == (
        f"FMR 0.001: threshold 0.5243, realised FMR 0/280 = 0.00e+00, FNMR "
        f"{curve.false_non_matches[0]}/1500 = 0.1600"
    )
    row = next(line for line in lines if line.strip().startswith("0.10"))
    discard, kept, misses, matches, misses_1000, matches_1000 = row.split()
    assert (discard, int(kept)) == ("0.10", curve.mated[10] + curve.non_mated[10])
    assert misses_1000 == f"{curve.false_non_matches[10]}/{curve.mated[10]}"
    assert matches_1000 == f"{curve.false_matches[10]}/{curve.non_mated[10]}"
    hundred = result.blocks[0].curves[0]
    assert misses == f"{hundred.false_non_matches[10]}/{hundred.mated[10]}"
    assert matches == f"{hundred.false_matches[10]}/{hundred.non_mated[10]}"


def test_text_report_has_block_accuracy_and_warnings(golden_features, golden_numbers):
    result = original_table(golden_features["H"], name="two")
    text = original_report(result)
    assert text.startswith("---two\n" + original_text(result))
    assert "EER and ten-fold accuracy (column 1):" in text
    for value in golden_numbers["H/acc_max/acc"]:
        assert f" {value:.6f} " in text
    assert text.rstrip().endswith(f"warning: {caution_sentence(result.cautions[-1])}")


def test_json_has_every_number_of_the_text(golden_features, golden_numbers):
    result = original_table(golden_features["C"], name="ties")
    data = json.loads(json.dumps(original_dict(result), allow_nan=False))
    assert [data[key] for key in ("name", "pairs", "mated")] == ["ties", 6000, 3000]
    assert data["protocol"]["threshold"] == "fixed"
    (block,) = data["uncertainties"]
    hundred, thousand = block["curves"]
    assert (hundred["fmr_target"], thousand["fmr_target"]) == (1e-2, 1e-3)
    for curve, column in ((hundred, "fmr100"), (thousand, "fmr1000")):
        expected = golden_numbers[f"C/fnmr_fixed/fixed_{column}"]
        assert curve["fnmr"] == expected.tolist()
        rates = [k / n for k, n in zip(curve["false_non_matches"], curve["mated"], strict=True)]
        assert rates == curve["fnmr"]
    assert block["kept"] == golden_numbers["C/fnmr_fixed/keep"].tolist()
    assert block["auerc30"] == golden_numbers["C/fnmr_fixed/AUERC30"][0]
    assert block["auc30_original"] == golden_numbers["C/fnmr_fixed/AUC30"][0]
    assert [row["accuracy"] for row in block["rows"]] == golden_numbers["C/acc_max/acc"].tolist()
    expected = golden_numbers["C/fnmr_fixed/eer"][:31:5].tolist()
    assert [row["eer"] for row in block["rows"]] == expected
    assert data["text"] == original_text(result)


def test_undefined_accuracy_is_null_in_json(made_up):
    (block,) = original_dict(original_table(made_up(pairs=12)))["uncertainties"]
    assert block["rows"][0]["accuracy"] is not None
    assert block["rows"][-1]["accuracy"] is None  # fewer than ten pairs are kept


@pytest.mark.parametrize("protocol", ["original", "original-mcdropout"])
def test_false_match_counts_go_with_their_threshold(made_up, protocol):
    result = original_table(made_up(pairs=300), protocol)
    block = result.blocks[0]
    for curve in block.curves:
        for index in (0, 13, 50):
            kept = block.kept.rows(index)
            accepted = block.scores >= curve.score_threshold[index]
            assert curve.false_matches[index] == (kept & accepted & ~block.mated).sum()
            assert curve.false_non_matches[index] == (kept & ~accepted & block.mated).sum()
