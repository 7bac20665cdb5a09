import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.comparisons import Comparisons
from evaluation.sets.labelled import labelled_comparisons
from evaluation.sets.score_files import read_scores, write_scores
from tests.test_evaluation.factories import assert_same_comparisons
from utils import tables

ENDINGS = ["csv", "npz", "parquet"]

GOOD = """score,mated,quality_a,quality_b,image_a,image_b
0.9,1,5,7,a.jpg,b.jpg
0.1,0,5,2,a.jpg,c.jpg
0.3,0,7,2,b.jpg,c.jpg
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a CSV text, or arrays, as a score file."""

    def comparisons(content):
        path = tmp_path / ("s.csv" if isinstance(content, str) else "s.npz")
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            np.savez(path, **content)
        return read_scores(path)

    return comparisons


def labelled(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6) * 7, 3)
    mu = rng.normal(size=(18, 5)).astype(np.float32)
    return labelled_comparisons(mu, labels, rng.normal(size=18).astype(np.float32), name="s")


def one_uncertainty_each():
    own = np.arange(4, dtype=np.int32)
    return Comparisons(
        "s",
        np.array([0.1, 0.7, -1e-8, 3], np.float32),
        np.array([1, 0, 1, 0], np.bool_),
        np.stack([own, own], axis=1),
        np.array([3, -1.5, 0.5, 1e-30], np.float32),
    )


def partly_listed():
    rng = np.random.default_rng(0)
    labels, mu = np.repeat(np.arange(20), 3), rng.normal(size=(60, 5)).astype(np.float32)
    ones = np.ones(60, np.float32)
    return labelled_comparisons(mu, labels, ones, non_mated="all", listed=99, name="s")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("made", [labelled, one_uncertainty_each, partly_listed])
def test_what_is_written_reads_back_to_the_last_bit(tmp_path, ending, made):
    path, expected = tmp_path / "deep" / f"s.{ending}", made()
    if expected.unlisted and ending == "csv":
        with pytest.raises(ValueError, match=r"s\.csv: CSV cannot say that 1611 non-mated .* \.np"):
            write_scores(path, expected)
        return
    write_scores(path, expected)
    assert_same_comparisons(read_scores(path), expected)
    assert read_scores(path).name == "s"


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None)
@given(st.lists(FLOATS.filter(lambda value: value not in (-1, 255)), min_size=2, max_size=9))
def test_every_float_survives_csv(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "s.csv"
    own = np.arange(len(values), dtype=np.int32)
    numbers = np.array(values, np.float32)
    one = Comparisons("s", numbers, own % 2 == 0, np.stack([own, own], axis=1), numbers[::-1])
    write_scores(path, one)
    assert_same_comparisons(read_scores(path), one)


def test_qualities_are_turned_and_images_have_one_row_each(read):
    found = read(GOOD)
    np.testing.assert_allclose(found.scores, [0.9, 0.1, 0.3])
    assert found.mated.tolist() == [True, False, False]
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.uncertainty.tolist() == [-5, -7, -2]
    assert found.pair_uncertainty("max").tolist() == [-5, -2, -2]
    assert (found.identity, found.best_unit) == (None, "image")


def test_other_names_directions_and_further_columns(read):
    found = read("Note;IsSame;Distance ;uncertainty\nx;true;0.25;1\n\ny;FALSE;1.5;2\n")
    assert found.scores.tolist() == [-0.25, -1.5]
    assert found.mated.tolist() == [True, False]
    assert found.pairs.tolist() == [[0, 0], [1, 1]]
    assert found.best_unit == "pair"


def test_pair_qualities_with_names_keep_one_row_per_side(read):
    text = "similarity,label,quality,image_a,image_b,identity_a,identity_b\n"
    found = read(text + "1,1,4,7,9,p,p\n0,0,3,7,8,p,q\n")
    assert found.image.tolist() == [7, 9, 7, 8]
    assert found.identity.tolist() == [0, 0, 0, 1]
    assert found.pairs.tolist() == [[0, 1], [2, 3]]
    assert found.pair_uncertainty("max").tolist() == [-4, -3]


def test_identities_without_images(read):
    text = "score,mated,uncertainty_a,uncertainty_b,identity_a,identity_b\n"
    found = read(text + "1,1,1,2,5,5\n0,0,3,4,5,6\n")
    assert found.image is None
    assert found.identity.tolist() == [5, 5, 5, 6]
    assert found.uncertainty.tolist() == [1, 2, 3, 4]
    assert found.best_unit == "identity"


def test_one_image_in_batches_of_different_rounding_is_still_one_image(read, tmp_path):
    text = "score,mated,uncertainty_a,uncertainty_b,image_a,image_b\n"
    found = read(text + "1,1,1,2,a,b\n0,0,1.00001,3,a,c\n")
    assert found.image.tolist() == [0, 1, 0, 2]
    np.testing.assert_array_equal(found.uncertainty, np.float32([1, 2, 1.00001, 3]))
    write_scores(tmp_path / "again.csv", found)
    np.testing.assert_array_equal(read_scores(tmp_path / "again.csv").image, found.image)


def replaced(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score,mated,quality\n", r"s\.csv: no comparison in it"),
        ("mated,quality\n1,2\n", r"no column score or similarity or distance \(it has: ma"),
        (replaced("score,", "scores,"), r"no column score .*; is 'scores' meant as 'score'\?"),
        (replaced("mated", "matched"), "no column mated or issame .*; is 'matched' meant as 'ma"),
        ("score,mated,q\n1,1,1\n", r"no column uncertainty or quality \(or the same with _a and"),
        (replaced("quality_b", "q2"), r"no column quality_b, which quality_a needs \(it has"),
        (replaced("image_b", "file_b"), "no column image_b, which image_a needs"),
        ("score,distance,mated,quality\n", "columns score and distance are both scores"),
        (
            "score,mated,quality,quality_a,quality_b\n",
            "columns quality and quality_a, quality_b say the same thing twice",
        ),
        (replaced("0.1,0", "nan,0"), r"s\.csv: line 3: score is nan: every row needs a finite"),
        (replaced("0.1,0", "0.1,2"), "line 3: mated is '2': write 1 for a mated comparison"),
        (replaced("c.jpg\n0.3", "\n0.3"), "line 3: image_b is empty"),
        (replaced("0.9,1", "0.9,0"), "no mated comparison among 3 .mated."),
        (
            replaced("0.3,0,7", "0.3,0,6"),
            r"image 'b.jpg' has two values: quality_b is 7 in line 2 and quality_a is 6 in line 4",
        ),
        (
            "score,mated,quality,identity_a,identity_b\n1,1,1,ann,ann\n\n0,1,1,ann,bob\n0,0,1,1,2",
            "line 4: mated is 1, but the identities are 'ann' and 'bob'",
        ),
        (
            "score,mated,quality,image_a,image_b,identity_a,identity_b\n"
            "1,1,1,x,y,9,9\n1,0,1,x,z,8,7\n",
            "image 'x' has two identities: identity_a is '9' in line 2 and identity_a is '8' in li",
        ),
    ],
)
def test_each_mistake_has_its_place(read, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(text)
    assert str(caught.value).count("s.csv") == 1


def test_lines_are_right_beyond_the_first_chunk(read, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 4)
    rows = [f"0.{row},{row % 2},{row},{row + 1},i{row},i{row + 1}\n" for row in range(10)]
    heading = "score,mated,quality_a,quality_b,image_a,image_b\n"
    assert read(heading + "".join(rows)).pairs.tolist() == [[row, row + 1] for row in range(10)]
    rows[6] = "0.6,2,6,7,i6,i7\n"
    with pytest.raises(ValueError, match="line 8: mated is '2'"):
        read(heading + "".join(rows))
    rows[6] = "0.6,0,6,9,i6,i7\n"
    with pytest.raises(ValueError, match="quality_b is 9 in line 8 and quality_a is 7 in line 9"):
        read(heading + "".join(rows))


def arrays(**changed):
    own = {"score": [0.5, 0.1, 0.2], "mated": [1, 0, 0], "quality": [1, 2, 3]}
    return {name: value for name, value in (own | changed).items() if value is not None}


@pytest.mark.parametrize(
    "stated",
    [
        *({"unlisted": count, "listed_from": 0.5} for count in (np.nan, -1, 1.5, 1e30)),
        *({"unlisted": 5, "listed_from": start} for start in (np.nan, -np.inf)),
        {"unlisted": 5},
    ],
)
def test_comparisons_that_are_not_listed_have_a_count_and_a_bound(read, stated):
    assert read(arrays(unlisted=5, listed_from=0.5)).unlisted == 5
    with pytest.raises(ValueError, match=r"s\.npz: unlisted is .* and listed_from .*: write how"):
        read(arrays(**stated))


def test_names_of_images_are_text_or_whole_numbers(read):
    changed = {"image_a": ["x", "x", "y"], "image_b": ["y", "z", "z"]}
    assert read(arrays(**changed)).image.tolist() == [0, 1, 0, 2, 1, 2]
    mixed = {"image_a": [5, 5, 6], "image_b": ["6", "x", "x"], "quality_a": [1, 1, 2]}
    found = read(arrays(quality=None, quality_b=[2, 3, 3], **mixed))
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    far = {"image_a": [10**12, 5, 10**12], "image_b": [5, -3, -3], "quality": None}
    found = read(arrays(**far, quality_a=[1, 2, 1], quality_b=[2, 3, 3]))
    assert found.image.tolist() == [-3, 5, 10**12]
    assert found.uncertainty.tolist() == [-3, -2, -1]
    with pytest.raises(ValueError, match="image_a holds float64: use text or whole numbers"):
        read(arrays(image_a=[1.5, 2, 3], image_b=[4, 5, 6]))
    with pytest.raises(ValueError, match=r"row 1 .*: mated is 0, but the identities are '1' and"):
        read(arrays(identity_a=[1, 1, 2], identity_b=[1, 1, 3]))


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match=r"no score file .*none\.csv"):
        read_scores(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"s\.txt: a score file ends in \.csv, \.npz or \.parquet"):
        write_scores(tmp_path / "s.txt", labelled())


def test_sampled_estimates_of_one_image_are_not_written_as_if_they_were_one(tmp_path):
    one = labelled()
    twice = Comparisons(
        "s", one.scores, one.mated, one.pairs, one.uncertainty, image=one.image // 2
    )
    with pytest.raises(ValueError, match="image 0 has another uncertainty in each of its rows"):
        write_scores(tmp_path / "s.npz", twice)
    assert not (tmp_path / "s.npz").exists()
