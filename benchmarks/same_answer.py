"""Whether the same work gives the same answer: each command again, with one thing changed.

OMP_NUM_THREADS=1 python benchmarks/same_answer.py
OMP_NUM_THREADS=1 python benchmarks/same_answer.py --faces lfw_dev.rec \
    --config config/config_mbf_idq_lfw.py --set backbone_weights=mbf_y1.pth \
    train_images=lfw_train.rec head.dropout=0

A head is trained, and scores, evaluates and extracts a part of the faces; whole photos are stood in
for by these faces. The table has the largest differences from the first run of a command, and what
is promised in docs/reliability.md; tests/test_reliability/test_same_answer.py holds the demo model
to it. The exit code is 1 where a promise is broken. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from data.extracted import Extracted
from data.faces import open_faces
from data.images import encode_png
from models.load import load_checkpoint
from utils.arrays import read_npz

ROOT = Path(__file__).resolve().parents[1]
# where a command writes is OUT, what it reads FACES; MODEL and CONFIG are its flags
COMMANDS = {
    "train": "network.py CONFIG --model_dir OUT/run --set workers=2 device=cpu",
    "extract": "extraction/extract.py MODEL --images FACES --out OUT/extracted --dtype float32"
    " --shard_images 128 --batch_size 64 --workers 1 --device cpu",
    "evaluate": "evaluation/verification_risk_fnmr.py MODEL --target faces:FACES --device cpu"
    " --non_mated 2000 --save_features OUT/features.npz --batch_size 64",
    "score": "scoring/score_images.py FACES MODEL --out OUT/scores.parquet --device cpu"
    " --batch_size 64 --workers 1",
    "align": "photos/align_faces.py FACES --out OUT/aligned --threads 1",
}
EXACT = (0.0, 0.0)


@dataclass(frozen=True)
class Case:
    """A command with one thing changed.

    Attributes:
        command: of `COMMANDS`.
        changed: in words.
        flags: after the usual ones.
        threads: of the computation.
        processes: under torchrun.
        allowed: largest cosine distance (embeddings; a trained head's weights) and relative
            difference (uncertainties; losses); `EXACT`: the same bytes.
        model: instead of the run: a key of `OTHER_MODELS`.
        python: that runs it.
    """

    command: str
    changed: str
    flags: str = ""
    threads: int = 1
    processes: int = 1
    allowed: tuple[float, float] = EXACT
    model: str = ""
    python: str = sys.executable


ROUNDING = (1e-10, 1e-4)
CASES = (
    Case("train", "again"),
    Case("train", "5 loader workers", "--set workers=5"),
    Case("train", "2 threads", threads=2, allowed=ROUNDING),
    Case("train", "2 processes", processes=2, allowed=ROUNDING),
    Case("extract", "again"),
    Case("extract", "5 workers", "--workers 5"),
    Case("extract", "shards of 64, not 128", "--shard_images 64"),
    Case("extract", "2 processes", processes=2),
    Case("extract", "batches of 1, not 64", "--batch_size 1", allowed=ROUNDING),
    Case("extract", "batches of 7, not 64", "--batch_size 7", allowed=ROUNDING),
    Case("extract", "2 threads", threads=2, allowed=ROUNDING),
    Case("extract", "packed file", model="packed"),
    Case("extract", "packed, 16 bits", model="half", allowed=(1e-5, 1e-2)),
    Case("extract", "ONNX Runtime", model="onnx", allowed=ROUNDING),
    Case("extract", "ONNX Runtime, 8 bits", model="int8", allowed=(0.05, np.inf)),
    Case("evaluate", "again"),
    Case("evaluate", "kept in parts", "--parts OUT/parts"),
    Case("evaluate", "2 processes", processes=2),
    Case("evaluate", "batches of 1, not 64", "--batch_size 1", allowed=ROUNDING),
    Case("evaluate", "batches of 7, not 64", "--batch_size 7", allowed=ROUNDING),
    Case("evaluate", "2 threads", threads=2, allowed=ROUNDING),
    Case("score", "again"),
    Case("score", "5 workers", "--workers 5"),
    Case("score", "Ray", "--engine ray --ray_workers 2"),
    Case("score", "batches of 1, not 64", "--batch_size 1", allowed=ROUNDING),
    Case("score", "batches of 7, not 64", "--batch_size 7", allowed=ROUNDING),
    Case("score", "2 threads", threads=2, allowed=ROUNDING),
    Case("align", "again"),
    Case("align", "5 threads", "--threads 5"),
)
OTHER_MODELS = {
    "packed": "export/pack_model.py MODEL --out OUT/packed.pt --license unknown",
    "half": "export/pack_model.py MODEL --out OUT/half.pt --license unknown --half"
    " --pairs faces:FACES --keep_color",
    "onnx": "export/export.py MODEL --out OUT/onnx.onnx --check faces:FACES --runs 0",
    "int8": "export/export.py MODEL --out OUT/int8.onnx --check faces:FACES --runs 0 --int8"
    " --calibration_faces FACES",
}


@dataclass(frozen=True)
class Answer:
    """What a command answered.

    Attributes:
        vectors: (N, D) embeddings, or the weights of a head as one; None where it has none.
        values: (N, ...) uncertainties, or losses.
        sha256: of all of it, printed tables included.
    """

    vectors: NDArray[np.float64] | None
    values: NDArray[np.float64] | None
    sha256: str


Run = Callable[[Sequence[str], Case], str]  # words of a command, how it is run: what it printed


def subprocess_run(words: Sequence[str], case: Case) -> str:
    """Run a command in processes of its own; SystemExit where it fails."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={case.processes}"]
    command = [case.python, *(launcher if case.processes > 1 else []), str(ROOT / words[0])]
    environment = {"OMP_NUM_THREADS": str(case.threads), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *words[1:]], env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} {' '.join(words[1:])}:\n{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Bench:
    """Runs cases in a folder.

    Attributes:
        folder: for all that is written.
        faces: folder per identity.
        model: flags that name the model.
        config: flags that name the config.
        run: runs a command.
    """

    folder: Path
    faces: Path
    model: str
    config: str
    run: Run = subprocess_run
    _made: dict[str, str] = field(default_factory=dict)

    def answer(self, case: Case) -> Answer:
        """Run a case and read what it answered."""
        out = self.folder / f"{case.command} {case.changed}".replace(" ", "_")
        out.mkdir()
        model = self._other(case.model) if case.model else self.model
        printed = self.run(self._words(f"{COMMANDS[case.command]} {case.flags}", out, model), case)
        return READERS[case.command](out, printed.replace(str(out), "OUT"))

    def _other(self, name: str) -> str:
        if name not in self._made:
            words = self._words(OTHER_MODELS[name], self.folder, self.model)
            self.run(words, Case("", ""))
            path = self.folder / f"{name}{'.pt' if name in ('packed', 'half') else '.onnx'}"
            self._made[name] = f"--model {path}"
        return self._made[name]

    def _words(self, command: str, out: Path, model: str) -> list[str]:
        replaced = {"FACES": str(self.faces), "OUT": str(out)}
        words = command.replace("CONFIG", self.config).replace("MODEL", model).split()
        for name, value in replaced.items():
            words = [word.replace(name, value) for word in words]
        return words


def _answer(vectors: object, values: object, *content: object) -> Answer:
    arrays = [None if array is None else np.asarray(array) for array in (vectors, values)]
    digest = hashlib.sha256(repr(content).encode("utf-8", "surrogateescape"))
    for array in arrays:
        digest.update(b"" if array is None else array.tobytes())
    as_doubles = (None if array is None else array.astype(np.float64) for array in arrays)
    return Answer(*as_doubles, digest.hexdigest())


def _trained(out: Path, printed: str) -> Answer:
    (log,) = (out / "run").rglob("metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    head = load_checkpoint(out / "run" / "last.pt")["head"]
    weights = np.concatenate([tensor.numpy().ravel() for tensor in head.values()])
    return _answer(weights[None], [line["loss"] for line in lines if "loss" in line])


def _extracted(out: Path, printed: str) -> Answer:
    every = Extracted(out / "extracted")
    rows = every.take(np.arange(len(every)))
    return _answer(rows.embedding, rows.uncertainty, rows.name, rows.label.tolist())


def _evaluated(out: Path, printed: str) -> Answer:
    arrays = read_npz(out / "features.npz", ("mu", "sigma_sq"))
    return _answer(*arrays.values(), printed)


def _scored(out: Path, printed: str) -> Answer:
    from pyarrow import parquet

    table = parquet.read_table(out / "scores.parquet")
    uncertainty = table["uncertainty"].to_numpy()
    return _answer(None, uncertainty, table.to_pylist())


def _aligned(out: Path, printed: str) -> Answer:
    files = sorted(path for path in (out / "aligned").rglob("*") if path.is_file())
    content = [path.read_bytes().replace(os.fsencode(out), b"OUT") for path in files]
    return _answer(None, None, [path.relative_to(out) for path in files], content)


READERS: dict[str, Callable[[Path, str], Answer]] = {
    "train": _trained,
    "extract": _extracted,
    "evaluate": _evaluated,
    "score": _scored,
    "align": _aligned,
}


def differences(first: Answer, other: Answer) -> tuple[float, float]:
    """Return the largest cosine distance, and the largest difference relative to the first."""
    distance = difference = 0.0
    if first.vectors is not None and other.vectors is not None:
        units = [a / np.linalg.norm(a, axis=1)[:, None] for a in (first.vectors, other.vectors)]
        distance = float(np.max(np.square(units[0] - units[1]).sum(axis=1) / 2))
    if first.values is not None and other.values is not None:
        difference = float(np.max(np.abs(other.values / first.values - 1)))
    return distance, difference


def measure(
    bench: Bench, command: str, python: str | None
) -> Iterator[tuple[Case, Answer, Answer]]:
    """Run a command, then every case of it: the case, the first answer and its own."""
    first = bench.answer(Case(command, "first"))
    cases = [case for case in CASES if case.changed != "Ray" or find_spec("ray")]
    if python:
        cases.append(Case(command, "another Python", allowed=ROUNDING, python=python))
    for case in cases:
        if case.command == command:
            yield case, first, bench.answer(case)


def is_kept(case: Case, first: Answer, other: Answer) -> bool:
    """Whether two answers differ by no more than is allowed."""
    if case.allowed == EXACT:
        return first.sha256 == other.sha256
    return all(np.array(differences(first, other)) <= case.allowed)


def write_faces(source: str, count: int, folder: Path) -> None:
    """Write the first faces of a source as PNG, in a folder per identity."""
    faces = open_faces(source)
    for row in range(min(count, len(faces))):
        path = folder / f"p{faces.labels[row]:05d}" / f"{row:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(faces.read(row)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where an answer differs by more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--faces", default="synthetic:identities=64,images=4,seed=5", help="scored faces")
    add("--count", type=int, default=512, help="how many of them at most (512)")
    add("--config", default=str(ROOT / "config" / "config_demo.py"), help="what is trained (demo)")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="fields of the config")
    add("--steps", type=int, default=40, help="of training (40)")
    add("--only", nargs="+", default=[*COMMANDS], choices=[*COMMANDS], help="(all)")
    add("--python", help="another interpreter, with other releases of the packages, to compare")
    add("--json", help="write the numbers here")
    args = parser.parse_args(argv)
    changes = " ".join([*args.set, "verification.targets=()", "log_every=1"])
    config = f"--config_file {args.config} --steps {args.steps} --set {changes}"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_faces(args.faces, args.count, folder / "faces")
        bench = Bench(folder, folder / "faces", "--model RUN", config)
        bench.answer(Case("train", "the run"))
        bench = replace(bench, model=f"--model {folder / 'train_the_run' / 'run'}")
        for command in args.only:
            for case, first, other in measure(bench, command, args.python):
                same = "yes" if first.sha256 == other.sha256 else "no"
                kept = "" if is_kept(case, first, other) else "BROKEN"
                rows.append([command, case.changed, *differences(first, other), same, kept])
                print(rows[-1], file=sys.stderr, flush=True)
    header = ["command", "changed", "cosine distance", "uncertainty", "same bytes", "promise"]
    print_table(header, rows)
    write_json(args.json, [dict(zip(header, row, strict=True)) for row in rows], "cpu")
    return int(any(row[-1] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
