"""For all tests: one thread per process, and no time limits that a busy machine would break."""

import os
import socket
import subprocess
import sys
from pathlib import Path

# `pytest -n 2` on two cores is faster than four threads that wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parents[1]

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def ranks():
    """Return a function that runs a program as the ranks of one job, on this machine's CPU."""

    def run(program: str, *arguments: str, size: int = 2) -> list[subprocess.CompletedProcess[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-c", program, *arguments]
        started = []
        for rank in range(size):
            own = {"PYTHONPATH": ROOT, "RANK": rank, "LOCAL_RANK": rank, **job}
            started.append(
                subprocess.Popen(
                    command,
                    env=os.environ | {name: str(value) for name, value in own.items()},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            said = [process.communicate(timeout=120) for process in started]
        except subprocess.TimeoutExpired:
            for process in started:
                process.kill()
                process.communicate()
            raise
        return [
            subprocess.CompletedProcess(command, process.returncode, *texts)
            for process, texts in zip(started, said, strict=True)
        ]

    return run
