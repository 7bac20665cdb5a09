"""Score files as other people's tools write them: what is read, left out, warned of or refused."""

import numpy as np
import pytest

from estimators.from_file import FromFile
from evaluation.metrics.curve import protocol_curve
from evaluation.run import EvaluationOptions, evaluate
from evaluation.sets.score_files import read_scores
from evaluation.sets.stored import open_stored
from report.words import caution_sentence

COUNT = 300


@pytest.fixture(scope="module")
def columns():
    rng = np.random.default_rng(0)
    mated = np.arange(COUNT) % 3 > 0
    quality = rng.random(COUNT).round(4)
    score = (rng.normal(size=COUNT) * 0.2 + np.where(mated, quality, 0)).round(5)
    return score, mated, quality


def text(score, mated, quality, separator=","):
    rows = [("score", "mated", "quality"), *zip(score, mated.astype(int), quality, strict=True)]
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def curve_of(path, protocol="iso29794"):
    ((_, comparisons),) = open_stored(path).comparisons()
    edc = protocol_curve(comparisons, protocol, 0.1).edc
    return edc.false_non_matches.tolist(), edc.mated.tolist()


def notes_of(path):
    return "\n".join(map(caution_sentence, read_scores(path).notes))


def test_separators_endings_and_encodings_change_nothing(tmp_path, columns):
    comma = text(*columns)
    semicolon = text(*columns, ";")
    heading, _, rest = semicolon.partition("\n")
    forms = {
        "comma.csv": comma.encode(),
        "semicolon.csv": semicolon.encode(),
        "tab.tsv": text(*columns, "\t").encode(),
        "tab.csv": text(*columns, "\t").encode(),
        "semicolon.txt": semicolon.encode(),
        "blanks.txt": text(*columns, " ").encode(),
        "heading_trails.csv": f"{heading};\n{rest}".encode(),
        "rows_trail.csv": f"{heading}\n{rest}".replace("\n", ";\n")
        .replace(";\n", "\n", 1)
        .encode(),
        "all_trail.csv": semicolon.replace("\n", ";\n").encode(),
        "bom.csv": comma.encode("utf-8-sig"),
        "utf16.csv": comma.encode("utf-16"),
        "utf16_le.csv": comma.encode("utf-16-le"),
        "utf16_be.csv": comma.encode("utf-16-be"),
        "windows.csv": comma.replace("\n", "\r\n").encode(),
        "blank_lines.csv": comma.replace("\n", "\n\n", 5).encode(),
        "comment.csv": f"# of a tool; 2024\n\n#, more\n{semicolon}".encode(),
        "quoted.csv": comma.replace("score,", '"score",').encode(),
    }
    expected = None
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        expected = expected or curve_of(tmp_path / name)
        assert curve_of(tmp_path / name) == expected, name


def test_a_monotone_map_of_the_quality_changes_no_curve(tmp_path, columns):
    score, mated, quality = columns
    (tmp_path / "plain.csv").write_text(text(score, mated, quality))
    (tmp_path / "near.csv").write_text(text(score, mated, 1 - (1 - quality) * 1e-8))
    assert curve_of(tmp_path / "near.csv") == curve_of(tmp_path / "plain.csv")


def test_scores_that_differ_beyond_float32_stay_in_order(tmp_path, columns, caplog):
    quality = columns[2]
    near = 1 - (1 - quality) * 1e-8
    names = [f"{row}.png" for row in range(COUNT)]
    orders = []
    for values in (quality, near):
        path = tmp_path / "q.csv"
        lines = [f"{n},{v!r}\n" for n, v in zip(names, values.tolist(), strict=True)]
        path.write_text("".join(lines))
        uncertainty = FromFile(path=str(path)).uncertainty_of(names)
        assert uncertainty.dtype == np.float32
        orders.append(np.unique(uncertainty, return_inverse=True)[1].tolist())
    assert orders[0] == orders[1]
    assert "too close together" in caplog.text


@pytest.mark.parametrize(
    ("kind", "code", "worst"), [("quality", 255, 0), ("uncertainty", -1, 2), ("quality", -1, -1)]
)
def test_failures_to_assess_are_the_worst(tmp_path, columns, kind, code, worst):
    score, mated, quality = columns
    failed = np.arange(COUNT) % 7 == 0
    for name, value in (("coded.csv", code), ("worst.csv", worst)):
        table = text(score, mated, np.where(failed, value, quality + 0.001).round(4))
        (tmp_path / name).write_text(table.replace("quality", kind))
    assert curve_of(tmp_path / "coded.csv") == curve_of(tmp_path / "worst.csv")
    said = notes_of(tmp_path / "coded.csv")
    assert (f"{failed.sum()} of {COUNT} values of {kind}" in said) == (worst != code)


def test_255_is_a_quality_where_others_exceed_100(tmp_path, columns):
    score, mated, quality = columns
    (tmp_path / "q.csv").write_text(text(score, mated, np.linspace(0, 255, COUNT)))
    assert read_scores(tmp_path / "q.csv").uncertainty.min() == -255


def test_failures_in_a_file_of_qualities_are_the_worst(tmp_path, caplog):
    (tmp_path / "q.csv").write_text("key,quality\na,30\nb,255\nc,70\n")
    uncertainty = FromFile(path=str(tmp_path / "q.csv")).uncertainty_of("abc")
    assert uncertainty.argmax() == 1
    assert "1 of 3 values of quality are 255" in caplog.text


MATRIX = """image_a,image_b,score,mated,uncertainty_a,uncertainty_b
a,b,0.9,1,0.1,0.2
a,c,0.2,0,0.1,0.3
b,c,0.1,0,0.2,0.3
c,d,0.8,1,0.3,0.4
"""


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("a,a,1,1,0.1,0.1\n", "1 comparisons of an image with itself"),
        ("b,b,1,0,0.2,0.2\nd,d,1,1,0.4,0.4\n", "2 comparisons of an image with itself"),
        ("a,b,0.9,1,0.1,0.2\n", "1 comparisons repeat a pair"),
        ("c,b,0.1,0,0.3,0.2\nb,a,0.9,1,0.2,0.1\n", "2 comparisons repeat a pair"),
    ],
)
def test_what_is_no_further_comparison_is_left_out_and_counted(tmp_path, extra, message):
    (tmp_path / "plain.csv").write_text(MATRIX)
    (tmp_path / "more.csv").write_text(MATRIX + extra)
    plain, more = (read_scores(tmp_path / name) for name in ("plain.csv", "more.csv"))
    for field in ("scores", "mated", "pairs", "uncertainty"):
        assert np.array_equal(getattr(plain, field), getattr(more, field)), field
    assert message in notes_of(tmp_path / "more.csv")
    assert not plain.notes


def test_a_pair_of_both_kinds_is_refused_with_its_lines(tmp_path):
    (tmp_path / "m.csv").write_text(MATRIX + "b,a,0.9,0,0.2,0.1\n")
    with pytest.raises(ValueError, match=r"'a' and 'b' are mated = 1 in line 2 and 0 in line 6"):
        read_scores(tmp_path / "m.csv")


@pytest.mark.parametrize("heading", ["score,mated,quality,quality", "score,mated,quality,Quality"])
def test_two_columns_of_one_name_are_refused(tmp_path, heading):
    (tmp_path / "s.csv").write_text(f"{heading}\n1,1,1,1\n0,0,1,1\n")
    with pytest.raises(ValueError, match="two columns are called"):
        read_scores(tmp_path / "s.csv")


def test_mated_comparisons_alone_serve_where_no_fmr_is_asked_for(tmp_path, columns):
    score, _, quality = columns
    mated = np.ones(COUNT, bool)
    (tmp_path / "mated.csv").write_text(text(score, mated, quality))
    (tmp_path / "both.csv").write_text(text(score, mated, quality) + "-9,0,0.5\n")
    assert curve_of(tmp_path / "mated.csv", "nist") == curve_of(tmp_path / "both.csv", "nist")
    source = open_stored(tmp_path / "mated.csv")
    assert evaluate(source, None, EvaluationOptions(protocols=("nist",))).uncertainties
    with pytest.raises(ValueError, match="no non-mated"):
        evaluate(source, None, EvaluationOptions(protocols=("iso29794",)))


def test_qualities_by_name_or_position(tmp_path):
    (tmp_path / "q.txt").write_text("a.png 0.91\nb.png 0.42\n")
    many = "Filename;UnifiedQualityScore;Sharpness.scalar\na.png;21.3;0.2\nb.png;25.1;0.4\n"
    (tmp_path / "many.csv").write_text(many)
    names = ["b.png", "a.png"]
    by_position = FromFile(path=str(tmp_path / "q.txt"))
    assert by_position.uncertainty_of(names) == pytest.approx([-0.42, -0.91])
    by_name = FromFile(path=str(tmp_path / "many.csv"), column="unifiedqualityscore")
    assert by_name.uncertainty_of(names) == pytest.approx([-25.1, -21.3])
    with pytest.raises(ValueError, match="column=NAME: one of UnifiedQualityScore, Sharp"):
        FromFile(path=str(tmp_path / "many.csv"))
