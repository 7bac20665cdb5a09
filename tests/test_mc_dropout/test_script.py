import json
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch

from estimators.mc_dropout import MCDropout
from evaluation.open_model import LoadedModel
from mc_dropout.verification_risk_mcdropout_fnmr import main
from models.frozen import FrozenBackbone
from models.load import load_backbone
from models.run import parse_backbone
from tests.helpers import TINY, TINY_NAME
from utils.config import Method, Verification

TARGET = "synthetic:pairs=24,seed=3"


@pytest.fixture
def frozen(tiny_weights):
    return FrozenBackbone(load_backbone(TINY, tiny_weights), "cpu")


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("iresnet50", Method("iresnet", depth=50)),
        ("iresnet100:embedding_size=256", Method("iresnet", depth=100, embedding_size=256)),
        ("mobilefacenet", Method("mobilefacenet")),
        (TINY_NAME, TINY),
    ],
)
def test_backbone_names(text, method):
    assert parse_backbone(text) == method


def test_backbone_options_that_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="mbf:3: expected name:option=value"):
        parse_backbone("mbf:3")


@pytest.mark.parametrize("batch_norm", [True, False])
def test_both_forms_on_a_real_tail(frozen, batch_norm):
    features = torch.randn(6, frozen.features_size, generator=torch.Generator().manual_seed(0))
    sampled = MCDropout(frozen, passes=3000, batch_norm=batch_norm).spread(features)
    closed = MCDropout(frozen, batch_norm=batch_norm, form="closed_form").spread(features)
    assert (closed / sampled - 1).abs().max() < 0.06


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_script_evaluates_and_stores(tiny_weights, tmp_path, capsys, form):
    flags = ["--backbone_name", TINY_NAME, "--resume_backbone", str(tiny_weights)]
    flags += ["--target", TARGET]
    flags += ["--passes", "8", "--form", form, "--batch_size", "16", "--device", "cpu"]
    out, features = tmp_path / "out.json", tmp_path / "features.npz"
    assert main([*flags, "--json", str(out), "--save_features", str(features)]) == 0
    printed = capsys.readouterr().out
    assert "reject_factor" in printed
    assert len(json.loads(out.read_text())["results"]) == 1
    stored = np.load(features)
    assert stored["sigma_sq"].shape == (48, 1)
    assert stored["sigma_sq"].min() > 0
    assert main(["--features", str(features)]) == 0


def test_a_model_gives_backbone_and_sets(frozen, monkeypatch, capsys):
    calls = []

    def open_model(spec, **options):
        calls.append((spec, options))
        kind = make_dataclass("Config", ["name", "sources", "verification"])
        config = kind("x", (), Verification(targets=(TARGET,)))
        given = {"frozen": frozen, "embedding_size": 16, "config": config}
        return LoadedModel(name="x", estimator=None, **given)

    monkeypatch.setattr("evaluation.open_model.open_model", open_model)
    assert main(["--model_dir", "runs/x", "--passes", "4", "--device", "cpu"]) == 0
    assert calls[0][0] == "runs/x"
    assert calls[0][1]["device"] == "cpu"
    assert TARGET in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "give --model MODEL (a run folder"),
        (["--backbone_name", "mbf"], "mbf needs backbone_weights"),
        (["--backbone_name", "resnet", "--resume_backbone", "x"], "unknown name 'resnet'"),
        (["--backbone_name", TINY_NAME, "--rate", "2"], "rate = 2.0"),
        (["--backbone_name", TINY_NAME, "--passes", "1"], "passes = 1"),
    ],
)
def test_mistakes_are_one_line(tiny_weights, refused, flags, text):
    if TINY_NAME in flags:
        flags = [*flags, "--resume_backbone", str(tiny_weights)]
    refused(main([*flags, "--target", TARGET, "--device", "cpu"]), text, alone=True)
