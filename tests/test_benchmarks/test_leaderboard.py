"""The leaderboard: numbers of one engine, from stored embeddings or images; page, CSV and JSON."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import leaderboard
from data.features import Embeddings
from estimators.from_file import FromFile
from evaluation.comparison import ComparisonOptions, compare_scores, pairwise_verdicts
from evaluation.metrics.curve import protocol_curve
from evaluation.sets.open_set import open_set
from evaluation.sets.stored import open_stored
from tests.helpers import TINY_NAME

FACES = "faces:synthetic:identities=30,images=4"
EVIL = "<b>& method"


@pytest.fixture(scope="module")
def board(tmp_path_factory, tiny_weights):
    """Two recognisers: embeddings of one are stored, those of the other are computed."""
    root = tmp_path_factory.mktemp("board")
    images = open_set(FACES).images
    names = np.array([images.image_name(row) for row in range(len(images))])
    rng = np.random.default_rng(0)
    identity, doubt = np.repeat(np.arange(30), 4), rng.random(120)
    mu = rng.normal(size=(30, 32))[identity]
    mu += 4 * doubt[:, None] ** 3 * rng.normal(size=(120, 32))
    folder = root / "scores" / "stored" / "rendered"
    folder.mkdir(parents=True)
    Embeddings(mu, np.ones((120, 1)), identity, names).save(folder / "embeddings.npz")
    np.savez(folder / f"{EVIL}.npz", key=names, uncertainty=doubt)
    shared = root / "scores" / "rendered"
    shared.mkdir()
    scores = {"noise": rng.random(120), "good": doubt + 0.1 * rng.random(120)}
    for name, values in scores.items():
        rows = [["image", "uncertainty"], *zip(names, values, strict=True)]
        with (shared / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    manifest = {
        "title": "Faces & scores",
        "recognisers": {
            "stored": {"about": "made up"},
            "tiny": {"backbone_name": TINY_NAME, "backbone_weights": tiny_weights.name},
        },
        "sets": {"rendered": {"target": FACES, "cap": 0}},
        "methods": {"noise": {"licence": "none", "cost": {"tiny": 1.5}}, "unused": {}},
        "fmr": [0.1, 0.05],
        "replicates": 100,
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    command = ["--scores", str(root / "scores"), "--data", str(tiny_weights.parent)]
    command += ["--manifest", str(root / "manifest.json"), "--out", str(root / "out")]
    assert leaderboard.main(command) == 0
    stored = json.loads((root / "out" / "leaderboard.json").read_text())
    return SimpleNamespace(root=root, command=command, folder=folder, shared=shared, json=stored)


def test_numbers_are_those_of_compare(board):
    tables = {(one["recogniser"], one["fmr"]): one for one in board.json["tables"]}
    assert list(tables) == [("stored", 0.1), ("stored", 0.05), ("tiny", 0.1), ("tiny", 0.05)]
    assert {row["method"] for row in tables["tiny", 0.1]["rows"]} == {"noise", "good"}
    stored = open_stored(board.folder / "embeddings.npz", cap=0)
    files = [board.shared / "good.csv", board.shared / "noise.csv", board.folder / f"{EVIL}.npz"]
    scores = {path.stem: FromFile(path=str(path)) for path in files}
    options = ComparisonOptions(fmr=(0.1,), replicates=119)  # what 3 verdicts need
    ((comparison,),) = [tuple(compare_scores(stored, scores, options))]
    rows = {row["method"]: row for row in tables["stored", 0.1]["rows"]}
    ((_, comparisons),) = stored.comparisons()
    for row in comparison.rows:
        shown = rows[row.method]
        assert (shown["relative"], tuple(shown["interval"])) == (row.relative, row.interval)
        assert shown["fnmr"] == {"0": row.fnmr[0], "0.1": row.fnmr[2], "0.2": row.fnmr[3]}
        own = comparisons.with_uncertainty(scores[row.method].uncertainty_of(stored.image_names()))
        areas = protocol_curve(own, "pauc", 0.1).areas
        assert shown["pauc"] == pytest.approx({f"{limit:g}": a for limit, a in areas.items()})
        assert shown["pauc"]["0.3"] == pytest.approx(row.relative)
    verdicts = [one for one in pairwise_verdicts(comparison.draws) if one.is_clear]
    assert tables["stored", 0.1]["clear_verdicts"] == len(verdicts) == 2
    assert rows[EVIL]["better_than"] == rows["good"]["better_than"] == ["noise"]
    wins = {name: (row["rank"], row["wins"], row["losses"]) for name, row in rows.items()}
    assert wins == {EVIL: (1, 1, 0), "good": (1, 1, 0), "noise": (3, 0, 2)}


def test_overall_ranks_by_wins_minus_losses_per_table():
    def table(**net):
        rows = [
            {"method": name, "wins": wins, "losses": losses} for name, (wins, losses) in net.items()
        ]
        return {"rows": rows}

    rows = leaderboard.overall([table(a=(2, 0), b=(1, 1), c=(0, 2)), table(a=(0, 1), b=(1, 0))])
    assert [(row["rank"], row["method"], row["net"]) for row in rows] == [
        (1, "a", 0.5),
        (1, "b", 0.5),
        (3, "c", -2),
    ]


def test_csv_and_page_show_the_json(board):
    out = board.root / "out"
    lines = list(csv.DictReader(io.StringIO((out / "leaderboard.csv").read_text("utf-8"))))
    assert len(lines) == 10
    noise = [line for line in lines if line["method"] == "noise"]
    assert {(line["recogniser"], line["cost"]) for line in noise} == {
        ("stored", ""),
        ("tiny", "1.5"),
    }
    assert {line["licence"] for line in noise} == {"none"}
    assert float(lines[0]["pauc_0.3"]) == board.json["tables"][0]["rows"][0]["pauc"]["0.3"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert html.escape(EVIL) in page
    assert EVIL not in page
    assert "unused" not in page
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"'sha256-{digest}'" in page
    assert not re.search(r'(src|href)="(?!leaderboard\.)', page)
    assert str(board.root) not in page + json.dumps(board.json)


def test_without_scores_the_page_is_made_of_the_json_again(board):
    out = board.root / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "index.html").unlink()
    assert leaderboard.main(["--out", str(out), "--manifest", "none.json"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_costs_go_into_the_manifest(board, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes((board.root / "manifest.json").read_bytes())
    data = board.command[3]
    command = ["--out", str(tmp_path), "--data", data, "--runs", "1"]
    assert leaderboard.main([*command, "--cost", "tiny", "norm=embedding_norm"]) == 0
    stored = json.loads(manifest.read_text())
    assert stored["methods"]["norm"]["cost"]["tiny"] > 0
    assert stored["methods"]["noise"]["cost"] == {"tiny": 1.5}
    assert stored["cost_measured"]["command"].endswith("--cost tiny norm=MODEL")
    assert leaderboard.Manifest.load(manifest).cost_measured["threads"] >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fnr": [0.1]}, "manifest.json: manifest: "),
        ({"sets": {"rendered": {"path": "x"}}}, "manifest.json: rendered: {'path': 'x'} is not an"),
        ({"sets": {"other": {}}}, "no score file in stored|tiny/other/METHOD.csv"),
        ({"sets": {"rendered": {}}}, "no embeddings.npz, and the manifest has no target of rend"),
    ],
)
def test_what_is_missing_is_named(board, tmp_path, refused, change, message):
    manifest = json.loads((board.root / "manifest.json").read_text()) | {"replicates": 2} | change
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    command = [*board.command[:4], "--out", str(tmp_path)]
    refused(lambda: leaderboard.main(command), message)


def test_no_page_without_anything(tmp_path, refused):
    refused(leaderboard.main(["--out", str(tmp_path)]), "no ")
