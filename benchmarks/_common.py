"""What benchmarks share: facts about the machine, timings in turn, tables, and JSON files.

Every script of this folder uses it.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.device import describe_device, resolve_device

_ROOT = Path(__file__).resolve().parents[1]


def machine(device: str | torch.device = "auto") -> dict[str, Any]:
    """Return where and how this was measured: hardware, threads, versions, date, command."""
    return {
        "device": describe_device(resolve_device(str(device))),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "revision": _revision(),
    }


def compare(
    sides: Mapping[str, Callable[[], Any]],
    runs: int,
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return each side's median seconds; sides run in turn, so all meet the same disturbances.

    Args:
        sides: name to a call without arguments; each runs once before, to warm up.
        runs: timings of each side, at least 1.
        device: waited for before each look at the clock, where it is a CUDA device.
        clock: of seconds; `time.process_time` counts those of this process on a busy machine.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(runs + 1):
        for name, call in sides.items():
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if turn:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def synchronise(device: str | torch.device) -> None:
    """Wait until a CUDA device has done all that it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table; floats have four significant digits, anything else is `str`."""
    print(f"| {' | '.join(header)} |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print(f"| {' | '.join(map(_cell, row))} |", flush=True)


def write_json(path: str | Path | None, rows: Any, device: str | torch.device = "auto") -> None:
    """Write `{"machine": machine(device), "rows": rows}`; nothing where no path is given."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(device), "rows": rows}
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value)} has no JSON form")


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None  # a machine without git
    return found.stdout.strip() or None
