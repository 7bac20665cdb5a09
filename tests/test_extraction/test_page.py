"""The code of docs/scale.md runs as it stands, and its tree is what is written."""

import re
from pathlib import Path

import numpy as np

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("\n## Embeddings and uncertainties of a whole data set\n")[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run_block(block):
    found = {}
    exec(compile(block.replace("70000", "20"), "docs/scale.md", "exec"), {"np": np}, found)
    return found


def test_the_examples_read_what_is_written(run, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    methods = ["--methods", runs["idq"], "embedding_norm"]
    assert run("extracted/mine", *methods, model=[]) == 0
    one_shard, every, table = BLOCKS
    found = run_block(one_shard)
    assert found["embedding"].shape == (8, 512)
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
