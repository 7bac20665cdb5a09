"""The code of docs/scale.md runs as it stands, and its tree is what is written."""

import re
from pathlib import Path

import numpy as np

from tests.test_docs.test_docs import examples, execute, section

PAGE = section("scale.md", "Embeddings and uncertainties of a whole data set")


def run_block(block):
    return execute(block.replace("70000", "20"), {"np": np})


def test_the_examples_read_what_is_written(run, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    methods = ["--methods", runs["idq"], "embedding_norm"]
    assert run("extracted/mine", *methods, model=[]) == 0
    one_shard, every, table = examples(PAGE)
    found = run_block(one_shard)
    assert found["embedding"].shape == (8, 16)
    assert found["ok"].all()
    assert 0 < found["uncertainty"].min() < found["uncertainty"].max() < 1
    assert run_block(every)["some"].row.tolist() == [5, 20, 12]
    Path("extracted/mine").rename("extracted/npy")
    assert run("extracted/mine", *methods, "--format", "parquet", model=[]) == 0
    assert run_block(every)["some"].row.tolist() == [5, 20, 12]
    read = run_block(table)["table"]
    assert read.column_names == ["name", "uncertainty_idq"]
    assert len(read) == 26


def test_the_tree_names_every_file(run, tmp_path):
    assert run(tmp_path / "out") == 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert re.search(rf"^ +{re.escape(path.name)} ", PAGE, re.MULTILINE), path.name
