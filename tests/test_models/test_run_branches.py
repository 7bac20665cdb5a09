"""Run folders of several branches, and runs that share a backbone."""

import dataclasses

import pytest
import torch

from models.frozen import FrozenBackbone
from models.run import branch_folders, load_run, untrained_run
from utils.config import Branch, Method, from_json

HEAD = Method("fc2", output="probability", hidden=4)


@pytest.fixture
def write_branches(write_run):
    """Return a function that makes a run folder of three branches."""

    def write(folder, weights):
        branches = [
            Branch(name, head=HEAD, loss=Method(name.split("-")[0]), seed=int(name[-1]))
            for name in ("idq-0", "idq-1", "pcnet-0")
        ]
        return write_run(folder, weights=weights, seed=0, branches=branches)

    return write


@pytest.fixture
def weights(tmp_path):
    return tmp_path / "backbone.pth"


@pytest.fixture
def run(tmp_path, weights, write_branches):
    return write_branches(tmp_path / "all", weights)


def test_branch_folders_are_in_the_configs_order(run, tmp_path):
    (run / "aaa").mkdir()
    assert branch_folders(run) == [run / "idq-0", run / "idq-1", run / "pcnet-0"]
    assert branch_folders(str(run / "idq-0")) == []
    assert branch_folders(tmp_path / "nothing") == []


def test_a_branch_without_best_is_named(run):
    (run / "idq-1" / "best.pt").unlink()
    with pytest.raises(ValueError, match=r"all: branches without best\.pt: idq-1 \(written after"):
        branch_folders(run)


def test_a_damaged_config_is_named_where_it_is_needed_and_not_elsewhere(run):
    (run / "idq-0" / "config.json").write_text("{")
    assert branch_folders(run / "idq-0") == []
    assert load_run(run / "idq-0", device="cpu").step == 1
    for damaged in ("{", "[]", '{"branches": [1]}', '{"branches": [{}]}', '{"branches": null}'):
        (run / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"config\.json(: | is damaged)"):
            branch_folders(run)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_folder_of_all_branches_is_no_run_and_says_which_are(run, checkpoint):
    text = (
        rf"all is a run of 3 branches: idq-0, idq-1, pcnet-0; name one, as in --model_dir "
        rf"{run}/idq-0, or give the folder to evaluation/compare\.py for all"
    )
    with pytest.raises(ValueError, match=text):
        load_run(run, checkpoint=checkpoint, device="cpu")


def test_runs_beside_each_other_share_one_backbone(run, weights, monkeypatch):
    first = load_run(run / "idq-0", device="cpu")
    weights.rename(weights.with_name("moved.pth"))  # the file is not read again
    made = []
    init = FrozenBackbone.__init__
    monkeypatch.setattr(
        FrozenBackbone, "__init__", lambda self, *rest: (made.append(1), init(self, *rest))[0]
    )
    second = load_run(run / "idq-1", device="cpu", shared=first)
    assert second.frozen is first.frozen
    assert second.files == (run / "idq-1" / "best.pt", weights)
    assert not made
    images = torch.zeros(2, 112, 112, 3, dtype=torch.uint8)
    output = first.frozen(images)
    assert not torch.equal(first.head(output), second.head(output))


def test_a_shared_backbone_must_have_the_heads_preprocessing(run):
    first = load_run(run / "idq-0", device="cpu")
    changed = dataclasses.replace(first.frozen.preprocessing, color="BGR")
    file = run / "idq-1" / "best.pt"
    payload = torch.load(file, weights_only=True)
    payload["backbone"] = {**payload["backbone"], "preprocessing": changed.to_dict()}
    torch.save(payload, file)
    with pytest.raises(ValueError, match=r"the head was trained with .*BGR.*backbone now says"):
        load_run(run / "idq-1", device="cpu", shared=first)


def test_a_config_of_branches_is_no_head(run):
    config = from_json((run / "config.json").read_text())
    with pytest.raises(ValueError, match=r"config 'all' describes 3 branches, not one head"):
        untrained_run(config, device="cpu")


def test_a_run_keeps_where_its_head_started(run):
    file = run / "idq-0" / "best.pt"
    payload = torch.load(file, weights_only=True)
    payload["config"] = payload["config"].replace('"head_weights": null', '"head_weights": "s.pth"')
    torch.save(payload, file)
    assert load_run(run / "idq-0", device="cpu").config.head_weights == "s.pth"  # and is not read
