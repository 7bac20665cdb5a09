"""docs/train.md: its config, and what its commands change; docs/ship.md: what is in the file."""

import re
import runpy
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from demo import train_model
from losses.base import GenuinePairLoss
from models.backbones.base import Preprocessing
from models.run import About, load_frozen
from tests.test_docs.test_docs import ROOT, examples, execute, section, text_of, titled
from utils.config import TrainConfig, from_json, override, to_json
from utils.methods import build

TRAIN = text_of(ROOT / "docs" / "train.md")
FILES = section("ship.md", "Model files")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    title, content = titled(TRAIN)
    path = tmp_path_factory.mktemp("page") / Path(title).name
    path.write_text(content)
    found = runpy.run_path(str(path))["config"]
    assert isinstance(found, TrainConfig)
    return found


def test_the_config_of_the_page_goes_through_json(config):
    assert from_json(to_json(config)) == config
    names = [branch.name for branch in config.branches]
    assert names == ["idq-0", "idq-1", "fast_mls-0", "fast_mls-1"]


def test_its_heads_and_losses_fit_its_backbone(config, monkeypatch):
    monkeypatch.chdir(ROOT)
    frozen = load_frozen(config, "cpu", "fp32")
    for branch in config.branches:
        shape = {"features_shape": frozen.features_shape, "embedding_size": frozen.embedding_size}
        head = build("models.heads", branch.head, **shape)
        loss = build("losses", branch.loss, embedding_size=frozen.embedding_size)
        assert isinstance(loss, GenuinePairLoss)
        assert head.output in loss.accepts


def test_its_overrides_change_one_branch(config):
    (line,) = [line for line in TRAIN.splitlines() if "--set branches" in line]
    words = shlex.split(line)
    changed = override(config, words[words.index("--set") + 1 :])
    first, second, *others = changed.branches
    assert (second.loss.options["margin"], second.seed) == (0.4, 0)
    assert (first, *others) == (config.branches[0], *config.branches[2:])


def test_schedules_are_the_branchs_or_the_runs(config):
    alone = config.heads
    assert alone["idq-1"].schedule == config.schedule
    assert alone["fast_mls-0"].schedule.lr == 3e-3
    assert alone["fast_mls-1"].head_seed == 1


def named(text):
    return set(re.findall(r"`(\w+)`", text))


def test_the_table_of_the_format_is_complete():
    rows = [line.split(" | ", 1) for line in FILES.split("## The format")[1].splitlines()]
    keys = {key: row[1] for row in rows if len(row) == 2 for key in named(row[0])}
    assert keys.keys() == torch.load(ROOT / "demo" / "model.pt", weights_only=True).keys()
    assert {field.name for field in fields(About)} <= named(keys["about"])
    assert {field.name for field in fields(Preprocessing)} == named(keys["preprocessing"])


def test_the_example_runs_and_the_demo_says_what_it_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = examples(FILES)
    assert execute(example)["model"].about.label == train_model.LABEL
    assert f"    {train_model.LABEL}\n" in FILES


def test_the_options_of_the_table_are_taken():
    table = FILES.split("## Preprocessing")[1].split("In a config")[0]
    options = [eval(one) for one in re.findall(r"`(\{.*?\})`", table)]
    assert len(options) == 2
    for option in options:
        assert Preprocessing.from_dict(option).color == "BGR"
    images = torch.full((1, 112, 112, 3), 255, dtype=torch.uint8)
    assert Preprocessing.from_dict(options[1])(images).max() == 1
