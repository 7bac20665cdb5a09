"""Scoring on many machines: the same scorer as a Ray Data pipeline, Parquet parts out.

For score_images.py --engine ray. Each part is written whole by the worker that scored it, under a
name that its inputs fix: a worker that dies, or a job that is stopped, loses and doubles no row.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from photos.sources import Item, read_ahead
from scoring._job import AHEAD, Stopped, called
from scoring._progress import FaceProgress
from scoring._ray_parts import PartFacts, PartFolder
from scoring.columns import flat_row
from scoring.scorer import Scorer, load_scorer
from utils.stop import StopRequest

PARTS_EACH = 64  # parts for each worker between two starts of the pipeline
_PATIENCE = 5  # seconds, for a machine to answer
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Task:
    """What every worker does; sent to each.

    Attributes:
        model: as `load_scorer` takes it.
        options: its keyword arguments.
        aligned: whether all inputs are aligned faces; None leaves it to each.
        threads: of each worker, that read and decode.
        folder: of the parts, at the same place on all machines.
        header: what the numbers come from, for every part.
    """

    model: str
    options: Mapping[str, Any]
    aligned: bool | None
    threads: int
    folder: PartFolder
    header: Mapping[str, Any]


class PartScorer:
    """One worker: it opens the model once and then scores part after part."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._scorer = load_scorer(task.model, **task.options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score the parts of a batch of Ray Data, and write them."""
        done = []
        for number, pickled in zip(batch["part"], batch["items"], strict=True):
            items = pickle.loads(pickled)  # of this job's own process, never from a file
            done.append(score_part(self._scorer, int(number), items, self._task))
        return {"facts": [facts.to_json() for facts in done]}


def score_part(scorer: Scorer, number: int, items: list[Item], task: Task) -> PartFacts:
    """Score the inputs of one part as the local engine does, and write its file."""
    rows: list[dict[str, Any]] = []
    ahead = read_ahead(items, task.threads, AHEAD * task.threads)
    for start in range(0, len(items), scorer.batch_size):
        chunk = items[start : start + scorer.batch_size]
        scores = scorer.score_photos(
            (photo for _, photo in islice(ahead, len(chunk))),
            [item.aligned if task.aligned is None else task.aligned for item in chunk],
            [called(item) for item in chunk],
        )
        for score in scores:
            item = chunk[score.image]
            rows.append(flat_row(item.file, item.index, score))
    return task.folder.write(number, items, rows, task.header)


def score_with_ray(
    todo: Iterator[tuple[int, list[Item]]],
    task: Task,
    *,
    workers: int | None,
    address: str | None,
    stop: StopRequest,
    progress: FaceProgress,
) -> None:
    """Score parts on a Ray cluster.

    Args:
        todo: number and inputs of each part that is missing.
        task: see `Task`.
        workers: scorers at a time; None: one for each GPU, else one for each core but one.
        address: of a running cluster ("auto" finds it); None starts one on this machine.
        stop: looked at after every part.
        progress: told of every part.

    Raises:
        ValueError: Ray is not installed, no such cluster, or it is too small.
        Stopped: after a stop request; finished parts are kept.
    """
    with _cluster(address, workers) as ray:
        pool = _pool(ray, workers, str(task.options.get("device", "auto")))
        while wave := list(islice(todo, pool["workers"] * PARTS_EACH)):
            for facts in _run(ray, wave, task, pool):
                progress.found(facts.faces)
                progress.input(facts.inputs)
                if stop.is_requested:
                    raise Stopped


def _run(
    ray: Any, wave: list[tuple[int, list[Item]]], task: Task, pool: Mapping[str, Any]
) -> Iterator[PartFacts]:
    rows = [{"part": number, "items": pickle.dumps(items)} for number, items in wave]
    scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        PartScorer,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool["workers"], len(rows))),
        num_cpus=1,
        num_gpus=pool["gpus"],
    )
    try:
        for row in scored.iter_rows():
            yield PartFacts.from_json(row["facts"])
    except ray.exceptions.RayError as error:
        raise ValueError(
            f"the Ray job failed: {_last_line(error)}; finished parts are kept, and the same "
            "command goes on with the others"
        ) from error


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """Join a cluster, or start one with a core more than workers: that is the pipeline's own."""
    ray = _import_ray()
    if address is not None and address not in ("auto", "local"):
        _check_reachable(address)
    size = {} if address else {"num_cpus": max(os.cpu_count() or 1, (workers or 1) + 1)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
            **size,
        )
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(
            f"no Ray cluster at {address}: {str(error).strip().splitlines()[0]}; start one with "
            "ray start --head, or leave --ray_address out for one on this machine"
        ) from error
    for number, handler in handlers.items():  # Ray's own would abort
        signal.signal(number, handler)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address that nobody answers at, for which Ray would wait long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--ray_address {address}: no Ray cluster answers there ({error}); write HOST:PORT as "
            "ray start --head prints it, or leave it out for a cluster on this machine"
        ) from error


def _last_line(error: Exception) -> str:
    """Return what went wrong; the lines before it are Ray's traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _pool(ray: Any, workers: int | None, device: str) -> dict[str, Any]:
    """Choose the number of workers, and GPUs of each."""
    there = ray.cluster_resources()
    cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    on_gpu = gpus > 0 and device in ("auto", "cuda")
    most = min(cores - 1, gpus) if on_gpu else cores - 1
    if most < 1 or (workers or 1) > most:
        raise ValueError(
            f"--ray_workers {workers or 1}: the cluster has {cores} cores and {gpus} GPUs; one "
            f"core is the pipeline's own, so it takes up to {max(most, 0)}"
        )
    return {"workers": workers or most, "gpus": 1 if on_gpu else 0}


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray would report to its makers
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised here too
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ValueError(
            "--engine ray needs Ray, which is not installed "
            f"({error}): pip install -r requirements-ray.txt"
        ) from error
    return ray
