import json
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import flags
from data.features import Features
from data.verification import VerificationSet
from estimators.trained_head import TrainedHead
from evaluation.open_model import LoadedModel
from evaluation.run import EvaluationOptions
from evaluation.verification_risk_fnmr import main
from models.backbones.base import BackboneOutput
from utils.config import Method, Schedule, TrainConfig, Verification


def test_stored_features_give_the_originals_block(golden_dir, golden_texts, tmp_path, capsys):
    out, report = tmp_path / "deep" / "out.json", tmp_path / "report"
    features = str(golden_dir / "set_J.npz")
    code = main(["--features", features, "--json", str(out), "--report", str(report)])
    captured = capsys.readouterr()
    assert code == 0
    assert captured.out.startswith("---set_J\n" + golden_texts["J"]["fnmr_fixed"])
    assert "protocol original: cosine scores;" in captured.out
    assert "warning: set_J: at FMR 0.01, 280 non-mated pairs leave 2.8" in captured.err
    data = json.loads(out.read_text())
    assert data["results"][0]["text"] == golden_texts["J"]["fnmr_fixed"]
    names = sorted(path.name for path in report.iterdir())
    assert names == ["set_J-edc.png", "set_J.html", "set_J.json", "set_J.txt"]
    assert str(report / "set_J-edc.png") in captured.out


def test_protocol_and_sizes(golden_dir, golden_texts, made_up, tmp_path, capsys):
    assert main(["--features", str(golden_dir / "set_C.npz"), "--protocol=original-mcdropout"]) == 0
    assert golden_texts["C"]["mcdropout_max"] in capsys.readouterr().out
    path = tmp_path / "wide.npz"
    made_up(columns=4).save(path)
    assert main(["--features", str(path), "--sigma_sizes", "3,1"]) == 0
    assert "(columns 0-2):" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --model MODEL (a run folder, a packed or an exported model), --features FILE"),
        (["--features", "none.npz"], "no features or score file none.npz"),
        (["--features", "few.npz"], "few: 9 pairs; at least 10 are needed"),
        (["--features", "few.csv"], "few: 3 pairs; at least 10 are needed"),
        (["--features", "x.npz", "--protocol", "orignal"], "did you mean 'original'?"),
        (["--features", "x.npz", "--sigma_sizes", "8;1"], "--sigma_sizes 8;1: expected whole"),
        (["--features", "x.npz", "--sigma_sizes", "8,1"], "must be 1 or more each and add up to"),
        (["--features", "x.npz", "--report", "x.npz"], "names a folder, but a file is there"),
        (["--features", "x.npz", "--save_scores", "x.txt"], "x.txt: must end in .csv, .npz or"),
        (["--features", "x.npz", "--save_features", "y.npz"], "--save_features does not go with"),
        (["--features", "x.npz", "--target", "lfw"], "--target does not go with it"),
        (["--features", "x.npz", "--flip"], "--flip does not go with it"),
        (["--features", "x.npz", "--model_dir", "run"], "--model does not go with it"),
        (["--features", "x.npz", "--estimator", "sharpness"], "--estimator does not go with it"),
        (["--features", "x.npz", "--score", "mls"], "--score mls needs a variance of each image"),
        (["--features", "x.npz", "--fmr", "2"], "argument --fmr: '2' is not between 0 and"),
        (["--features", "x.npz", "--confidence", "1.5"], "--confidence: '1.5' is not between"),
        (["--features", "x.npz", "--replicates", "-5"], "'-5' is not a count of 0 or more"),
        (["--features", "x.npz", "--non_mated", "0"], "'0' is neither a count above 0 nor all"),
        (["--features", "x.npz", "--protocoll", "nist"], "did you mean --protocol"),
    ],
)
def test_mistakes_are_one_line(argv, message, made_up, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    made_up(pairs=20).save("x.npz")
    made_up(pairs=9).save("few.npz")
    Path("few.csv").write_text("score,mated,quality\n0.9,1,5\n0.1,0,4\n0.8,1,3\n")
    refused(lambda: main(argv), message, alone=True)


def fake_run(tiny_pairs, monkeypatch, **verification):
    """A run whose backbone gives colour means, with a set that needs no file."""

    def frozen(images):
        left = images.float()[:, :, :56].mean(dim=(1, 2)) + 1
        right = images.float()[:, :, 56:].mean(dim=(1, 2)) + 1
        return BackboneOutput(torch.cat([left, right], dim=1), left)

    class Head(torch.nn.Module):
        output = "probability"
        reads = "features"

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


def test_a_run_without_targets_says_what_to_give(tiny_pairs, monkeypatch, refused):
    fake_run(tiny_pairs, monkeypatch)
    refused(main(["--model_dir", "run"]), "nothing to evaluate: give --target NAME[,NAME]")


def test_stored_scores_as_an_estimator(tiny_pairs, monkeypatch, tmp_path, refused):
    fake_run(tiny_pairs, monkeypatch, targets=("lfw",))
    scores = tmp_path / "scores.csv"
    scores.write_text("".join(f"{row},{row}\n" for row in range(24)))
    saved = tmp_path / "f.npz"
    argv = ["--model_dir", "run", "--save_features", str(saved)]
    assert main([*argv, "--estimator", f"from_file:path={scores},orientation='uncertainty'"]) == 0
    np.testing.assert_array_equal(Features.load(saved).sigma_sq[:, 0], np.arange(24))
    assert main([*argv, "--estimator", "from_file:path=none.csv"]) == 2
    refused(main([*argv, "--estimator", "trained"]), "did you mean 'trained_head'?")


def test_split_targets_keeps_the_options_of_rendered_sets():
    text = "lfw, synthetic:pairs=600,seed=1,cfp_fp"
    assert flags.split_targets(text) == ["lfw", "synthetic:pairs=600,seed=1", "cfp_fp"]
    parts = ["synthetic:pairs=600,seed=1", "faces:synthetic:identities=9", "synthetic:pairs=20"]
    assert flags.split_targets(",".join(parts)) == parts


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


def test_likelihood_scores_need_a_head_that_gives_variances(tiny_pairs, monkeypatch, refused):
    fake_run(tiny_pairs, monkeypatch, targets=("lfw",))
    refused(main(["--model_dir", "run", "--score", "mls"]), "trained with the loss fast_mls or mls")
