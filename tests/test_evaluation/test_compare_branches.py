"""compare.py on a run of several branches: names, one backbone, tables with spread."""

import csv
import json

import pytest
import torch

from estimators.base import Batch
from evaluation.compare import main as compare_main
from evaluation.comparison import ComparisonOptions, compare
from evaluation.embed import embed_images
from evaluation.open_model import open_models, with_branches
from evaluation.sets.open_set import open_set
from models.backbones.base import Backbone
from models.frozen import FrozenBackbone
from models.seeds import Group
from utils.config import Branch, Method
from utils.distributed import World

FACES = "faces:synthetic:identities=8,images=4,seed=3"
TINY = Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8))
KINDS = {"idq": ("probability", 1), "pcnet": ("probability", 1), "mls": ("variance", 512)}
KINDS["fast_mls"] = ("variance", 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_run):
    """The run folder of twelve untrained heads: four losses with three seeds."""
    branches = [
        Branch(
            f"{loss}-{seed}",
            head=Method("fc2", output=output, hidden=4, dim=dim),
            loss=Method(loss),
            seed=seed,
        )
        for loss, (output, dim) in KINDS.items()
        for seed in range(3)
    ]
    folder = tmp_path_factory.mktemp("runs")
    weights = folder / "backbone.pth"
    return write_run(folder / "all", weights=weights, seed=0, branches=branches, backbone=TINY)


def test_a_run_stands_for_its_branches(run, monkeypatch):
    texts = with_branches([str(run), f"mine={run}", f"a={run}/idq-0", "embedding_norm"])
    assert texts[0] == f"idq-0={run}/idq-0"
    assert texts[11] == f"fast_mls-2={run}/fast_mls-2"
    assert texts[12] == f"mine-idq-0={run}/idq-0"
    assert texts[24:] == [f"a={run}/idq-0", "embedding_norm"]
    monkeypatch.chdir(run.parent)
    assert with_branches(["all"])[0] == "idq-0=all/idq-0"


def test_twelve_heads_have_one_backbone_and_one_forward_pass(run, monkeypatch):
    loaded = []
    init = Backbone.__init__
    monkeypatch.setattr(
        Backbone,
        "__init__",
        lambda *rest, **options: (
            loaded.append(str(torch.get_default_device())) or init(*rest, **options)
        ),
    )
    methods = open_models([str(run)], device="cpu")
    assert len(methods.names) == 12
    assert loaded == ["meta", "cpu"]  # first without memory, to compare it with the file
    backbones = {id(one.frozen) for one in methods.estimator.members.values()}
    assert backbones == {id(methods.backbone.frozen)}
    passes = []
    forward = FrozenBackbone.forward
    monkeypatch.setattr(
        FrozenBackbone, "forward", lambda *args: (passes.append(1), forward(*args))[1]
    )
    batch = torch.randint(256, (5, 112, 112, 3), dtype=torch.uint8).numpy()
    together = methods.estimator(Batch(batch)).sigma_sq
    assert len(passes) == 1
    alone = open_models([f"{run}/pcnet-1"], device="cpu").estimator(Batch(batch)).sigma_sq
    assert (together[:, methods.names.index("pcnet-1")] == alone[:, 0]).all()
    assert len({tuple(column) for column in together.T}) == 12


def test_groups_are_the_losses(run):
    methods = open_models([f"x={run}", "embedding_norm"], device="cpu")
    assert methods.groups == tuple(
        Group(f"x-{loss}", tuple(f"x-{loss}-{seed}" for seed in range(3)), 1) for loss in KINDS
    )


def test_a_moved_backbone_file_is_named_once_for_all(run, tmp_path):
    moved = tmp_path / "moved.pth"
    moved.write_bytes((run.parent / "backbone.pth").read_bytes())
    methods = open_models([str(run)], device="cpu", backbone_weights=str(moved))
    original = open_models([str(run)], device="cpu")
    assert methods.fingerprint == original.fingerprint  # hashes, not paths


def test_tables_files_and_figures(run, tmp_path, capsys, monkeypatch):
    folder, legends = tmp_path / "out", []

    def savefig(figure, path, **_):
        (axes,) = figure.axes
        legends.append([text.get_text() for text in axes.get_legend().get_texts()])
        path.touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    argv = ["--target", FACES, "--fmr", "0.05", "0.1", "--replicates", "20", "--device", "cpu"]
    argv += ["--methods", str(run), "embedding_norm", "--out", str(folder)]
    assert compare_main([*argv, "--against", "embedding_norm"]) == 0
    out = capsys.readouterr().out
    assert out.count(", means over seeds\n") == 2
    assert "idq, pcnet" in out or "mls" in out
    assert "seeds that share batches and augmentation" in out
    assert "and embedding_norm" in out or "than embedding_norm" in out
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".png")
    endings = ("csv", "json", "md", "tex", "txt")
    assert names == ["compare-seeds.csv", *(f"compare.{ending}" for ending in endings)]
    assert len(list(folder.glob("*.png"))) == 2
    with (folder / "compare.csv").open() as file:
        rows = {(row["fmr"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * 13
    with (folder / "compare-seeds.csv").open() as file:
        means = list(csv.DictReader(file))
    assert {(row["fmr"], row["group"]) for row in means} == {
        (fmr, loss) for fmr in ("0.05", "0.1") for loss in KINDS
    }
    for row in means:
        areas = [float(rows[row["fmr"], name]["auerc_relative"]) for name in row["members"].split()]
        assert len(areas) == int(row["seeds"]) == 3
        assert float(row["mean_auerc_relative"]) == pytest.approx(sum(areas) / 3)
        assert float(row["smallest"]) == min(areas)
        assert float(row["largest"]) == max(areas)
    for fmr, lines in zip(("0.05", "0.1"), legends, strict=True):
        assert "interval of " in lines[0]
        assert [line for line in lines if ", 3 seeds  " in line] == [
            f"{row['group']}, 3 seeds  {float(row['mean_auerc_relative']):.3f}, "
            f"{float(row['smallest']):.3f} to {float(row['largest']):.3f}"
            for row in means
            if row["fmr"] == fmr
        ]
        assert len(lines) == 1 + 4 + 1 + 2  # band, groups, the norm, and the two limits
    facts = json.loads((folder / "compare.json").read_text())
    assert [one["group"] for one in facts["groups"]] == [row["group"] for row in means]
    for ending in ("txt", "md", "tex"):
        assert (folder / f"compare.{ending}").read_text().count("means over seeds") == 2


@pytest.mark.parametrize("against", ["idq", "idq-1"])
def test_groups_can_be_compared_with_one_of_them(run, against, capsys, refused):
    argv = ["--target", FACES, "--fmr", "0.1", "--replicates", "20", "--device", "cpu"]
    assert compare_main([*argv, "--methods", str(run), "--against", against]) == 0
    _, means = capsys.readouterr().out.split("means over seeds\n")
    verdicts = [line for line in means.splitlines() if "; " in line and "is ahead in" in line]
    assert len(verdicts) == 3
    assert all("idq" in line for line in verdicts)
    code = compare_main([*argv, "--methods", str(run), "--against", "idc"])
    refused(code, "--against idc: the methods are idq-0, idq-1, ")


def test_ranks_that_only_embed_get_no_result(run, monkeypatch):
    worlds = []
    embed = embed_images

    def embed_as_one(*args, world, **options):
        worlds.append(world)
        return embed(*args, **options)

    monkeypatch.setattr("evaluation.embed.embed_images", embed_as_one)
    models = open_models([f"{run}/idq-0"], device="cpu")
    options = ComparisonOptions(fmr=(0.1,), replicates=20)
    other, main = World(1, 2, 1), World(0, 2, 0)
    assert list(compare([open_set(FACES)], models, options, world=other)) == []
    (comparison,) = compare([open_set(FACES)], models, options, world=main)
    assert [row.method for row in comparison.rows] == ["idq-0"]
    assert worlds == [other, main]
