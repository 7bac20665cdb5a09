import os
import pickle
import resource
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.backbones.iresnet import IResNet
from models.heads.fc2 import FC2Head
from models.load import (
    load_backbone,
    load_checkpoint,
    load_head,
    load_state,
    load_tensors,
    read_safely,
    save_checkpoint,
)
from utils.config import Method
from utils.methods import build

SMALL = Method("iresnet", layers=(1, 2, 1, 1), widths=(4, 6, 8, 8), embedding_size=16)


@pytest.fixture
def save(tmp_path):
    def save(content, name="weights.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


both = pytest.mark.parametrize("load", [load_tensors, load_checkpoint])


@both
def test_no_file(tmp_path, load):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(ValueError, match=f"no file {path}"):
            load(path)


@both
@pytest.mark.parametrize(
    "content",
    [b"", b"# weights\n", b"PK\x03\x04rubbish", bytes(1000), pickle.dumps({"a": 1}, 4)],
)
def test_not_a_tensor_file(tmp_path, content, load, recwarn):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} is not a file of tensors, or is incomplete"):
        load(path)
    assert not recwarn.list


@both
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_anywhere_is_refused(save, zipped, load):
    content = {"format": 1, "a": torch.arange(300.0)}
    path = save(content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="weights.pth"):
            load(path)


class _Harmful:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@both
@pytest.mark.parametrize("how", ["pickle", "zip", "old"])
def test_a_file_that_would_run_code_is_refused_by_name(tmp_path, save, how, load):
    content = {"format": 1, "weight": torch.ones(1), "extra": _Harmful(str(tmp_path / "ran"))}
    if how == "pickle":
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps({"extra": content["extra"]}, protocol=2))
    else:
        path = save(content, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=r"holds posix.mkdir, which is not a tensor and could run"):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_other_content_is_named(save):
    with pytest.raises(ValueError, match=r"holds list, not named tensors"):
        load_tensors(save([torch.ones(1)]))
    with pytest.raises(ValueError, match=r"holds an empty mapping, not named tensors"):
        load_tensors(save({}))
    with pytest.raises(ValueError, match=r"entry 'epoch' is int, not a tensor; expected a state d"):
        load_tensors(save({"epoch": 3, "weight": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"entry 4 has no name; expected a state dict"):
        load_tensors(save({4: torch.ones(1)}))
    with pytest.raises(ValueError, match=r"'a' is there twice, with and without a prefix"):
        load_tensors(save({"a": torch.ones(1), "module.a": torch.ones(1)}))


def test_load_backbone_from_whole_half_precision_and_old_files(save, tiny):
    state = tiny.state_dict()
    loaded = load_backbone(SMALL, save(state))
    assert isinstance(loaded, IResNet)
    assert not loaded.training
    assert _same(loaded.state_dict(), state)
    half = load_backbone(SMALL, save({name: tensor.half() for name, tensor in state.items()}))
    assert half.fc.weight.dtype == torch.float32
    assert torch.equal(half.fc.weight, state["fc.weight"].half().float())
    old = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert _same(load_tensors(save(state, _use_new_zipfile_serialization=False)), state)
    assert torch.equal(load_backbone(SMALL, save(old)).fc.weight, tiny.fc.weight)


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tiny):
    tensors = {name: tensor + 1 for name, tensor in tiny.state_dict().items()}
    del tensors["fc.bias"]
    tensors["fc.weight"] = torch.ones(16, 7)
    tensors["extra.weight"] = torch.ones(1)
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    text = (
        r"^w.pth does not fit head X: 1 missing: fc.bias; 1 unexpected: extra.weight; "
        r"1 of another shape: fc.weight \(16, 7\) for \(16, 392\)$"
    )
    with pytest.raises(ValueError, match=text):
        load_state(tiny, tensors, "w.pth", "head X")
    assert _same(tiny.state_dict(), before)


def test_names_of_another_project_are_matched_by_shape():
    net = nn.Sequential(nn.Linear(3, 2), nn.PReLU(2))
    theirs = {"fc.w": torch.ones(2, 3), "fc.b": torch.ones(2), "act.slope": torch.ones(2)}
    with pytest.raises(ValueError, match=r"Shapes agree in this order, as fc\.w for 0\.weight: "):
        load_state(net, theirs, "w.pth", "backbone X")
    with pytest.raises(ValueError, match=r"unexpected: fc\.w, fc\.b$"):
        load_state(net, {name: theirs[name] for name in ("fc.w", "fc.b")}, "w.pth", "backbone X")


def test_a_long_report_is_cut(save, tiny):
    with pytest.raises(ValueError, match=r"depth=18\): \d+ missing: .* more\)") as caught:
        load_backbone(Method("iresnet", depth=18), save({"conv1.weight": torch.ones(64, 3, 3, 3)}))
    assert "iresnet" in str(caught.value)
    assert str(caught.value).count("bn1.") < 10
    assert len(str(caught.value)) < 600


def test_load_head_with_the_originals_names(save):
    options = {"output": "variance", "features_shape": (4, 3, 3), "hidden": 5}
    trained, head = FC2Head(**options), FC2Head(**options)
    assert not _same(head.state_dict(), trained.state_dict())
    load_head(head, save(trained.state_dict()))
    assert _same(head.state_dict(), trained.state_dict())
    head = FC2Head(**{**options, "output": "probability"})
    with pytest.raises(ValueError, match="does not fit head FC2Head: 2 unexpected: gamma, beta"):
        load_head(head, save(trained.state_dict()))


TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(2, 2, 2, 2), embedding_size=4)


@pytest.fixture(scope="module")
def tiny_weights():
    return build("models.backbones", TINY).state_dict()


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."),
        *("model.", "backbone.", "module.backbone.", "model.backbone.", "encoder_q."),
    ],
)
def test_prefixes_of_wrappers_are_dropped(tmp_path, tiny_weights, prefix):
    torch.save({prefix + name: value for name, value in tiny_weights.items()}, tmp_path / "w.pth")
    assert _same(load_backbone(TINY, tmp_path / "w.pth").state_dict(), tiny_weights)


def test_a_network_is_found_beside_other_tensors(tmp_path, tiny_weights, caplog):
    caplog.set_level("INFO", "faceuq")
    part = {f"net.{name}": value for name, value in tiny_weights.items()}
    torch.save({**part, "fc.weight": torch.full((9, 4), torch.nan)}, tmp_path / "w.pth")
    assert _same(load_backbone(TINY, tmp_path / "w.pth").state_dict(), tiny_weights)
    assert "below 'net.'; not read: fc.weight" in caplog.text
    other = {f"ema.{name}": value for name, value in tiny_weights.items()}
    torch.save({**part, **other}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"more than once, below 'net\.' and 'ema\.'"):
        load_backbone(TINY, tmp_path / "two.pth")


@pytest.mark.parametrize(
    "entry", ["state_dict_backbone", "net_state_dict", "state_dict", "model", "mine"]
)
def test_a_training_checkpoint_gives_its_backbone(tmp_path, tiny_weights, entry):
    others = {"epoch": 3, "state_optimizer": {"state": {}, "param_groups": []}}
    if entry == "state_dict_backbone":  # as arcface_torch has it
        others["state_dict_softmax_fc"] = {"weight": torch.ones(3, 4)}
    torch.save({**others, entry: tiny_weights}, tmp_path / "w.pt")
    assert _same(load_backbone(TINY, tmp_path / "w.pt").state_dict(), tiny_weights)


def test_of_several_entries_with_tensors_none_is_guessed(tmp_path, tiny_weights):
    torch.save({"student": tiny_weights, "teacher": tiny_weights}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="'student', 'teacher'"):
        load_backbone(TINY, tmp_path / "w.pt")


def test_safetensors_are_read_and_other_kinds_are_named(tmp_path, tiny_weights):
    save_file(tiny_weights, tmp_path / "w.safetensors")
    assert _same(load_backbone(TINY, tmp_path / "w.safetensors").state_dict(), tiny_weights)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    (tmp_path / "r.onnx").write_bytes(b"\x08\x07")
    torch.save(tiny_weights, tmp_path / "renamed.onnx")
    assert _same(load_tensors(tmp_path / "renamed.onnx"), tiny_weights)
    for name, kind in (("cut.safetensors", "damaged safetensors"), ("r.onnx", "ONNX model")):
        with pytest.raises(ValueError, match=kind):
            load_backbone(TINY, tmp_path / name)
    with pytest.raises(ValueError, match="TorchScript"):
        load_backbone(TINY, tmp_path / "script.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "count"), [("running_var", "1 of 2"), ("num_batches_tracked", "1 of 1")]
)
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path, tiny_weights, value, name, count
):
    weights = {key: tensor.clone() for key, tensor in tiny_weights.items()}
    weights[f"layer4.0.bn3.{name}"] = weights[f"layer4.0.bn3.{name}"].float()
    weights[f"layer4.0.bn3.{name}"].view(-1)[0] = value
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"layer4.0.bn3.{name} has {count} values"):
        load_backbone(TINY, tmp_path / "w.pth")


def test_a_checkpoint_is_read_back_as_it_was(tmp_path):
    payload = {"head": {"w": torch.arange(3.0)}, "step": 7, "best": None, "config": "{}"}
    save_checkpoint(tmp_path / "last.pt", payload)
    loaded = read_safely(tmp_path / "last.pt")
    assert torch.equal(loaded["head"]["w"], payload["head"]["w"])
    assert (loaded["step"], loaded["best"], loaded["config"]) == (7, None, "{}")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, {"step": lambda: None})
    assert read_safely(path)["step"] == 1


def test_a_file_of_another_program_is_not_a_checkpoint(save):
    with pytest.raises(ValueError, match=r"weights\.pth is not a checkpoint of network\.py"):
        load_checkpoint(save({"state_dict": {}}))


def test_a_disk_that_is_full_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/last\.pt'"):
            save_checkpoint(path, {"weights": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
