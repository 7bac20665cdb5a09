"""One file carries a whole model: what comes out is what went in, and nothing else is taken in."""

import dataclasses

import pytest
import torch

from models.backbones.iresnet import IResNet
from models.frozen import FrozenBackbone
from models.run import Run, build_head, is_packed, load_packed, save_packed, without_paths
from tests.test_models.conftest import ABOUT
from utils.config import Method, Schedule, TrainConfig, Verification

NARROW = {"layers": (1, 2, 1, 1), "widths": (4, 6, 8, 8), "embedding_size": 16}
CALIBRATION = {"version": 1, "probabilities": [0.1, 1 / 3], "decision": {"accept_up_to": 0.25}}


@pytest.fixture
def run(tiny, tmp_path):
    """A head on a backbone for BGR; every path of its config lies in tmp_path."""
    config = TrainConfig(
        name="tiny",
        backbone=Method("iresnet", **NARROW, preprocessing={"color": "BGR", "scale": 128.0}),
        backbone_weights=str(tmp_path / "weights" / "backbone.pth"),
        train_images=(f"{tmp_path}/people.rec", "synthetic:identities=8,images=4"),
        schedule=Schedule(epochs=1, steps_per_epoch=2, lr=0.1),
        head=Method("multi_layer", output="probability", hidden=4),
        head_weights=str(tmp_path / "start.pth"),
        loss=Method("idq"),
        verification=Verification(dataset_path=str(tmp_path), targets=(f"faces:{tmp_path}/dev",)),
        log_dir=str(tmp_path / "runs"),
    )
    backbone = IResNet(**NARROW, preprocessing={"color": "BGR", "scale": 128.0})
    backbone.load_state_dict(tiny.state_dict())
    frozen = FrozenBackbone(backbone.eval())
    torch.manual_seed(1)
    head = build_head(dataclasses.replace(config, head_weights=None), frozen)
    head.layers[2].running_mean.uniform_(-1, 1)
    return Run(tmp_path, config, frozen, head.eval(), 2, ABOUT.sha256, ())


@pytest.fixture
def file(run, tmp_path):
    save_packed(tmp_path / "folder" / "model.pt", run, ABOUT, CALIBRATION)
    return tmp_path / "folder" / "model.pt"


def changed(file, change):
    """Rewrite the file with its content changed."""
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return file


def test_what_comes_out_is_what_went_in(run, tiny, file, images):
    found = load_packed(file, device="cpu")
    assert found.about == ABOUT
    assert found.calibration == CALIBRATION
    assert found.config == without_paths(run.config)
    assert found.frozen.preprocessing == run.frozen.preprocessing
    assert (found.frozen.preprocessing.color, found.frozen.preprocessing.scale) == ("BGR", 128.0)
    for name, tensor in found.frozen.unfolded().state_dict().items():
        assert torch.equal(tensor, tiny.state_dict()[name]), name
    for name, tensor in found.head.state_dict().items():
        assert torch.equal(tensor, run.head.state_dict()[name]), name
    assert not found.head.training
    wanted, given = run.frozen(images), found.frozen(images)
    assert torch.equal(wanted.embedding, given.embedding)
    with torch.no_grad():
        assert torch.equal(run.head(wanted), found.head(given))


def test_the_stored_preprocessing_holds_whatever_the_code_says_by_then(file):
    changed(file, lambda content: content["preprocessing"].update(scale=64.0))
    assert load_packed(file).frozen.preprocessing.scale == 64.0


def test_no_folder_of_the_maker_is_in_the_file(run, file, tmp_path):
    assert str(tmp_path).encode() not in file.read_bytes()
    config = load_packed(file).config
    assert config.backbone_weights == "backbone.pth"
    assert config.train_images == ("people.rec", "synthetic:identities=8,images=4")
    assert (config.head_weights, config.log_dir) == (None, "runs")
    assert config.verification.targets == ("faces:dev",)
    assert config.backbone == run.config.backbone
    assert [one.name for one in file.parent.iterdir()] == ["model.pt"]


def test_float16_is_used_where_it_loses_nothing(run, tmp_path, images):
    run.frozen.unfolded().load_state_dict(
        {
            name: tensor.half().float() if tensor.is_floating_point() else tensor
            for name, tensor in run.frozen.unfolded().state_dict().items()
        }
    )
    save_packed(tmp_path / "model.pt", run, ABOUT)
    stored = torch.load(tmp_path / "model.pt", weights_only=True)["backbone"]
    floats = [one for one in stored.values() if one.is_floating_point()]
    assert {one.dtype for one in floats} == {torch.float16}
    found = load_packed(tmp_path / "model.pt", device="cpu").frozen.unfolded().state_dict()
    for name, tensor in run.frozen.unfolded().state_dict().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_half_rounds_the_weights_alone(run, file, tmp_path):
    save_packed(tmp_path / "half.pt", run, ABOUT, half=True)
    stored = torch.load(tmp_path / "half.pt", weights_only=True)
    for name, tensor in run.frozen.unfolded().state_dict().items():
        wanted = tensor.half() if tensor.ndim > 1 else tensor
        assert torch.equal(stored["backbone"][name], wanted), name
    assert stored["head"]["layers.4.weight"].dtype == torch.float32
    assert (tmp_path / "half.pt").stat().st_size < file.stat().st_size
    assert load_packed(tmp_path / "half.pt").frozen.backbone.fc.weight.dtype == torch.float32


def test_is_packed_knows_its_own_files(file, tiny, tmp_path):
    assert is_packed(file)
    torch.save({"format": 1, "step": 3, "head": {}}, tmp_path / "best.pt")
    torch.save(tiny.state_dict(), tmp_path / "backbone.pth")
    (tmp_path / "text.pt").write_text("face-uncertainty model")
    for name in ("best.pt", "backbone.pth", "text.pt", "none.pt", "."):
        assert not is_packed(tmp_path / name), name


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_tensors_that_do_not_fit_are_named(file, part):
    name = {"backbone": "fc.weight", "head": "layers.4.weight"}[part]
    before = file.read_bytes()
    for change, text in (
        (lambda tensors: tensors.pop(name), rf"1 missing: {name}"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "1 unexpected: extra"),
        (lambda t: t.update({name: torch.ones(3, 5)}), rf"1 of another shape: {name} \(3, 5\) for"),
        (lambda t: t.update({name: [1.0]}), rf"model.pt: {part} entry '{name}' is not a tensor"),
    ):
        file.write_bytes(before)
        changed(file, lambda content, change=change: change(content[part]))
        with pytest.raises(ValueError, match=text):
            load_packed(file)


@pytest.mark.parametrize(
    "part", ["config", "preprocessing", "backbone", "head", "calibration", "about"]
)
def test_a_missing_part_is_named(file, part):
    changed(file, lambda content: content.pop(part))
    with pytest.raises(ValueError, match=rf"model.pt: the model file does not say {part}$"):
        load_packed(file)


def test_bad_content_is_named_with_the_file(file):
    before = file.read_bytes()
    for change, text in (
        ({"version": 2}, r"model.pt: version 2 of a model file is not known \(known: 1\)"),
        (
            {"about": {**vars(ABOUT), "license": None}},
            "model.pt: about.license = None: expected str",
        ),
        ({"about": {"name": "x"}}, "model.pt: about: .* missing .* 'license', "),
        ({"config": "{}"}, "model.pt: config: .*missing"),
        ({"config": "{"}, "model.pt: Expecting property name"),
        (
            {"preprocessing": {"color": "GBR"}},
            "model.pt: preprocessing.color = 'GBR': must be one of",
        ),
        ({"preprocessing": {"size": "112"}}, "model.pt: "),
        ({"head": []}, r"model.pt: the model file.head = \[\]: expected"),
    ):
        file.write_bytes(before)
        changed(file, lambda content, change=change: content.update(change))
        with pytest.raises(ValueError, match=text):
            load_packed(file)


def test_foreign_files_are_told_apart(tiny, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(tiny.state_dict(), path)
    with pytest.raises(ValueError, match=r"model.pt is not a packed model but another file; exp"):
        load_packed(path)
    torch.save({"format": 1, "step": 3, "head": {}}, path)
    with pytest.raises(ValueError, match=r"is not a packed model but a checkpoint; export"):
        load_packed(path)
