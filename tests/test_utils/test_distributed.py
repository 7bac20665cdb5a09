import sys

import pytest
import torch

from utils.distributed import ALONE, World, in_job, is_main_process, start, stop

JOB = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
JOB |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def job(monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_one_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for size in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        world, device = start("cpu")
        assert world == ALONE == World(0, 1, 0)
        assert world.is_main
        assert not in_job()
        assert device == torch.device("cpu")
    values = torch.arange(3.0)
    world.sum_(values)
    world.barrier()
    assert values.tolist() == [0, 1, 2]
    assert world.gather("own") == ["own"]
    stop(world)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_ADDR": ""}, "WORLD_SIZE = 4, but MASTER_ADDR is not set: start with torchrun"),
        ({"LOCAL_RANK": ""}, "but LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "two"}, "environment variable WORLD_SIZE = 'two': must be a whole number"),
        ({"RANK": "4"}, r"RANK = 4: must lie in 0\.\.3, as WORLD_SIZE = 4"),
    ],
)
def test_half_an_environment_is_refused(changed, message, job):
    for name, value in changed.items():
        job.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        start("cpu")


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda:1", 2, "device = 'cuda:1' with 4 processes: one device cannot be shared; take cuda"),
        ("cuda", 1, "device = 'cuda': 2 processes on this machine, but it has 1 GPU"),
        ("auto", 1, "1 GPU; start it with --nproc_per_node=1, or take cpu"),
        ("cuda", 0, "device = 'cuda': this machine has no such device"),
        ("mps", 0, "device = 'mps' with 4 processes: one device cannot be shared; take cpu"),
        ("gpu", 0, "device = 'gpu': use auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_a_device_that_ranks_cannot_have_is_refused(device, gpus, message, job):
    job.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    job.setattr(torch.cuda, "device_count", lambda: gpus)
    job.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
    with pytest.raises(ValueError, match=message):
        start(device)


def test_the_first_rank_of_a_machine_reports_what_all_know(job):
    waited = []
    job.setattr("time.sleep", waited.append)
    assert not is_main_process()
    assert waited == [2]
    job.setenv("LOCAL_RANK", "0")
    assert is_main_process()


TALK = """
import os, torch
from utils.distributed import PeerFailed, RankLost, in_job, start, stop
world, device = start("auto" if not torch.cuda.is_available() else "cpu")
assert in_job() and device == torch.device("cpu")
values = torch.tensor([1.0, 10.0]) * (world.rank + 1)
world.sum_(values)
assert values.tolist() == [3, 30]
assert world.gather({"rank": world.rank, "long": "x" * world.rank * 1000}) == [
    {"rank": 0, "long": ""}, {"rank": 1, "long": "x" * 1000}
]
world.barrier()
if world.rank == 1:
    world.fail("no more")
else:
    try:
        world.gather(1)
    except PeerFailed as error:
        print(error)
if world.rank == 1:
    world.barrier()
    os._exit(7)
world.barrier()
for lost in (lambda: world.sum_(values), world.barrier):
    try:
        lost()
    except RankLost as error:
        print(error)
stop(world, failed=True)
raise SystemExit(2)
"""


def test_two_ranks_talk_fail_and_are_lost(ranks):
    first, second = ranks(TALK)
    assert second.returncode == 7, second.stderr
    assert first.returncode == 2, first.stderr
    failed, *lost = first.stdout.splitlines()
    assert failed == "rank 1 of 2: no more"
    assert len(lost) == 2
    for line in lost:
        assert line.startswith("lost contact with another process of this job (rank 0 of 2 says: ")
        assert "gloo/" not in line


LEAVE = """
from pathlib import Path
from utils.distributed import start, stop
world, _ = start("cpu")
import torch.distributed.nn  # as an optimizer's first step does
world.gather(0)
stop(world)
print([path.read_text() for path in Path("/proc/self/task").glob("*/comm")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_the_group_outlives_it(ranks):
    for rank in ranks(LEAVE):
        assert rank.returncode == 0, rank.stderr
        assert "gloo" not in rank.stdout


@pytest.mark.gpu
def test_each_rank_gets_its_gpu(job):
    job.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    for name in ("RANK", "LOCAL_RANK"):
        job.setenv(name, "0")
    job.setenv("LOCAL_WORLD_SIZE", "1")
    world, device = start("auto")
    assert (world.rank, world.size) == (0, 4)
    assert device == torch.device("cuda:0")
