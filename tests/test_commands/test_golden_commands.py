"""What the commands print and write, pinned: every number, column, key and file name.

The commands run as users run them, on things that the product makes itself, so these tests know
nothing of how the code is laid out. Golden files: tests/golden/commands/*.txt. To write them anew
after a deliberate change, and see the change with `git diff`:

    FACEUQ_WRITE_GOLDEN=1 python -m pytest tests/test_commands/test_golden_commands.py

Pinned word by word are the training log and the block of the risk table, which are the original's;
of all other text only the numbers, in order. What a network computed may differ by 2e-3 (other CPUs
round differently) except for counts; what was computed from stored numbers, in no printed digit.
Times, dates, memory, paths, hashes and versions are masked.
"""

import json

import numpy as np
import pytest
import torch

from tests.helpers import ROOT

SHORT = [
    *("schedule.epochs=1", "schedule.steps_per_epoch=4", "schedule.drop_at=()"),
    *("log_every=2", "workers=1", "train_images=synthetic:identities=20,images=6,seed=1"),
    'verification.targets=("synthetic:pairs=100,seed=9",)',
]
BACKBONE = "iresnet:layers=(1,1,1,1),widths=(8,16,32,64),embedding_size=64"
WEIGHTS = str(ROOT / "demo" / "backbone.pth")
PAIRS = ["--target", "synthetic:pairs=100,seed=5", "--fmr", "1e-1"]
VERIFICATION = "evaluation/verification_risk_fnmr.py"
MC_DROPOUT = [
    "mc_dropout/verification_risk_mcdropout_fnmr.py",
    *("--backbone_name", BACKBONE, "--resume_backbone", WEIGHTS, *PAIRS),
]


@pytest.fixture(scope="module")
def trained(golden, tmp_path_factory):
    """A folder with a run of four steps, and what training printed."""
    folder = tmp_path_factory.mktemp("golden")
    config = ["--config_file", ROOT / "config" / "config_demo.py", "--model_dir", "run"]
    return folder, golden.command(folder, "network.py", *config, "--set", *SHORT)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with features.npz and scores.csv, drawn with a seed."""
    folder = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(7)
    n, mated = 400, np.arange(400) % 2 == 0
    first, other = rng.normal(size=(2, n, 16))
    sigma = rng.uniform(0.1, 1.5, size=(2 * n, 1)).astype(np.float32)
    mu = np.stack([first, np.where(mated[:, None], first, other)], axis=1).reshape(2 * n, 16)
    mu = (mu + sigma * rng.normal(size=mu.shape)).astype(np.float32)
    np.savez(folder / "features.npz", mu=mu, sigma_sq=sigma, issame=mated)
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    lines = ["score,mated,quality_a,quality_b,image_a,image_b"]
    noisy = 1 - sigma * rng.uniform(0.5, 1.5, size=sigma.shape)
    for row, (a, b) in enumerate(noisy.reshape(-1, 2)):
        score = unit[2 * row] @ unit[2 * row + 1]
        names = f"{2 * row}.jpg,{2 * row + 1}.jpg"
        lines.append(f"{score:.5f},{int(mated[row])},{a:.5f},{b:.5f},{names}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def faces(golden, tmp_path_factory):
    """A folder with faces/IDENTITY/IMAGE.jpg, rendered."""
    folder = tmp_path_factory.mktemp("faces")
    drawn = ["--format", "folder", "--identities", 4, "--images", 2, "--seed", 3]
    golden.command(folder, "data/synthetic.py", "--out", "faces", *drawn)
    return folder


def test_training(golden, trained):
    folder, printed = trained
    run = folder / "run"
    metrics = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    saved = torch.load(run / "best.pt", weights_only=True)
    assert golden.log_lines((run / "log.txt").read_text()) == golden.log_lines(printed)
    golden.check(
        "training",
        log=golden.log_lines(printed),
        files=golden.tree(run),
        metrics=sum((golden.flat(one, masked=("time", "memory_gib")) for one in metrics), []),
        config=golden.flat(json.loads((run / "config.json").read_text())),
        environment=sorted(json.loads((run / "environment.json").read_text())[0]),
        checkpoint=sorted(saved),
        head=[f"{name}: {tuple(tensor.shape)}" for name, tensor in saved["head"].items()],
    )


def test_a_trained_head(golden, trained):
    folder, _ = trained
    files = ["--json", "a.json", "--save_features", "f.npz", "--save_scores", "s.csv"]
    report = ["--report", "report", "--replicates", "50"]
    printed = golden.command(folder, VERIFICATION, "--model_dir", "run", *PAIRS, *files, *report)
    page = next((folder / "report").glob("*.json"))
    golden.check(
        "trained_head",
        printed=golden.block(printed),
        json=golden.flat(json.loads((folder / "a.json").read_text())),
        features=golden.arrays(folder / "f.npz"),
        scores=golden.columns(folder / "s.csv"),
        report=golden.tree(folder / "report"),
        report_keys=sorted(golden.keys(json.loads(page.read_text()))),
    )


def test_stored_features(golden, stored):
    files = ["--json", "original.json", "--save_scores", "original.npz"]
    given = ["--features", "features.npz", "--fmr", "1e-2"]
    printed = golden.command(stored, VERIFICATION, *given, *files)
    risk = ["--replicates", "50", "--target_risk", "0.45", "--fmr", "0.1"]
    golden.check(
        "stored_features",
        stored=True,
        printed=golden.block(printed),
        printed_risk=golden.block(golden.command(stored, VERIFICATION, *given[:2], *risk)),
        json=golden.flat(json.loads((stored / "original.json").read_text())),
        scores=golden.arrays(stored / "original.npz"),
    )


def test_score_files(golden, stored):
    given = ["--features", "scores.csv", "--protocol", "all", "--fmr", "1e-1"]
    printed = golden.command(stored, VERIFICATION, *given, "--save_scores", "scores.parquet")
    golden.check(
        "score_files",
        stored=True,
        printed=golden.block(printed),
        parquet=golden.parquet_columns(stored / "scores.parquet"),
    )


@pytest.mark.parametrize("form", ["closed_form", "sampled"])
def test_mc_dropout(golden, form, tmp_path):
    passes = ["--passes", "5"] if form == "sampled" else []
    printed = golden.command(tmp_path, *MC_DROPOUT, "--form", form, *passes)
    golden.check(f"mc_dropout_{form}", printed=golden.block(printed))


def test_calibration(golden, stored):
    given = ["--features", "features.npz", "--fmr", "0.1", "--target_risk", "0.45"]
    printed = golden.command(stored, "evaluation/calibrate.py", *given, "--out", "calibration.json")
    written = golden.flat(json.loads((stored / "calibration.json").read_text()))
    golden.check("calibrate", stored=True, printed=golden.text_lines(printed), written=written)


def compared(golden, folder, *arguments):
    printed = golden.command(
        folder, "evaluation/compare.py", *arguments, "--replicates", "50", "--out", "compared"
    )
    out = folder / "compared"
    texts = {kind: (out / f"compare.{kind}").read_text() for kind in ("txt", "md", "tex")}
    return {
        "printed": golden.text_lines(printed),
        "files": golden.tree(out),
        "csv": golden.columns(out / "compare.csv", words=("verdict",)),
        "json": golden.flat(json.loads((out / "compare.json").read_text())),
        **{f"printed_{kind}": golden.text_lines(text) for kind, text in texts.items()},
    }


def test_compared_features(golden, stored):
    given = ["--features", "a=features.npz", "b=scores.csv", "--fmr", "1e-1"]
    golden.check("compare_features", stored=True, **compared(golden, stored, *given))


def test_compared_estimators(golden, tmp_path):
    methods = ["--methods", "embedding_norm", "mc_dropout:form=closed_form"]
    backbone = ["--backbone_name", BACKBONE, "--backbone_weights", WEIGHTS]
    golden.check("compare_estimators", **compared(golden, tmp_path, *PAIRS, *backbone, *methods))


def test_scored_images(golden, faces):
    given = ["scoring/score_images.py", "faces", "--model", "demo", "--aligned", "yes"]
    printed = golden.command(faces, *given, "--out", "s.csv", "--report", "sheet.html")
    golden.command(faces, *given, "--out", "s.jsonl")
    golden.command(faces, *given, "--out", "s.parquet")
    rows = [json.loads(line) for line in (faces / "s.jsonl").read_text().splitlines()]
    header, first = rows[0]["header"], rows[1]
    assert (faces / "s.csv").read_text().startswith("# model demo ")
    assert (faces / "sheet.html").stat().st_size > 10_000
    golden.check(
        "score_images",
        printed=golden.text_lines(printed),
        csv=golden.columns(faces / "s.csv"),
        jsonl_header=golden.flat(header),
        jsonl=[line.replace(".quality", ".quality (off by 1)") for line in golden.flat(first)],
        parquet=golden.parquet_columns(faces / "s.parquet"),
    )


def test_extraction(golden, trained):
    folder, _ = trained
    given = ["--images", "synthetic:identities=4,images=3,seed=2", "--methods", "n=embedding_norm"]
    run = ["--model_dir", "run", "--workers", "1"]
    printed = golden.command(folder, "extraction/extract.py", *given, *run, "--out", "x")
    kind = ["--format", "parquet", "--dtype", "float32"]
    golden.command(folder, "extraction/extract.py", *given, *run, *kind, "--out", "y")
    shard = folder / "x" / "shards" / "000000"
    masked = ("packages", "platform", "python", "revision", "command", "sha256")
    golden.check(
        "extract",
        printed=golden.text_lines(printed),
        files=golden.tree(folder / "x"),
        about=golden.flat(json.loads((folder / "x" / "about.json").read_text()), masked=masked),
        arrays=golden.arrays(shard),
        shard=sorted(golden.keys(json.loads((shard / "shard.json").read_text()))),
        names=(shard / "names.txt").read_text().splitlines(),
        bad=(folder / "x" / "bad.csv").read_text().splitlines(),
        parquet_files=golden.tree(folder / "y"),
        parquet=golden.parquet_columns(next((folder / "y").rglob("*.parquet"))),
    )


def test_packed_model(golden, trained):
    folder, _ = trained
    facts = ["--license", "research only", "--source", "rendered", "--created", "2024-01-01"]
    given = ["--model_dir", "run", "--out", "model.pt", "--pairs", "synthetic:pairs=40", *facts]
    printed = golden.command(folder, "export/pack_model.py", *given, "--keep_color")
    packed = torch.load(folder / "model.pt", weights_only=True)
    golden.check(
        "pack_model",
        printed=golden.text_lines(printed),
        keys=sorted(packed),
        about=golden.flat(packed["about"], masked=("version",)),
        preprocessing=golden.flat(packed["preprocessing"]),
        config=sorted(golden.keys(json.loads(packed["config"]))),
        head=[f"{name}: {tuple(tensor.shape)}" for name, tensor in packed["head"].items()],
    )


def test_exported_model(golden, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    given = ["--check", "synthetic:pairs=20,seed=5", "--faces", "33", "--runs", "0"]
    given += ["--model", "demo", "--out", "m.onnx"]
    printed = golden.command(tmp_path, "export/export.py", *given)
    model = onnx.load(tmp_path / "m.onnx")
    golden.check(
        "export",
        printed=golden.text_lines(printed),
        inputs=[entry.name for entry in model.graph.input],
        outputs=[entry.name for entry in model.graph.output],
        metadata=sorted(entry.key for entry in model.metadata_props),
    )
