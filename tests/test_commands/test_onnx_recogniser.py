"""One recogniser as .pth and as .onnx: training and every command give the same from both."""

import json
import re

import numpy as np
import pytest

import network
from data.images import encode_png
from estimators.base import Batch
from estimators.onnx import OnnxModel
from evaluation import calibrate, compare
from evaluation.open_model import open_model
from evaluation.verification_risk_fnmr import main as evaluate
from export import export, pack_model
from extraction import extract
from scoring import score_images
from utils.config import load_config

FACES = "synthetic:pairs=40,seed=9"
CONFIG = """
from utils.config import Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="r",
    backbone=Method({backbone}),
    backbone_weights={weights!r},
    head=Method("fc2", output="probability", hidden=8, log_norm=1.0, dropout=0.4),
    loss=Method("idq", margin=0.45),
    train_images="synthetic:identities=8,images=4,seed=1",
    classes_per_batch=4,
    images_per_class=3,
    schedule=Schedule(epochs=1, steps_per_epoch=4, lr=1e-2),
    verification=Verification(targets=({faces!r},)),
    log_every=2,
    workers=1,
    device="cpu",
)
"""
TINY = '"iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16'


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_weights, tiny_onnx):
    """Folders of two runs, on the .pth file and on the .onnx file."""
    folder = tmp_path_factory.mktemp("runs")
    own = '"onnx", features="/backbone/bn2/BatchNormalization_output_0"'
    for kind, backbone, weights in (("pth", TINY, tiny_weights), ("onnx", own, tiny_onnx)):
        file = folder / f"{kind}.py"
        file.write_text(CONFIG.format(backbone=backbone, weights=str(weights), faces=FACES))
        assert network.main(["--config_file", str(file), "--model_dir", str(folder / kind)]) == 0
    return folder / "pth", folder / "onnx"


def numbers(text):
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", text)]


def test_training_goes_the_same_way(runs):
    theirs, own = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in runs
    )
    assert len(own) == len(theirs) > 2
    assert "16 numbers; heads read" in (runs[1] / "log.txt").read_text()
    losses = [[line[key] for key in sorted(line) if "loss" in key] for line in (*own, *theirs)]
    assert any(losses)
    np.testing.assert_allclose(
        sum(losses[: len(own)], []), sum(losses[len(own) :], []), rtol=1e-4, atol=1e-5
    )


def test_tables_are_the_same(runs, tiny_weights, tiny_onnx, capsys):
    tables = []
    pth = ["--backbone_name", f"iresnet:{TINY.partition(', ')[2].replace(', ', ',')}"]
    for flags in (
        ["--model_dir", str(runs[0])],
        ["--model_dir", str(runs[1])],
        [*pth, "--backbone_weights", str(tiny_weights), "--estimator", "embedding_norm"],
        ["--backbone_weights", str(tiny_onnx), "--estimator", "embedding_norm"],
    ):
        assert evaluate([*flags, "--target", FACES, "--fmr", "0.1", "--device", "cpu"]) == 0
        tables.append(numbers(capsys.readouterr().out))
    assert len(tables[0]) > 20
    np.testing.assert_allclose(tables[1], tables[0], atol=2e-3)
    np.testing.assert_allclose(tables[3], tables[2], atol=2e-3)


def test_it_is_packed_and_exported_as_one_file(runs, faces, tmp_path, refused):
    packed, exported = tmp_path / "m.pt", tmp_path / "m.onnx"
    flags = ["--model_dir", str(runs[1]), "--license", "MIT", "--out", str(packed)]
    assert pack_model.main([*flags, "--device", "cpu"]) == 0
    for model in (str(packed), str(runs[1])):
        exported.unlink(missing_ok=True)
        checked = ["--check", FACES, "--faces", "33", "--runs", "0"]
        assert export.main(["--model", model, "--out", str(exported), *checked]) == 0
    assert str(runs[1].parent).encode() not in packed.read_bytes() + exported.read_bytes()
    expected = open_model(runs[0], device="cpu").estimator(Batch(faces))
    for model in (runs[1], packed, exported):
        mu, sigma_sq = open_model(model, device="cpu").estimator(Batch(faces))
        np.testing.assert_allclose(mu, expected.mu, atol=1e-5)
        np.testing.assert_allclose(sigma_sq, expected.sigma_sq, rtol=1e-3)
    assert OnnxModel(exported).outputs[:2] == ("embedding", "uncertainty")
    refused(pack_model.main([*flags, "--half"]), "--half")


def test_the_joined_file_has_a_form_of_8_bits(runs, faces, tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for number in range(16):
        (folder / f"{number}.png").write_bytes(encode_png(faces[number % len(faces)]))
    flags = ["--model", str(runs[1]), "--out", str(tmp_path / "m.onnx"), "--faces", "33"]
    flags += ["--int8", "--calibration_faces", str(folder), "--check", FACES, "--runs", "0"]
    assert export.main(flags) in (0, 2)  # 2: an untrained network may lose too much


def test_a_recogniser_of_one_batch_size_is_not_joined(runs, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(
        "models.onnx_graph._any_batch",
        lambda graph, _, names, images, __: (graph.with_outputs(names), len(images)),
    )
    code = export.main(["--model", str(runs[1]), "--out", str(tmp_path / "m.onnx")])
    refused(code, "batches of 1 alone: export it again")


def test_every_command_takes_the_file_alone(tiny_onnx, faces, tmp_path, refused):
    photos = tmp_path / "photos"
    (photos / "person").mkdir(parents=True)
    for number, face in enumerate(faces):
        (photos / "person" / f"{number}.png").write_bytes(encode_png(face))
    own = ["--backbone_weights", str(tiny_onnx), "--device", "cpu"]
    target = ["--target", FACES, "--fmr", "0.1"]
    dropout = "mc_dropout:form=closed_form"
    assert compare.main([*own, *target, "--methods", "embedding_norm", dropout]) == 0
    norm, made = ["--estimator", "embedding_norm"], str(tmp_path / "c.json")
    assert calibrate.main([*own, *target, *norm, "--out", made]) == 0
    shards = ["--images", str(photos), "--out", str(tmp_path / "e")]
    assert extract.main([*own, *shards]) == 0
    rows = ["--model", "embedding_norm", "--out", str(tmp_path / "s.csv"), "--aligned", "yes"]
    assert score_images.main([str(photos), *own, *rows]) == 0
    refused(evaluate(["--model", str(tiny_onnx), *target]), "goes into backbone_weights")


def test_the_example_config_names_it():
    config = load_config("config/config_onnx_idq.py")
    assert (config.backbone.name, config.backbone_weights[-5:]) == ("onnx", ".onnx")
