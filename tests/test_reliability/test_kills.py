"""Long commands killed anywhere, power included: what the same command then makes is the same.

FACEUQ_KILLS is how many kills each command gets (3), beside those at a time and in a row;
docs/reliability.md has the counts of a run with 50.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec

import pytest

from data.synthetic import SyntheticFaces
from tests.helpers import ROOT, TINY_NAME, TORCHRUN, child_of_rank, write_people

KILLS = int(os.environ.get("FACEUQ_KILLS", "3"))
LOST = ("", "cut", "half", "zeros", "names")  # what a kill takes along
RUN = """
from utils.config import Branch, Method, Schedule, TrainConfig, Verification

def head(loss, output):
    return dict(head=Method("fc2", output=output, hidden=4, dropout=0.3), loss=Method(loss))

heads = {"one": head("idq", "probability"), "other": head("fast_mls", "variance")}
config = TrainConfig(
    name="tiny",
    backbone=Method("iresnet", layers=(1, 1, 1, 1), widths=(4, 4, 8, 8), embedding_size=16),
    backbone_weights="../inputs/backbone.pth",
    HEADS,
    train_images="synthetic:identities=6,images=3,seed=1",
    classes_per_batch=4,
    images_per_class=2,
    schedule=Schedule(epochs=2, steps_per_epoch=4, lr=1e-2, drop_at=(1.5,)),
    verification=Verification(targets=("synthetic:pairs=12,seed=9",)),
    log_every=2,
    workers=1,
    device="cpu",
)
"""
ONE_HEAD, HEADS = "**heads['one']", "branches=tuple(Branch(n, **h) for n, h in heads.items())"


@dataclass(frozen=True)
class Job:
    """A command that is to be killed.

    Attributes:
        script: path of the command.
        arguments: of each start.
        resume: those of later starts, once this file is there.
        constants: of the product, so that little work has many parts.
        result: files that are whole whenever they are there.
    """

    script: str
    arguments: Sequence[str]
    resume: tuple[str, Sequence[str]] = ("", ())
    constants: Mapping[str, float] = field(default_factory=dict)
    result: Sequence[str] = ()

    def start(self, commands, folder, **orders):
        file, resume = self.resume
        arguments = resume if file and (folder / file).exists() else self.arguments
        return commands(folder, self.script, *arguments, constants=self.constants, **orders)


def training(config):
    return Job(
        "network.py",
        ["--config_file", f"../inputs/{config}.py", "--model_dir", "run"],
        ("run/last.pt", ["--resume", "run"]),
        {"training.trainer.SECONDS_BETWEEN_SAVES": 0.0},
    )


def extraction(form):
    flags = ["--images", "../inputs/people", "--out", "out", "--format", form, "--batch_size", "4"]
    flags += ["--backbone_name", TINY_NAME, "--backbone_weights", "../inputs/backbone.pth"]
    flags += ["--shard_images", "8", "--max_bad_share", "0.5", "--device", "cpu"]
    return Job("extraction/extract.py", flags)


def scoring(name):
    flags = ["../inputs/people", "--model", "demo", "--aligned", "yes", "--batch_size", "4"]
    flags += ["--out", name, "--report", "sheet.html"]
    constants = {"scoring.job.PART_INPUTS": 8}
    return Job("scoring/score_images.py", flags, constants=constants, result=[name, "sheet.html"])


def aligning(form):
    pairs = ["--pairs", "../inputs/pairs.csv"] if form == "bin" else []
    flags = ["../inputs/photos", "--out", "out", "--format", form, *pairs]
    constants = {"photos.face_set.PART_PHOTOS": 4}
    result = {"rec": ["out/train.rec"], "bin": ["out/pairs.bin"]}.get(form, [])
    return Job("photos/align_faces.py", flags, constants=constants, result=result)


JOBS = {
    "training": training("one"),
    "training of several heads": training("heads"),
    "extraction to npy": extraction("npy"),
    "extraction to parquet": extraction("parquet"),
    "embedding with parts": Job(
        "evaluation/verification_risk_fnmr.py",
        [
            *("--model", "demo", "--target", "faces:../inputs/sound", "--batch_size", "4"),
            *("--fmr", "0.1", "--parts", "parts", "--json", "a.json", "--save_features", "f.npz"),
        ],
        constants={"evaluation.embed.PART_IMAGES": 8},
        result=["a.json", "f.npz"],
    ),
    **{f"scoring to {kind}": scoring(f"s.{kind}") for kind in ("csv", "json", "jsonl", "parquet")},
    **{f"aligning to {form}": aligning(form) for form in ("folder", "rec", "bin")},
}


@pytest.fixture(scope="module")
def work(commands, tmp_path_factory, tiny_weights):
    """A folder to work in, beside one with inputs."""
    root = tmp_path_factory.mktemp("kills")
    inputs = root / "inputs"
    faces = SyntheticFaces(identities=9, images=3, seed=2)
    inputs.mkdir()
    shutil.copy(tiny_weights, inputs / "backbone.pth")
    for name, heads in (("one", ONE_HEAD), ("heads", HEADS)):
        (inputs / f"{name}.py").write_text(RUN.replace("HEADS", heads))
    for folder in ("sound", "people"):
        paths = write_people(inputs / folder, faces)
    paths[13].write_bytes(paths[13].read_bytes()[:900])
    command = ["data/synthetic.py", "--format", "photos", "--severity", 0, "--identities", 3]
    assert commands(root, *command, "--images", 3, "--out", "inputs/photos").code == 0
    names = sorted(
        str(path.relative_to(inputs / "photos")) for path in (inputs / "photos").rglob("*.jpg")
    )
    pairs = [f"{a},{b},{int(a[:5] == b[:5])}\n" for a, b in zip(names, names[1:], strict=False)]
    (inputs / "pairs.csv").write_text("".join(pairs))
    return root / "work"


def contents(folder):
    """What the files of a folder hold, by their names: what is of the clock, or the log, is not."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name, content = str(path.relative_to(folder)), path.is_file() and path.read_bytes()
        if path.name in ("log.txt", "environment.json"):
            content = b""
        if path.name == "metrics.jsonl":
            masked = {"time": None, "memory_gib": None}
            content = [json.loads(line) | masked for line in content.splitlines()]
        files[name] = content
    return files


def begin(work):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()


@pytest.fixture(scope="module", params=JOBS)
def job(request):
    return JOBS[request.param]


@pytest.fixture(scope="module")
def whole(job, commands, work):
    """A run that nothing stopped: what it leaves, its calls, and its seconds."""
    for _ in range(2):  # the first one imports what the second has already
        begin(work)
        begun = time.monotonic()
        done = job.start(commands, work)
        assert done.code == 0, done.err
    files, seconds = contents(work), time.monotonic() - begun
    assert not [name for name in files if ".tmp" in name or "lock" in name]
    return files, done.calls, seconds


def half_files(job, work, whole):
    """Files with names of their own that are not whole."""
    present = [name for name in job.result if (work / name).exists()]
    return [f"{name} is half" for name in present if (work / name).read_bytes() != whole[name]]


def differences(commands, job, work, whole):
    """How what the same command makes differs from a run that nothing stopped."""
    done = job.start(commands, work)
    if done.code != 0:
        return [f"exit code {done.code}: {done.err}"]
    left = contents(work)
    return [f"{x} differs" for x in left.keys() | whole.keys() if left.get(x) != whole.get(x)]


def moments(calls, draw):
    """Calls spread over all of them, after one inside a file that is being written."""
    inside = [n for n, call in enumerate(calls, 1) if call.startswith("write") and ".tmp" in call]
    share = len(calls) / KILLS
    return [draw.choice(inside), *(1 + int(share * (k + draw.random())) for k in range(KILLS))]


@pytest.mark.parametrize("how", ["at a call", "at a time"])
def test_killed_once_it_ends_the_same(job, commands, work, whole, how, record_property):
    files, calls, seconds = whole
    draw, problems, kills = random.Random(f"{job} {how}"), [], Counter()
    orders = [{"at": at} for at in moments(calls, draw)]
    if how == "at a time":
        orders = [{"seconds": draw.uniform(0, seconds)} for _ in range(1 + KILLS // 5)]
    for place, order in enumerate(orders):
        lost = LOST[(place + len(calls)) % len(LOST)] if "at" in order else ""
        begin(work)
        ended = job.start(commands, work, lost=lost, **order)
        assert ended.code in (-signal.SIGKILL, *[0] * ("seconds" in order)), ended
        kills[lost or how] += ended.code != 0
        for problem in [*half_files(job, work, files), *differences(commands, job, work, files)]:
            problems.append(f"{order} {lost} {ended.fault}: {problem}")
    record_property("kills", dict(kills))
    assert not problems, "\n".join(problems)


def test_killed_time_and_again_it_ends_the_same(job, commands, work, whole, record_property):
    files, calls, _ = whole
    draw, kills = random.Random(f"{job}"), Counter()
    for _ in range(1 + KILLS // 25):
        problems, struck = [], []
        begin(work)
        for _ in range(min(KILLS + 1, 8)):
            at, lost = draw.randint(1, len(calls) // 2), draw.choice(LOST)
            ended = job.start(commands, work, at=at, lost=lost)
            assert ended.code in (0, -signal.SIGKILL), (struck, ended)
            struck.append(f"{at} {lost} {ended.fault}")
            kills["in a row"] += ended.code != 0
            problems += half_files(job, work, files)
        problems += differences(commands, job, work, files)
        assert not problems, (struck, problems)
    record_property("kills", dict(kills))


@pytest.mark.slow
@pytest.mark.skipif(KILLS < 50, reason="takes a quarter of an hour: FACEUQ_KILLS=50 runs it")
def test_training_by_two_processes_killed_in_a_row_ends_the_same(commands, work, record_property):
    """One process at a time, which the others have to notice, or all with their launcher."""
    program = "import network, sys, training.trainer as t\nt.SECONDS_BETWEEN_SAVES = 0.0\n"
    (work.parent / "train.py").write_text(f"{program}sys.exit(network.main(sys.argv[1:]))\n")
    command = [sys.executable, *TORCHRUN, work.parent / "train.py"]
    begin_new = ["--config_file", "../inputs/one.py", "--model_dir", "run"]
    begin_new += ["--set", "schedule.steps_per_epoch=100"]
    draw, kills = random.Random(0), Counter()
    own = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(seconds=None, rank=None):
        again = (work / "run" / "last.pt").exists()
        arguments = ["--resume", "run"] if again else begin_new
        options = {"env": own, "stdout": -3, "stderr": -1}
        with subprocess.Popen([*command, *arguments], cwd=work, text=True, **options) as job:
            try:
                err = job.communicate(timeout=seconds)[1]
            except subprocess.TimeoutExpired:
                ranks = (0, 1) if rank is None else (rank,)
                numbers = [job.pid] * (rank is None)
                with suppress(AssertionError):  # it has not started any yet
                    numbers += [child_of_rank(job.pid, each) for each in ranks]
                for number in numbers:
                    os.kill(number, signal.SIGKILL)
                err = job.communicate(timeout=120)[1]
                kills["all" if rank is None else f"process {rank}"] += job.returncode != 0
            assert "Traceback" not in err or "torch.distributed" in err
            return job.returncode, err

    begin(work)
    begun = time.monotonic()
    code, err = start()
    assert code == 0, err
    whole, seconds = contents(work), time.monotonic() - begun
    for _ in range(KILLS // 5):
        begin(work)
        for rank in draw.sample((0, 1, None, None, 0, 1), 5):
            start(draw.uniform(0.3, 0.9) * seconds, rank)
        code, err = start()
        assert code == 0, err
        left = contents(work)
        assert not [x for x in left.keys() | whole.keys() if left.get(x) != whole.get(x)]
    record_property("kills", dict(kills))


@pytest.mark.slow
@pytest.mark.skipif(KILLS < 50, reason="takes half an hour: FACEUQ_KILLS=50 runs it")
@pytest.mark.skipif(not (find_spec("ray") and find_spec("pandas")), reason="needs Ray and pandas")
def test_scoring_by_ray_killed_in_a_row_ends_the_same(library, commands, work, record_property):
    """Its driver at a time, driver and workers at a call; each fifth start may end."""
    photos = sorted(str(path) for path in (work.parent / "inputs" / "people").rglob("*.png"))
    (work.parent / "inputs" / "list.txt").write_text("".join(f"{x}\n" for x in photos * 80))
    script, out = ROOT / "scoring" / "score_images.py", work / "s.parquet"
    command = [sys.executable, script, "../inputs/list.txt", "--model", "demo", "--aligned", "yes"]
    command += ["--engine", "ray", "--ray_workers", "2", "--out", out.name]
    draw, log = random.Random(0), work.parent / "log"

    def start(seconds=None, **faults):
        """Return the exit code, and the calls that met with a fault."""
        log.write_text("")
        own = {f"FAULTS_{name.upper()}": str(value) for name, value in faults.items()}
        own |= {"LD_PRELOAD": str(library), "FAULTS_LOG": str(log)} if faults else {}
        with subprocess.Popen(command, cwd=work, env=os.environ | own, stdout=-3) as job:
            try:
                job.wait(seconds)
            except subprocess.TimeoutExpired:
                job.kill()
        return job.returncode, [x for x in log.read_text().splitlines() if x.startswith("!")]

    begin(work)
    begun = time.monotonic()
    assert start()[0] == 0
    whole, seconds, kills = contents(work), time.monotonic() - begun, Counter()
    for _ in range(KILLS // 5):
        begin(work)
        for _ in range(5):
            at = (
                {"at": draw.randint(1, 60), "do": "kill", "folder": work}
                if draw.random() < 0.5
                else {}
            )
            code, struck = start(seconds=draw.uniform(0.3, 1) * seconds, **at)
            kills["driver"] += code != 0
            kills["workers"] += sum("part-" in call for call in struck)
        assert start()[0] == 0
        assert contents(work) == whole
    record_property("kills", dict(kills))
