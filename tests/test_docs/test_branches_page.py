"""The example of docs/train.md is a config, and its commands change it as the page says."""

import runpy
import shlex
from pathlib import Path

import pytest

from losses.base import GenuinePairLoss
from models.run import load_frozen
from tests.test_docs.test_docs import ROOT, text_of, titled
from utils.config import TrainConfig, from_json, override, to_json
from utils.methods import build

PAGE = text_of(ROOT / "docs" / "train.md")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    title, content = titled(PAGE)
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
    (line,) = [line for line in PAGE.splitlines() if "--set branches" in line]
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
