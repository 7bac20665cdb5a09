"""The scripts over labelled faces, lists of pairs and stored files, as a person runs them."""

import csv
import dataclasses

import numpy as np
import pytest

from data.synthetic import SyntheticFaces
from evaluation import compare
from evaluation.metrics.curve import protocol_curve
from evaluation.sets.score_files import read_scores, write_scores
from evaluation.verification_risk_fnmr import main
from tests.helpers import TINY_NAME
from tests.test_evaluation.factories import doubtful

FACES = "faces:synthetic:identities=8,images=4,seed=3"


@pytest.fixture
def backbone(tiny_weights):
    return ["--backbone_name", TINY_NAME, "--backbone_weights", str(tiny_weights)]


@pytest.fixture
def scores(tmp_path):
    """A score file of 40 people with 5 images, the mated scores lower where uncertain."""
    write_scores(tmp_path / "scores.npz", doubtful(np.random.default_rng(0), 40, 5))
    return tmp_path / "scores.npz"


def test_labelled_faces_with_a_training_free_score(backbone, tmp_path, capsys):
    saved, scored = tmp_path / "e.npz", tmp_path / "s.csv"
    argv = [*backbone, "--estimator", "embedding_norm", "--target", FACES, "--fmr", "0.05"]
    assert main([*argv, "--save_features", str(saved), "--save_scores", str(scored)]) == 0
    out = capsys.readouterr().out
    assert "protocol iso29794: " in out
    comparisons = read_scores(scored)
    assert comparisons.mated.sum() == 8 * 6
    assert len(comparisons.mated) == 32 * 31 / 2
    edc = protocol_curve(comparisons, "iso29794", 0.05).edc
    assert f"{edc.false_matches[0]}/{edc.non_mated[0]}" in out
    assert main(["--features", str(saved), "--fmr", "0.05", "--protocol", "iso29794"]) == 0
    again = capsys.readouterr().out
    assert f"{edc.false_matches[0]}/{edc.non_mated[0]}" in again


def test_a_stopped_run_goes_on_from_its_parts(backbone, tmp_path, capsys, refused, monkeypatch):
    argv = [*backbone, "--estimator", "sharpness", "--target", FACES, "--fmr", "0.05"]
    argv += ["--parts", str(tmp_path / "parts")]
    assert main(argv) == 0
    first = capsys.readouterr().out

    def never(self, row):
        raise AssertionError("no image is read again")

    monkeypatch.setattr(SyntheticFaces, "read", never)
    assert main(argv) == 0
    assert capsys.readouterr().out == first
    refused(main([*argv, "--estimator", "contrast"]), "parts")


def test_compare_methods_on_faces(backbone, tmp_path, capsys, refused):
    other = tmp_path / "theirs.csv"
    folder = tmp_path / "out"
    names = [SyntheticFaces(identities=8, images=4, seed=3).name(row) for row in range(32)]
    other.write_text("".join(f"{name},{row}\n" for row, name in enumerate(names)))
    argv = ["--target", FACES, "--fmr", "0.05", "--replicates", "20", "--out", str(folder)]
    argv += [*backbone, "--methods", "embedding_norm", "sharp=sharpness", f"theirs={other}"]
    argv += ["--parts", str(tmp_path / "parts")]
    assert compare.main([*argv, "--against", "theirs"]) == 0
    out = capsys.readouterr().out
    assert compare.main([*argv, "--against", "theirs"]) == 0  # from the parts
    assert capsys.readouterr().out == out
    assert "20 bootstrap draws over 8 identities" in out
    with (folder / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"embedding_norm", "sharp", "theirs"}
    assert [row["verdict"] == "" for row in rows] == [row["method"] == "theirs" for row in rows]
    assert sum(float(row["best_share"]) for row in rows) == pytest.approx(1)
    endings = {path.suffix for path in folder.iterdir()}
    assert endings == {".txt", ".csv", ".md", ".tex", ".json", ".png"}
    code = compare.main([*argv, "--against", "nobody"])
    refused(code, "--against nobody: the methods are embedding_norm, sharp, theirs")


def test_compare_takes_files_of_one_set(scores, tmp_path, refused):
    ours, other = read_scores(scores), tmp_path / "other.npz"
    write_scores(other, dataclasses.replace(ours, scores=ours.scores[::-1].copy()))
    refused(compare.main(["--features", str(scores), str(other)]), "other comparisons than in")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --target SET ... with --methods METHOD ..., or --features FILE"),
        (["--target", "lfw"], "give --target SET ... with --methods"),
        (["--features", "a.npz", "--methods", "x"], "--features has its own comparisons"),
        (["--target", FACES, "--methods", "embedding_norm"], "needs a backbone: give"),
    ],
)
def test_mistakes_of_compare(argv, message, refused):
    refused(compare.main(argv), message, alone=True)
