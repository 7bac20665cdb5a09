"""A small job for each command, below one folder: what it reads, its flags and what it makes."""

from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import torch

import network
from data.images import encode_jpeg
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces
from data.verification import write_bin
from tests.helpers import TINY, TINY_NAME, write_people
from utils.methods import build

PEOPLE, EACH = 8, 3
BACKBONE = ["--backbone_name", TINY_NAME, "--backbone_weights", "backbone.pth", "--device", "cpu"]
NORM = ["--model", "embedding_norm", *BACKBONE, "--batch_size", "4", "--workers", "1"]
CONFIG = """
from utils.config import Method, Schedule, TrainConfig, Verification

config = TrainConfig(
    name="run",
    backbone=Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16),
    backbone_weights="backbone.pth",
    head=Method("fc2", output="probability", hidden=4),
    loss=Method("idq"),
    train_images="faces",
    classes_per_batch=4,
    images_per_class=2,
    schedule=Schedule(epochs=2, steps_per_epoch=3, lr=1e-3),
    verification=Verification(dataset_path=".", targets=("set",)),
    log_every=1,
    workers=1,
    device="cpu",
)
"""
CREATED = ["--created", "2026-01-01", "--device", "cpu"]
DATED = ("about.json", "environment.json", "log.txt", "metrics.jsonl", "config.json", "config.py")


class Job(NamedTuple):
    """A command, what it makes, the folder or file of images that it reads, and how it resumes.

    `again` are its arguments after a fault, where they are others.
    """

    script: str
    arguments: list[str]
    made: str
    reads: str = "faces"
    again: list[str] | None = None


def _score(form, *more):
    out = f"out/scores.{form}"
    return Job("scoring/score_images.py", ["faces", *NORM, "--out", out, *more], "out")


def _extract(form):
    flags = ["--format", form, "--shard_images", "8", "--batch_size", "4", "--workers", "1"]
    arguments = ["--images", "faces", "--out", "out", *BACKBONE, *flags]
    return Job("extraction/extract.py", arguments, "out")


def _align(form, photos, *more):
    arguments = [photos, "--out", "out", "--format", form, "--threads", "1", *more]
    return Job("photos/align_faces.py", arguments, "out")


def _evaluate(script, *more, out="out"):
    return Job(script, ["--target", "faces:faces", *BACKBONE, "--batch_size", "4", *more], out)


VERIFY = "evaluation/verification_risk_fnmr.py"
JOBS = {
    **{f"score {form}": _score(form) for form in ("csv", "json", "jsonl", "parquet")},
    "score report": _score("csv", "--report", "out/sheet.html"),
    "extract npy": _extract("npy"),
    "extract parquet": _extract("parquet"),
    "align folder": _align("folder", "faces"),
    "align rec": _align("rec", "list.txt"),
    "align bin": _align("bin", "faces", "--pairs", "pairs.csv"),
    "train": Job(
        "network.py",
        ["--config_file", "config.py", "--model_dir", "out"],
        "out",
        again=["--resume", "out"],
    ),
    "evaluate": _evaluate(VERIFY, "--estimator", "embedding_norm", "--json", "out/result.json"),
    "compare": _evaluate("evaluation/compare.py", "--methods", "embedding_norm", "--out", "out"),
    "calibrate": _evaluate(
        "evaluation/calibrate.py", "--estimator", "embedding_norm", "--out", "out/c.json"
    ),
    "pack model": Job(
        "export/pack_model.py",
        [*("--model_dir", "run", "--out", "out/model.pt", "--license", "none"), *CREATED],
        "out",
        "",
    ),
    "export": Job(
        "export/export.py",
        ["--model", "run", "--out", "out/model.onnx", "--faces", "32", "--runs", "0"],
        "out",
        "",
    ),
    "pack faces": Job("data/recordio.py", ["--images", "faces", "--out", "out/pack"], "out"),
}


def write_inputs(folder):
    """Write what the jobs read: faces, a list, pairs, a pack, a set, weights and a config."""
    faces = SyntheticFaces(PEOPLE, EACH, seed=5)
    paths = write_people(folder / "faces", faces, encode_jpeg, "jpg")
    names = [str(path.relative_to(folder)) for path in paths]
    labels = faces.labels.tolist()
    lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
    (folder / "list.txt").write_text("".join(lines))
    firsts = range(0, len(faces), EACH)
    pairs = [pair for row in firsts for pair in ((row, row + 1, 1), (row, (row + 5) % 24, 0))]
    inner = [name.removeprefix("faces/") for name in names]
    rows = [f"{inner[first]},{inner[second]},{same}\n" for first, second, same in pairs]
    (folder / "pairs.csv").write_text("".join(rows))
    with RecordWriter(folder / "pack") as writer:
        for path, label in zip(paths, labels, strict=True):
            writer.write_image(label, path.read_bytes())
    sides = [paths[side].read_bytes() for pair in pairs for side in pair[:2]]
    write_bin(folder / "set.bin", sides, [bool(same) for *_, same in pairs])
    torch.manual_seed(0)
    torch.save(build("models.backbones", TINY).state_dict(), folder / "backbone.pth")
    (folder / "config.py").write_text(CONFIG)
    with chdir(folder):
        assert network.main(["--config_file", "config.py", "--model_dir", "run"]) == 0


def content(folder):
    """Every file below a folder by its name, but for those of the job itself or with the time."""
    paths = {path.relative_to(folder): path for path in sorted(Path(folder).rglob("*"))}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if path.is_file() and name.parts[0] != ".aligned" and path.name not in DATED
    }
