import json
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch

from data.features import Features
from data.verification import VerificationSet
from estimators.trained_head import TrainedHead
from evaluation import flags
from evaluation.open_model import LoadedModel
from evaluation.run import EvaluationOptions
from evaluation.verification_risk_fnmr import main
from models.output import BackboneOutput
from utils.config import Method, Schedule, TrainConfig, Verification

ROOT = Path(__file__).parents[2]


def test_stored_features_give_the_originals_block(golden_dir, golden_texts, tmp_path, capsys):
    out, report = tmp_path / "deep" / "out.json", tmp_path / "report"
    code = main(
        ["--features", str(golden_dir / "set_J.npz"), "--json", str(out), "--report", str(report)]
    )
    captured = capsys.readouterr()
    assert code == 0
    assert captured.out.startswith("---set_J\n" + golden_texts["J"]["fnmr_fixed"])
    assert "protocol original: cosine scores;" in captured.out
    assert captured.err.startswith("warning: set_J: at FMR 0.01, 280 non-mated pairs leave 2.8")
    data = json.loads(out.read_text())
    assert data["results"][0]["text"] == golden_texts["J"]["fnmr_fixed"]
    assert sorted(path.name for path in report.iterdir()) == [
        "set_J-edc.png",
        "set_J.html",
        "set_J.json",
        "set_J.txt",
    ]
    assert str(report / "set_J-edc.png") in captured.out


def test_protocol_and_sizes(golden_dir, golden_texts, made_up, tmp_path, capsys):
    assert main(["--features", str(golden_dir / "set_C.npz"), "--protocol=original-mcdropout"]) == 0
    assert golden_texts["C"]["mcdropout_max"] in capsys.readouterr().out
    path = tmp_path / "wide.npz"
    made_up(columns=4).save(path)
    assert main(["--features", str(path), "--sigma_sizes", "3,1"]) == 0
    assert "(columns 0-2):" in capsys.readouterr().out


def degenerate(made_up, case):
    features = made_up(pairs=9 if case == "few" else 20)
    arrays = {"mu": features.mu, "sigma_sq": features.sigma_sq, "issame": features.issame}
    if case == "nan":
        arrays["sigma_sq"] = features.sigma_sq * np.nan
    elif case in ("mated", "non-mated"):
        arrays["issame"] = np.full(20, case == "mated")
    elif case == "array":
        del arrays["issame"]
    return arrays


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("few", "error: x: 9 pairs; at least 10 are needed"),
        ("nan", "x.npz: sigma_sq has 40 of 40 values that are NaN or infinite"),
        ("mated", "error: x: no non-mated pair among 20; error rates need both kinds"),
        ("non-mated", "error: x: no mated pair among 20; error rates need both kinds"),
        ("array", "x.npz: mu and sigma_sq need issame"),
    ],
)
def test_no_result_is_one_line_and_exit_code_2(case, message, made_up, tmp_path, capsys):
    path = tmp_path / "x.npz"
    np.savez(path, **degenerate(made_up, case))
    assert main(["--features", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert message in captured.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "error: give --model MODEL (a run folder, a packed"),
        (["--features", "none.npz"], "error: no features or score file none.npz\n"),
        (["--features", "x.npz", "--protocol", "orignal"], "did you mean 'original'?"),
        (
            ["--features", "x.npz", "--sigma_sizes", "8;1"],
            "error: --sigma_sizes 8;1: expected whol",
        ),
        (
            ["--features", "x.npz", "--sigma_sizes", "8,1"],
            "must be 1 or more each and add up to the",
        ),
        (["--features", "x.npz", "--report", "x.npz"], "error: "),
        (["--model_dir", "nowhere"], "error: no model nowhere: give a run folder"),
    ],
)
def test_mistakes_are_one_line(argv, message, made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_up(pairs=20).save("x.npz")
    assert main(argv) == 2
    err = capsys.readouterr().err.splitlines()
    assert message.rstrip("\n") in err[-1]
    assert sum(line.startswith("error: ") for line in err) == 1


def test_the_script_runs_as_a_file_from_anywhere(golden_dir, golden_texts, tmp_path):
    script = ROOT / "evaluation" / "verification_risk_fnmr.py"
    command = [sys.executable, str(script), "--features", str(golden_dir / "set_D.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("---set_D\n" + golden_texts["D"]["fnmr_fixed"])
    assert "Traceback" not in done.stderr


def fake_run(tiny_pairs, monkeypatch, **verification):
    """A run whose backbone gives colour means, with a set that needs no file."""

    def frozen(images):
        left = images.float()[:, :, :56].mean(dim=(1, 2)) + 1
        right = images.float()[:, :, 56:].mean(dim=(1, 2)) + 1
        return BackboneOutput(torch.cat([left, right], dim=1), left)

    class Head(torch.nn.Module):
        output = "probability"

        def forward(self, output):
            return output.features[:, :1] / 100

    config = TrainConfig(
        name="fake",
        train_images="faces",
        backbone=Method("iresnet"),
        backbone_weights="b.pth",
        head=Method("fc2"),
        loss=Method("idq"),
        schedule=Schedule(epochs=1, steps_per_epoch=1, lr=0.1),
        verification=Verification(**verification),
    )
    frozen.embedding_size = 6
    head = Head()
    model = LoadedModel(
        name="fake",
        estimator=TrainedHead(frozen=frozen, head=head),
        frozen=frozen,
        head=head,
        embedding_size=6,
        config=config,
    )
    calls = []

    def open_model(spec, **options):
        calls.append((spec, options))
        return model

    def open_verification(target, dataset_path):
        calls.append((target, dataset_path))
        return VerificationSet(target, list(tiny_pairs.decode(0, 24)), tiny_pairs.mated)

    monkeypatch.setattr("evaluation.sets.open_set.open_verification", open_verification)
    monkeypatch.setattr("evaluation.open_model.open_model", open_model)
    return calls


def test_a_run_is_evaluated_on_its_own_targets(tiny_pairs, monkeypatch, tmp_path, capsys):
    calls = fake_run(tiny_pairs, monkeypatch, targets=("lfw", "cfp_fp"), dataset_path="sets")
    saved, report = tmp_path / "f.npz", tmp_path / "report"
    argv = ["--model_dir", "run", "--save_features", str(saved), "--report", str(report)]
    assert main([*argv, "--device", "cpu", "--backbone_weights", "b.pth"]) == 0
    assert calls[0][0] == "run"
    assert calls[0][1]["device"] == "cpu"
    assert calls[0][1]["backbone_weights"] == "b.pth"
    assert calls[1:] == [("lfw", "sets"), ("cfp_fp", "sets")]
    out = capsys.readouterr().out
    assert out.index("---lfw\n") < out.index("---cfp_fp\n")
    assert (report / "cfp_fp-faces.png").is_file()
    features = Features.load(tmp_path / "f-lfw.npz")
    assert features.mu.shape == (24, 6)
    assert (features.sigma_sq > 0.5).all()


def test_flags_win_over_the_runs_config(tiny_pairs, monkeypatch, tmp_path):
    calls = fake_run(tiny_pairs, monkeypatch, targets=("lfw",), dataset_path="sets")
    saved = tmp_path / "f.npz"
    argv = ["--model_dir", "run", "--target", "agedb_30", "--dataset_path", "mine", "--flip"]
    argv += ["--estimator", "embedding_norm", "--save_features", str(saved), "--batch_size", "7"]
    assert main(argv) == 0
    assert calls[1:] == [("agedb_30", "mine")]
    features = Features.load(saved)
    np.testing.assert_allclose(np.linalg.norm(features.mu, axis=1), 1, rtol=1e-5)  # --flip
    assert (features.sigma_sq < 0).all()  # the norm


def test_a_run_without_targets_says_what_to_give(tiny_pairs, monkeypatch, capsys):
    fake_run(tiny_pairs, monkeypatch)
    assert main(["--model_dir", "run"]) == 2
    assert "nothing to evaluate: give --target NAME[,NAME]" in capsys.readouterr().err


def test_stored_scores_as_an_estimator(tiny_pairs, monkeypatch, tmp_path, capsys):
    fake_run(tiny_pairs, monkeypatch, targets=("lfw",))
    scores = tmp_path / "scores.csv"
    scores.write_text("".join(f"{row},{row}\n" for row in range(24)))
    saved = tmp_path / "f.npz"
    argv = ["--model_dir", "run", "--save_features", str(saved)]
    assert main([*argv, "--estimator", f"from_file:path={scores},orientation='uncertainty'"]) == 0
    np.testing.assert_array_equal(Features.load(saved).sigma_sq[:, 0], np.arange(24))
    assert main([*argv, "--estimator", "from_file:path=none.csv"]) == 2
    assert main([*argv, "--estimator", "trained"]) == 2
    assert "did you mean 'trained_head'?" in capsys.readouterr().err


def test_split_targets_keeps_the_options_of_rendered_sets():
    text = "lfw, synthetic:pairs=600,seed=1,cfp_fp"
    assert flags.split_targets(text) == ["lfw", "synthetic:pairs=600,seed=1", "cfp_fp"]
    text = "synthetic:pairs=600,seed=1,faces:synthetic:identities=9,synthetic:pairs=20"
    assert flags.split_targets(text) == [
        "synthetic:pairs=600,seed=1",
        "faces:synthetic:identities=9",
        "synthetic:pairs=20",
    ]


def test_what_is_left_open_comes_from_the_config():
    parser = ArgumentParser()
    flags.add_evaluation_flags(parser)
    options = flags.read_evaluation(parser.parse_args([]))
    assert options == EvaluationOptions(table_only=True, fmr=[1e-3])
    assert options.protocols_of(has_pairs=True)[0].name == "original"
    verification = Verification(batch_size=7, flip=True, protocol="original-mcdropout")
    completed = options.completed(verification)
    assert (completed.batch_size, completed.flip) == (7, True)
    assert completed.protocols_of(has_pairs=True)[0].name == "original-mcdropout"
    assert completed.protocols_of(has_pairs=False)[0].name == "iso29794"


def test_a_report_folder_that_is_a_file_and_a_target_beside_features_are_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "f.npz"
    np.savez(path, mu=np.ones((40, 2)), sigma_sq=np.ones((40, 1)), issame=np.arange(20) % 2)
    assert main(["--features", str(path), "--report", str(tmp_path / "file")]) == 2
    assert "names a folder, but a file is there" in capsys.readouterr().err
    assert main(["--features", str(path), "--target", "lfw"]) == 2
    assert "has its own pairs and uncertainties; --target does not" in capsys.readouterr().err


def test_pickled_objects_in_a_features_file_are_refused(tmp_path, capsys):
    path = tmp_path / "evil.npz"
    mu = np.array([{}] * 40, dtype=object)
    np.savez(path, mu=mu, sigma_sq=np.ones((40, 1)), issame=np.zeros(20))
    assert main(["--features", str(path)]) == 2
    assert "evil.npz: array mu holds pickled objects: refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--score", "mls"], "--score mls needs a variance of each image"),
        (["--flip"], "--flip does not go with it"),
        (["--model_dir", "run"], "--model does not go with it"),
        (["--estimator", "sharpness"], "--estimator does not go with it"),
        (["--save_features", "x.npz"], "--save_features does not go with it"),
        (["--save_scores", "x.txt"], "--save_scores x.txt: must end in .csv, .npz or .parquet"),
    ],
)
def test_flags_that_stored_files_cannot_follow_are_refused(flags, message, golden_dir, capsys):
    assert main(["--features", str(golden_dir / "set_J.npz"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_likelihood_scores_need_a_head_that_gives_variances(tiny_pairs, monkeypatch, capsys):
    fake_run(tiny_pairs, monkeypatch, targets=("lfw",))
    assert main(["--model_dir", "run", "--score", "mls"]) == 2
    assert "trained with the loss fast_mls or mls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--fmr", "2"], "error: argument --fmr: '2' does not lie between 0 and 1"),
        (["--confidence", "1.5"], "argument --confidence: '1.5' does not lie between 0 and 1"),
        (["--replicates", "-5"], "argument --replicates: '-5' is not a count of 0 or more"),
        (["--non_mated", "0"], "argument --non_mated: '0' is neither a count above 0 nor all"),
        (["--protocoll", "nist"], "unrecognized arguments: --protocoll nist; did you mean --proto"),
    ],
)
def test_flags_that_cannot_be_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--features", "x.npz", *flags])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_handful_of_scores_is_refused(tmp_path, capsys):
    path = tmp_path / "three.csv"
    path.write_text("score,mated,quality\n0.9,1,5\n0.1,0,4\n0.8,1,3\n")
    assert main(["--features", str(path)]) == 2
    assert "error: three: 3 pairs; at least 10 are needed" in capsys.readouterr().err
