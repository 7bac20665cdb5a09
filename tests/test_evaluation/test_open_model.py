"""What can be opened as a model, and what its header says."""

import dataclasses
import hashlib
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.synthetic import SyntheticFaces
from data.verification import write_bin
from estimators.base import DIRECTION, Batch
from evaluation import calibrate, compare, fit_fusion, verification_risk_fnmr
from evaluation.confidence.calibration import Calibration, Decision
from evaluation.open_model import DEMO, LoadedModel, named, open_model, open_models
from evaluation.sets.open_set import open_set
from export import export, pack_model
from export.graph import write_onnx
from export.onnx_export import exported_network, facts
from extraction import extract
from models.run import About, load_run, save_packed
from scoring import score_images
from scoring.scorer import load_scorer
from tests.helpers import TINY_NAME, python
from utils.config import Branch, Method

ABOUT = About(
    name="packed one", license="unknown, research only", source="", sha256="ab" * 32,
    label="DEMO: made-up faces", colour_check=None, created="2026-01-31", version="1",
)  # fmt: skip
RENDERED = "synthetic:identities=8,images=3,seed=5"
FACES = f"faces:{RENDERED}"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def calibrated(write_run, tmp_path, calibration):
    folder = write_run(tmp_path / "calibrated", "variance")
    calibration.save(folder / "calibration.json")
    return folder


def test_a_run_folder(run, faces):
    model = open_model(run, device="cpu")
    assert model.name == "tiny"
    assert (model.calibration, model.decision) == (None, None)
    assert model.provenance.to_dict() == {
        "model": str(run),
        "sha256": sha256(run / "best.pt"),
        "license": "",
        "label": "",
        "direction": DIRECTION,
        "output": "probability",
        "backbone_sha256": sha256(run / "backbone.pth"),
    }
    assert model.fusion == "quality"
    assert model.header() == (
        f"model tiny (SHA-256 {sha256(run / 'best.pt')[:12]}...); uncertainty: larger = less "
        "reliable; not calibrated, so no quality, percentile or verdict: run "
        f"evaluation/calibrate.py --model_dir {run} --dataset_path DIR --target lfw"
    )
    assert model.estimator(Batch(faces)).mu.shape == (7, 16)


def test_a_calibrated_run_says_where_its_limits_lie(calibrated, calibration):
    model = open_model(str(calibrated), device="cpu")
    assert model.fusion == "inverse_variance"
    assert model.calibration.to_dict() == calibration.to_dict()
    assert model.decision == Decision.from_calibration(calibration)
    accept, refuse = model.decision.accept_up_to, model.decision.refuse_above
    assert refuse is None
    assert model.header().endswith(
        "; uncertainty: larger = less reliable; quality: 0 to 100, 100 = best, 255 = could not be "
        "computed; score threshold 0.5 as given on made-up (FMR "
        f"{calibration.false_matches}, FNMR {calibration.false_non_matches}); accept uncertainty "
        f"<= {accept:.6g}, refuse none, between them ask again ({model.decision.rule})"
    )
    strict = dataclasses.replace(model, decision=Decision(None, 0.75, "strict"))
    assert strict.header().endswith("; accept none, refuse > 0.75, between them ask again (strict)")


def test_a_stored_decision_is_taken(calibrated, calibration):
    certified = Decision(0.2, 0.9, "FNMR of at most 0.01")
    dataclasses.replace(calibration, decision=certified).save(calibrated / "calibration.json")
    assert open_model(calibrated, device="cpu").decision == certified


def test_a_calibration_of_one_s_own(run, calibration, tmp_path):
    calibration.save(tmp_path / "other.json")
    scorer = load_scorer(run, device="cpu", calibration=tmp_path / "other.json")
    assert scorer.model.calibration.to_dict() == calibration.to_dict()


def test_a_calibration_of_another_method_is_refused(calibrated, calibration):
    file = calibrated / "calibration.json"
    dataclasses.replace(calibration, method="embedding_norm").save(file)
    expected = (
        f"{file} says what the uncertainties of embedding_norm mean, not those of trained_head: "
        "make one with evaluation/calibrate.py --estimator trained_head"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        open_model(calibrated, device="cpu")
    dataclasses.replace(calibration, method="scores.csv").save(file)
    assert open_model(calibrated, device="cpu").calibration.method == "scores.csv"
    file.write_text('{"version": 7}')
    with pytest.raises(ValueError, match=re.escape(f"{file}: version 7 of a calibration")):
        open_model(calibrated, device="cpu")


def test_a_calibration_is_that_of_its_model(write_run, faces, tmp_path, capsys):
    runs = {name: write_run(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2))}
    weights = torch.load(runs["a"] / "backbone.pth")
    torch.save({name: tensor * 1.01 for name, tensor in weights.items()}, tmp_path / "other.pth")
    runs["c"] = write_run(tmp_path / "c", seed=1, weights=tmp_path / "other.pth")
    own, small, file = tmp_path / "a.pt", tmp_path / "a.onnx", tmp_path / "mine.json"
    model = open_model(runs["a"], device="cpu")
    save_packed(own, model.run, dataclasses.replace(ABOUT, sha256=model.run.sha256))
    write_onnx(small, exported_network(model), facts(model), "")
    argv = ["--target", "synthetic:pairs=120,seed=1", "--fmr", "0.1", "--device", "cpu"]
    argv += ["--of", "match", "--prior", "0.3"]
    for spec in (runs["a"], own, small):
        assert calibrate.main(["--model", str(spec), *argv, "--out", str(file)]) == 0
        for same in (runs["a"], own, small):
            scorer = load_scorer(same, device="cpu", calibration=file)
            assert scorer.model.calibration.same_person.prior == 0.3
        assert calibrate.main(["--model", str(own), *argv, "--out", str(tmp_path / "new.pt")]) == 0
        same = load_scorer(tmp_path / "new.pt", device="cpu").compare(faces[0], faces[0], prior=0.9)
        assert 0.9 < same.p_same_person < 1
        for name, part in (("b", "its head"), ("c", "its backbone")):
            expected = (
                f"{file} is the calibration of another model than {runs[name]} (SHA-256 of {part}"
            )
            with pytest.raises(ValueError, match=re.escape(expected)) as error:
                load_scorer(runs[name], device="cpu", calibration=file)
            assert f"run evaluation/calibrate.py --model_dir {runs[name]}" in str(error.value)
    with pytest.raises(ValueError, match=re.escape(f"another model than {DEMO}")):
        load_scorer("demo", device="cpu", calibration=file)
    out, license = ("--out", str(tmp_path / "b.pt")), ("--license", "MIT")
    flags = ["--model", str(runs["b"]), *out, *license, "--device", "cpu"]
    assert pack_model.main([*flags, "--calibration", str(file)]) == 2
    assert f"another model than {runs['b']}" in capsys.readouterr().err
    shutil.copy(file, runs["a"] / "calibration.json")
    shutil.copy(runs["b"] / "best.pt", runs["a"] / "best.pt")  # as after more epochs
    with pytest.raises(ValueError, match=r"a/calibration.json is the calibration of another model"):
        open_model(runs["a"], device="cpu")
    assert calibrate.main(["--model", str(runs["a"]), *argv]) == 0
    assert open_model(runs["a"], device="cpu").decision is not None
    backbone = {"device": "cpu", "backbone_name": TINY_NAME}
    norm = ["--estimator", "embedding_norm", "--out", str(file), *argv]
    assert calibrate.main(["--model", str(runs["a"]), *norm]) == 0
    files = (runs["b"] / "backbone.pth", tmp_path / "other.pth")
    models = [open_model("embedding_norm", **backbone, backbone_weights=path) for path in files]
    fitted = Calibration.load(file)
    assert models[0].with_calibration(fitted, file).decision is not None
    with pytest.raises(ValueError, match="its backbone"):
        models[1].with_calibration(fitted, file)


@pytest.fixture
def packed(calibrated, calibration, tmp_path):
    run = load_run(calibrated, device="cpu")
    save_packed(tmp_path / "model.pt", run, ABOUT, calibration.to_dict())
    return tmp_path / "model.pt"


def test_a_packed_model_is_the_run_in_one_file(packed, calibrated, faces):
    model = open_model(packed, device="cpu")
    assert model.provenance.license == "unknown, research only"
    assert model.provenance.output == "variance"
    assert model.header().startswith(
        f"model packed one (SHA-256 {sha256(packed)[:12]}...); DEMO: made-up faces; uncertainty: "
    )
    found, expected = (
        model.estimator(Batch(faces)),
        open_model(calibrated, device="cpu").estimator(Batch(faces)),
    )
    np.testing.assert_array_equal(found.mu, expected.mu)
    np.testing.assert_array_equal(found.sigma_sq, expected.sigma_sq)
    assert model.decision == Decision.from_calibration(model.calibration)
    remedy = f"calibrate.py --model {packed} --target faces:FOLDER --out FILE.json"
    assert remedy in dataclasses.replace(model, calibration=None).header()


def test_the_demo_is_labelled(faces):
    scorer = load_scorer("demo", device="cpu")
    assert "DEMO" in scorer.model.header()
    assert "\n" not in scorer.model.header()
    result = scorer(faces)
    assert ((result.quality <= 100) & np.isfinite(result.uncertainty)).all()


@pytest.mark.parametrize("stored", [None, {"accept_up_to": 0.1, "refuse_above": 0.2, "rule": "r"}])
def test_an_exported_model(monkeypatch, calibration, tmp_path, stored):
    path = tmp_path / "small.onnx"
    path.write_bytes(b"of the test")
    fake = SimpleNamespace(
        about={"name": "whole", "sha256": "cd" * 32, "direction": DIRECTION, "output": "variance"},
        calibration=calibration.to_dict(),
        decision=stored,
        embedding_size=4,
    )
    monkeypatch.setattr("estimators.onnx.OnnxModel", lambda path: fake)
    model = open_model(path)
    assert model.name == "whole"
    assert model.provenance.model == str(path)
    hashes = (model.provenance.sha256, model.provenance.exported_from)
    assert hashes == (sha256(path), "cd" * 32)
    expected = Decision.from_calibration(calibration) if stored is None else Decision(**stored)
    assert model.decision == expected
    assert model.fusion == "inverse_variance"
    fake.calibration = {"version": 7}
    with pytest.raises(ValueError, match=re.escape(f"{path}: its calibration: version 7 of a ca")):
        open_model(path)


def test_an_estimator_without_training(run, calibration, faces, tmp_path):
    weights = run / "backbone.pth"
    backbone = {"backbone_name": TINY_NAME, "backbone_weights": weights, "device": "cpu"}
    model = open_model("embedding_norm", **backbone)
    assert model.fusion == "norm"
    assert model.header().endswith(
        "run evaluation/calibrate.py --backbone_name ... --estimator embedding_norm --out FILE"
    )
    scorer = load_scorer("embedding_norm", **backbone)
    result = scorer(faces)
    np.testing.assert_allclose(
        result.uncertainty, -np.linalg.norm(result.embeddings, axis=1), rtol=1e-6
    )
    joint = result.embeddings.sum(axis=0)  # MagFace's rule: raw embeddings are added
    np.testing.assert_allclose(
        scorer.fuse(result).embedding, joint / np.linalg.norm(joint), rtol=1e-4, atol=1e-6
    )
    assert open_model("sharpness", **backbone).fusion == "mean"
    calibration.save(tmp_path / "c.json")
    with pytest.raises(ValueError, match="trained_head mean, not those of embedding_norm: make on"):
        open_model("embedding_norm", **backbone, calibration=tmp_path / "c.json")
    dataclasses.replace(calibration, method="embedding_norm").save(tmp_path / "c.json")
    opened = open_model("embedding_norm", **backbone, calibration=tmp_path / "c.json")
    assert opened.decision is not None


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("nowhere", {}, "no model nowhere: give a run folder of network.py"),
        ("dmeo", {}, "no model dmeo (did you mean 'demo'?)"),
        ("embeding_norm", {}, "(did you mean 'embedding_norm'?)"),
        ("r50", {}, "(r50 is a backbone: give it as --backbone_name, with an estimator)"),
        ("nowhere/run", {}, "(there is no folder nowhere)"),
        ("{folder}/tinny", {}, "(did you mean {folder}/tiny?)"),
        ("{folder}/tiny/best.pt", {}, "is not a packed model but the checkpoint of a run (name"),
        ("{folder}/tiny/backbone.pth", {}, "(weights of a backbone go into --backbone_weights, be"),
        ("{folder}", {}, "best.pt is missing (train with network.py)"),
        ("demo", {"backbone_weights": "w"}, "backbone_weights = w goes with a run folder or"),
        ("demo", {"backbone_name": "mbf"}, "demo has a backbone of its own: --backbone_name mbf"),
        ("ser_fiq", {}, "ser_fiq needs a backbone: give backbone_name with"),
        ("ser_fiq", {"backbone_name": "mbf"}, "backbone_name = mbf needs backbone_weights"),
        ("ser_fiq", {"backbone_name": "r50", "backbone_weights": "w"}, "did you mean 'iresnet50'?"),
        (
            "trained_head",
            {},
            "or give --model_dir; for a recogniser alone, --estimator embedding_norm",
        ),
        ("{folder}/tiny", {"calibration": "c.json"}, "no calibration file c.json"),
    ],
)
def test_what_is_not_a_model(spec, options, message, run):
    folder = str(run.parent)
    with pytest.raises(ValueError, match=re.escape(message.replace("{folder}", folder))):
        open_model(spec.replace("{folder}", folder), **options)


def test_an_exported_model_and_a_file_of_scores_need_no_pytorch(onnx_file, tmp_path):
    (tmp_path / "s.csv").write_text("name,quality\na,1\n")
    program = (
        "import sys\n"
        "from evaluation.open_model import open_model\n"
        f"assert open_model({str(onnx_file)!r}).embedding_size > 0\n"
        f"open_model({str(tmp_path / 's.csv')!r})\n"
        "print('torch' in sys.modules)"
    )
    done = python("-c", program)
    assert done.stdout == "False\n", done.stderr


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory):
    """The demo, exported."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, demo = tmp_path_factory.mktemp("exported") / "demo.onnx", open_model("demo", device="cpu")
    write_onnx(path, exported_network(demo), facts(demo), "")
    return path


@pytest.fixture(scope="session")
def kinds(run, write_run, onnx_file, tmp_path_factory):
    """Each kind of model with the flags that it needs, over rendered faces of one set."""
    folder = tmp_path_factory.mktemp("kinds")
    head = Method("fc2", output="probability", hidden=4)
    branches = [Branch(name, head=head, loss=Method("idq")) for name in ("one", "two")]
    branches = write_run(folder / "branches", branches=branches)
    scores = folder / "scores.csv"
    names = open_set(FACES).images
    lines = [f"{names.image_name(row)},{row}" for row in range(len(names))]
    scores.write_text("\n".join(["name,quality", *lines]))
    save_packed(folder / "model.pt", load_run(run, device="cpu"), ABOUT)
    backbone = ["--backbone_name", TINY_NAME, "--backbone_weights", str(run / "backbone.pth")]
    return {
        "run": [str(run)],
        "branch": [str(branches / "two")],
        "branches": [str(branches)],
        "packed": [str(folder / "model.pt")],
        "onnx": [str(onnx_file)],
        "demo": ["demo"],
        "estimator": ["embedding_norm", *backbone],
        "scores": [str(scores), *backbone],
        "scores alone": [str(scores)],
    }


BRANCHES = "is a run of 2 branches: one, two; name one"
UNTRAINED = "has no trained head: name a run folder or a packed model"
PHOTOS = "looks up the images of a set by name, so it cannot score photos"
BARE = "gives no embeddings to compare faces with: give --backbone_name"
REFUSED = {
    **{("branches", one): BRANCHES for one in ("evaluate", "calibrate", "score", "export", "fuse")},
    **{("scores alone", name): BARE for name in ("evaluate", "compare", "calibrate", "extract")},
    **{(kind, "score"): PHOTOS for kind in ("scores", "scores alone")},
    **{(kind, "export"): "run or packed model with a trained" for kind in ("onnx", "scores alone")},
    **{(kind, "fuse"): UNTRAINED for kind in ("onnx", "scores alone")},
}
COMMANDS = {
    "evaluate": (verification_risk_fnmr.main, "--model", f"--target {FACES}"),
    "compare": (compare.main, "--methods", f"--target {FACES} --replicates 20"),
    "calibrate": (calibrate.main, "--model", f"--target {FACES} --out calibration.json"),
    "extract": (extract.main, "--methods", f"--images {RENDERED} --out shards"),
    "score": (score_images.main, "--model", "faces.bin --out scores.csv"),
    "export": (export.main, "--model", "--out m.onnx --check synthetic:pairs=20 --runs 0"),
    "fuse": (fit_fusion.main, "--model", f"--faces {RENDERED} --out fusion.json"
             " --of trained_head embedding_norm"),
}  # fmt: skip
KINDS = (
    *("run", "branch", "branches", "packed", "onnx"),
    *("demo", "estimator", "scores", "scores alone"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_works_in_each_command_or_is_refused_in_one_line(
    kind, command, kinds, photos, tmp_path, monkeypatch, capsys, refused
):
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    main, flag, flags = COMMANDS[command]
    model = kinds[kind]
    if command in ("export", "fuse") and len(model) > 1:
        model, words = model[:1], REFUSED[("scores alone", command)]
        if kind == "estimator":
            words = "embedding_norm needs a backbone: give backbone_name with"
    else:
        words = REFUSED.get((kind, command))
    device = [] if command == "export" else ["--device", "cpu"]
    code = main([*flags.split(), flag, *model, *device])
    if words is None:
        assert code == 0, capsys.readouterr().err
    else:
        refused(code, words, alone=True)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with a verification set, `faces.bin`."""
    folder = tmp_path_factory.mktemp("photos")
    write_bin(folder / "faces.bin", open_set(FACES).images.decode(0, 8), [True] * 4)
    return folder


def test_a_table_mixes_kinds_over_one_backbone(kinds, run):
    models = open_models(
        [f"a={run}", f"b={kinds['packed'][0]}", "embedding_norm", f"c={kinds['scores'][0]}"],
        device="cpu",
    )
    assert models.names == ("a", "b", "embedding_norm", "c")
    assert len({id(model.frozen) for model in models.models.values()}) == 1
    with pytest.raises(ValueError, match="demo and a were trained on different backbones; one"):
        open_models([f"a={run}", "demo"], device="cpu")
    with pytest.raises(ValueError, match="embedding_norm needs a backbone, and demo has none"):
        open_models([f"x={kinds['onnx'][0]}", "embedding_norm"])
    assert open_models([f"x={kinds['onnx'][0]}", "demo"], device="cpu").names == ("x", "demo")


def test_another_estimator_over_a_models_backbone(run, kinds):
    model = open_model(run, device="cpu").with_estimator("embedding_norm")
    assert (model.provenance.method, model.provenance.output) == ("embedding_norm",) * 2
    assert model.calibration is None
    with pytest.raises(ValueError, match="has no backbone that embedding_norm could use"):
        open_model(kinds["onnx"][0]).with_estimator("embedding_norm")


def test_names_come_from_the_text_or_the_file(tmp_path):
    (tmp_path / "run=1").mkdir()
    (tmp_path / "margin-0.4").mkdir()
    (tmp_path / "other.csv").write_text("")
    paths = [str(tmp_path / name) for name in ("run=1", "margin-0.4", "other.csv")]
    assert named(["a=what.csv", *paths, "ser_fiq:passes=9"]) == [
        ("a", "what.csv"),
        ("run=1", paths[0]),
        ("margin-0.4", paths[1]),
        ("other", paths[2]),
        ("ser_fiq:passes=9", "ser_fiq:passes=9"),
    ]
    with pytest.raises(ValueError, match=r"two methods are called 'a': name them"):
        named(["a=1", "a=2"])


def test_a_model_of_nothing_has_a_header():
    assert LoadedModel(name="bare", estimator=None).header().startswith("model bare; uncert")


@pytest.mark.parametrize("kind", ["packed", "onnx"])
def test_a_model_without_its_run_is_calibrated_on_own_faces(kind, request, tmp_path, capsys):
    model = str(DEMO if kind == "packed" else request.getfixturevalue("onnx_file"))
    own, packed = tmp_path / "own.json", tmp_path / "own.pt"
    argv = ["--model", model, "--target", "faces:synthetic:identities=12,images=3,seed=2"]
    argv += ["--device", "cpu", "--fmr", "0.1"]
    assert calibrate.main([*argv, "--out", str(own)]) == 0
    fitted, face = Calibration.load(own), SyntheticFaces(1, 1, 0).read(0)
    scorers = [load_scorer(model, device="cpu", calibration=own)]
    code = calibrate.main([*argv, "--out", str(packed)])
    if kind == "packed":
        assert code == 0
        assert verification_risk_fnmr.main(["--model", str(packed), *argv[2:]]) == 0
        scorers.append(load_scorer(packed, device="cpu"))
    else:
        assert code == 2
        assert "only a packed --model is written anew" in capsys.readouterr().err
    for scorer in scorers:
        assert scorer.model.calibration.to_dict() == fitted.to_dict()
        (row,) = scorer(face)
        assert row.percentile == pytest.approx(fitted.percentile([row.uncertainty])[0], abs=1e-4)
    assert calibrate.main([*argv, "--out", "own.onnx"]) == 2
    assert "score_images.py --calibration takes" in capsys.readouterr().err
    assert calibrate.main(argv) == 2
    assert ("FILE.pt" in capsys.readouterr().err) == (kind == "packed")
