"""The script `evaluation/calibrate.py`: stored files, a model, and one line for a mistake."""

import re
import shutil

import numpy as np
import pytest

from evaluation.calibrate import main
from evaluation.confidence.calibration import Calibration


@pytest.fixture
def stored(made_up, tmp_path):
    path = tmp_path / "stored.npz"
    made_up(pairs=2000).save(path)
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(120), 10)
    sigma_sq = rng.uniform(0.05, 1, (1200, 1)).astype(np.float32)
    mu = rng.normal(size=(120, 16))[identity] + rng.normal(size=(1200, 16)) * sigma_sq
    path = tmp_path / "labelled.npz"
    np.savez(path, mu=mu.astype(np.float32), sigma_sq=sigma_sq, identity=identity)
    return str(path)


def test_stored_pairs(stored, tmp_path, capsys):
    out = tmp_path / "deep" / "calibration.json"
    assert main(["--features", stored, "--out", str(out), "--fmr", "0.01"]) == 0
    fitted = Calibration.load(out)
    captured = capsys.readouterr()
    misses = fitted.false_non_matches
    assert captured.out.startswith(
        "stored: 1000 mated and 1000 non-mated comparisons; uncertainties of stored.npz\n"
        f"score threshold {fitted.score_threshold:.6g}, for FMR 0.01: FMR 10/1000 = 0.01, FNMR "
        f"{misses.errors}/1000 = "
    )
    table = [line.split() for line in captured.out.splitlines() if "%" in line][1:]
    assert len(table) == 7
    assert table[0][3:5] == ["100.0%", f"{misses.errors}/1000"]
    errors = [int(row[4].partition("/")[0]) for row in table]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2
    assert "calibration error on people that the map was not fitted on: 0.0" in captured.out
    assert captured.out.endswith(f"wrote {out}\n")
    assert captured.err == ""


def test_a_target_risk_is_answered(stored, tmp_path, capsys):
    out = str(tmp_path / "c.json")
    argv = ["--features", stored, "--out", out, "--score_threshold", "0.4", "--target_risk"]
    assert main([*argv, "0.2", "--confidence", "0.9"]) == 0
    text = capsys.readouterr().out
    assert "FNMR of at most 0.2 among accepted comparisons, confidence 0.9: accept unc" in text
    assert "score threshold 0.4, as given" in text
    decision = Calibration.load(out).decision
    assert f"accept uncertainty <= {np.float32(decision.accept_up_to)!s} (" in text
    assert f"stored for scorers: {decision.rule}\nwrote" in text.replace("\n\n", "\n")
    assert main([*argv, "0.0001", "--risk", "total"]) == 0
    assert "total error of at most 0.0001 among accepted" in (text := capsys.readouterr().out)
    assert "cannot be reached: there are " in text
    (reachable,) = re.findall(r"or a target risk of (0\.\d+), which these can certify", text)
    assert Calibration.load(out).decision.accept_up_to is None
    assert main([*argv, reachable, "--risk", "total"]) == 0
    assert Calibration.load(out).decision.accept_up_to is not None


def test_p_same_person_goes_into_the_file(labelled, tmp_path, capsys):
    out = tmp_path / "c.json"
    argv = ["--features", labelled, "--out", str(out), "--non_mated", "5000", "--of", "match"]
    assert main([*argv, "--prior", "0.01"]) == 0
    text = capsys.readouterr().out
    assert "P(same person) at prior 0.01, on people that it was not fitted on: 2400 mat" in text
    table = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert float(table["labelled.npz"][-3]) < 0 > float(table["labelled.npz"][-1][:-1])
    fitted = Calibration.load(out)
    assert (fitted.same_person.prior, fitted.same_person.mated) == (0.01, 2400)
    assert 0.9 < fitted.same_person.probability(0.9, 0.1, 0.1, prior=0.5) < 1
    assert main([*argv, "--cap", "0", "--non_mated", "19"]) == 2
    assert "19 non-mated comparisons are too few for P(same person)" in capsys.readouterr().err


def test_labelled_embeddings_and_the_cap(labelled, tmp_path, capsys):
    argv = ["--features", labelled, "--out", str(tmp_path / "c.json"), "--non_mated", "5000"]
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("labelled: 2400 mated and 5000 non-mated")
    assert main([*argv, "--cap", "0", "--target_risk", "0.3"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("labelled: 5400 mated and 5000 non-mated")
    assert "no two share a person" in text


def test_a_calibration_of_another_method_is_not_in_the_way(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    argv = ["--model_dir", str(folder), "--target", "synthetic:pairs=60,seed=1", "--fmr", "0.1"]
    for method in ("embedding_norm", "trained_head"):
        assert main([*argv, "--estimator", method, "--device", "cpu"]) == 0
        assert Calibration.load(folder / "calibration.json").method == method


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give one of --model MODEL (a run folder, a packed or"),
        (["--model_dir", "a", "--features", "b"], "give one of --model MODEL"),
        (["--features", "none.npz"], "give --out FILE.json: there is no run to put"),
        (["--features", "none.npz", "--out", "c.json"], "no features or score file none.npz"),
        (["--model", "demo", "--out", "c"], "nothing to calibrate on: give --target NAME, such"),
        (
            ["--features", "x", "--out", "c", "--fmr", ".1", "--score_threshold", "1"],
            "--fmr and --score_threshold are two ways to set one threshold: give one",
        ),
        (
            ["--backbone_name", "mbf", "--out", "c", "--target", "synthetic:pairs=20"],
            "trained_head needs a run",
        ),
        (["--features", "two.npz", "--out", "c.json"], "two.npz: holds several uncertainties (co"),
    ],
)
def test_mistakes_are_one_line(argv, message, made_up, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    made_up(columns=2).save("two.npz")
    refused(main(argv), f"error: {message}", alone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["two.npz"]
