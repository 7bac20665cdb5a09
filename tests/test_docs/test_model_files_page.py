"""docs/ship.md says what is in the file, and its example runs."""

import re
from dataclasses import fields

import torch

from demo import train_model
from models.backbones.base import Preprocessing
from models.run import About
from tests.test_docs.test_docs import ROOT, examples, execute, section

PAGE = section("ship.md", "Model files")


def named(text):
    return set(re.findall(r"`(\w+)`", text))


def test_the_table_of_the_format_is_complete():
    rows = [line.split(" | ", 1) for line in PAGE.split("## The format")[1].splitlines()]
    keys = {key: row[1] for row in rows if len(row) == 2 for key in named(row[0])}
    assert keys.keys() == torch.load(ROOT / "demo" / "model.pt", weights_only=True).keys()
    assert {field.name for field in fields(About)} <= named(keys["about"])
    assert {field.name for field in fields(Preprocessing)} == named(keys["preprocessing"])


def test_the_example_runs_and_the_demo_says_what_it_is(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = examples(PAGE)
    assert execute(example)["model"].about.label == train_model.LABEL
    assert f"    {train_model.LABEL}\n" in PAGE


def test_the_options_of_the_table_are_taken():
    table = PAGE.split("## Preprocessing")[1].split("In a config")[0]
    options = [eval(one) for one in re.findall(r"`(\{.*?\})`", table)]
    assert len(options) == 2
    for option in options:
        assert Preprocessing.from_dict(option).color == "BGR"
    images = torch.full((1, 112, 112, 3), 255, dtype=torch.uint8)
    assert Preprocessing.from_dict(options[1])(images).max() == 1
