import numpy as np
import pytest

from data.features import Embeddings
from evaluation.sets.labelled import labelled_comparisons
from evaluation.sets.score_files import write_scores
from evaluation.sets.stored import comparisons_of, open_stored
from tests.test_evaluation.factories import assert_same_comparisons


def embeddings(columns=1):
    rng = np.random.default_rng(0)
    names = np.array([f"{person}/{row}.jpg" for person in "abcde" for row in range(4)])
    return Embeddings(
        rng.normal(size=(20, 6)), rng.random((20, columns)), np.arange(20) // 4 * 3, names
    )


def test_labelled_images(tmp_path):
    stored = embeddings()
    stored.save(tmp_path / "e.npz")
    [(label, found)] = open_stored(tmp_path / "e.npz", non_mated=50, cap=2, seed=7).comparisons()
    expected = labelled_comparisons(
        stored.mu, stored.identity, stored.sigma_sq[:, 0], non_mated=50, cap=2, seed=7
    )
    assert_same_comparisons(found, expected)
    assert (label, found.name, found.mated.sum()) == ("", "e", 10)


def test_columns_are_uncertainties_of_their_own(tmp_path):
    stored = embeddings(columns=2)
    stored.save(tmp_path / "e.npz")
    found = open_stored(tmp_path / "e.npz").comparisons()
    assert [label for label, _ in found] == ["column 0", "column 1"]
    for column, (_, one) in enumerate(found):
        np.testing.assert_array_equal(one.uncertainty, stored.sigma_sq[:, column])
    embeddings(columns=3).save(tmp_path / "e.npz")
    found = open_stored(tmp_path / "e.npz").comparisons((2, 1))
    assert [label for label, _ in found] == ["columns 0-1", "column 2"]
    with pytest.raises(ValueError, match=r"e\.npz: sigma_sizes 2,2 must be 1 or more each and add"):
        open_stored(tmp_path / "e.npz").comparisons((2, 2))


def test_pairs(tmp_path, made_up):
    features = made_up(pairs=12, columns=2)
    features.save(tmp_path / "f.npz")
    found = open_stored(tmp_path / "f.npz").comparisons()
    expected = comparisons_of(features, "f")
    assert [label for label, _ in found] == [label for label, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert_same_comparisons(one, other)
        assert one.name == "f"


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_score_files(tmp_path, ending):
    stored = embeddings()
    expected = labelled_comparisons(stored.mu, stored.identity, stored.sigma_sq[:, 0], name="s")
    write_scores(tmp_path / f"s.{ending}", expected)
    [(label, found)] = open_stored(tmp_path / f"s.{ending}").comparisons()
    assert_same_comparisons(found, expected)
    assert label == ""
    with pytest.raises(ValueError, match="a score file has no sigma_sq for sigma_sizes to divide"):
        open_stored(tmp_path / f"s.{ending}").comparisons((1,))


def test_files_of_no_kind(tmp_path):
    with pytest.raises(ValueError, match=r"no features or score file .*none\.npz"):
        open_stored(tmp_path / "none.npz").comparisons()
    path = tmp_path / "x.npz"
    photo = tmp_path / "x.jpg"
    photo.write_text("words")
    with pytest.raises(ValueError, match=r"x\.jpg: neither stored arrays .* nor a score file"):
        open_stored(photo).comparisons()
    np.savez(path, mu=np.eye(3), sigma_sq=np.ones(3))
    with pytest.raises(ValueError, match=r"x\.npz: mu and sigma_sq need issame"):
        open_stored(path).comparisons()
    np.savez(path, mu=np.eye(3), issame=[1, 0])
    with pytest.raises(ValueError, match=r"x\.npz: no array sigma_sq \(it has: mu, issame\)"):
        open_stored(path).comparisons()
    np.savez(path, scores=np.ones(3))
    with pytest.raises(ValueError, match=r"x\.npz: no column score .*; is 'scores' meant as"):
        open_stored(path).comparisons()
