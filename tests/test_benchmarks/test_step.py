"""The benchmarks' own frame, and that the one of a step runs."""

import json

import pytest
import torch

from benchmarks import step
from benchmarks._common import compare, machine, print_table, write_json
from benchmarks._step_ceiling import flops_per_image
from benchmarks._step_work import PARTS, Clock
from models.backbones.iresnet import IResNet
from models.frozen import FrozenBackbone

TINY = "iresnet:layers=[1,1,1,1],widths=[2,2,2,2],embedding_size=8"


class Watch:
    """Stands in for `time`: it goes on only when told to."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def test_sides_run_in_turn_and_the_first_round_does_not_count():
    watch, calls = Watch(), []
    seconds = {"ours": iter([90, 1, 5, 2]), "theirs": iter([80, 7, 9, 8])}

    def side(name):
        def run():
            calls.append(name)
            watch.now += next(seconds[name])

        return run

    sides = {"ours": side("ours"), "theirs": side("theirs")}
    medians = compare(sides, runs=3, clock=watch.perf_counter)
    assert calls == ["ours", "theirs"] * 4
    assert medians == {"ours": 2, "theirs": 8}


def test_a_table_and_a_file(tmp_path, capsys):
    print_table(["side", "ratio"], [["ours", 2.123456], ["theirs", 1]])
    assert capsys.readouterr().out.splitlines() == [
        "| side | ratio |",
        "| --- | --- |",
        "| ours | 2.123 |",
        "| theirs | 1 |",
    ]
    write_json(None, [])
    write_json(tmp_path / "a" / "b.json", [{"ratio": 2.5}], "cpu")
    content = json.loads((tmp_path / "a" / "b.json").read_text())
    assert content["rows"] == [{"ratio": 2.5}]
    assert content["machine"].keys() == machine("cpu").keys()
    assert content["machine"]["torch"] == torch.__version__


def test_a_clock_gives_each_part_what_came_before_its_mark(monkeypatch):
    watch = Watch()
    monkeypatch.setattr("benchmarks._step_work.time", watch)
    clock = Clock(torch.device("cpu"))
    clock.mark("")
    for part, seconds in (("backbone", 3), ("", 20), ("copy", 0.5), ("backbone", 4)):
        watch.now += seconds
        clock.mark(part)
    assert clock.seconds() == {**dict.fromkeys(PARTS, 0.0), "backbone": 7, "copy": 0.5}


def test_operations_of_a_backbone_are_those_of_its_layers():
    net = IResNet(layers=(1, 1, 1, 1), widths=(2, 3, 4, 5), embedding_size=8)
    widths, sides = (2, 2, 3, 4, 5), (112, 56, 28, 14, 7)
    counted = 112 * 112 * 3 * 2 * 9 + 5 * 49 * 8
    for (before, after), (large, small) in zip(
        zip(widths, widths[1:], strict=False), zip(sides, sides[1:], strict=False), strict=True
    ):
        counted += before * after * (9 * large**2 + small**2) + after * after * 9 * small**2
    assert flops_per_image(FrozenBackbone(net)) == 2 * counted


def test_the_benchmark_of_a_step_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step, "IDENTITIES", 4)
    monkeypatch.setattr(step, "ceilings", lambda device, dtype: {"convolution": 1e12})
    sizes = ["--batch", "16", "--images", "16", "--repeats", "1", "--steps_per_batch", "1", "2"]
    file = tmp_path / "step.json"
    code = step.main(
        ["--backbone_name", TINY, *sizes, "--heads", "1", "4", "--precisions", "bf16"]
        + ["--device", "cpu", "--json", str(file)]
    )
    assert code == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row.get("steps_per_batch") for row in rows] == [1, 2, 2, 2]
    assert [row.get("heads") for row in rows] == [None, None, 1, 4]
    assert all(row["parts"]["backbone"] > 0 for row in rows)
    assert rows[2]["step_time_ratio"] == 1
    out = capsys.readouterr().out
    assert "| bf16 | eager | 2 |" in out
    with pytest.raises(SystemExit, match="2"):
        step.main(["--batch", "12"])
    assert "--batch 12: must be a multiple of 8" in capsys.readouterr().err
