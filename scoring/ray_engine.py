"""Scoring on many machines: the same scorer as a Ray Data pipeline, Parquet parts out.

For score_images.py --engine ray. The output is a folder of parts that readers take as one table.
Each part is written whole by the worker that scored it, under a name that its inputs fix: a worker
that dies, or a job that is stopped, loses and doubles no row.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pyarrow import parquet

from photos.sources import Item
from scoring.job import Job, ScoreOptions, Stopped, changed_inputs, score_chunks
from scoring.rows import KEY, WAY_OUT, Row, arrow_table, as_line, digest, plain_name
from utils.cli import END_SIGNALS
from utils.files import Json, parse_json
from utils.long_work import Progress, StopRequest, UnreadableShare
from utils.parts import PartStore

PART_INPUTS = 512
PARTS_EACH = 64  # parts for each worker between two starts of the pipeline
_FACTS = b"face-uncertainty part"
_PATIENCE = 5  # seconds, for a machine to answer
_ROOT = Path(__file__).resolve().parents[1]


def score(options: ScoreOptions) -> None:
    """Score on a cluster, into the folder `options.out`; see `scoring.job.score`."""
    assert options.out is not None
    job = Job(options)
    fingerprint = options.fingerprint(job.scorer)
    parts = ParquetParts(options.out, fingerprint)
    is_finished = parts.open(restart=options.restart)
    with closing(parts):
        if is_finished:
            with job.progress() as progress:
                parts.check_inputs(options.open_sources().items(), progress)
            sys.stdout.write(f"{options.out} is finished; --restart scores the inputs again\n")
            return
        sources = options.open_sources()
        header = {**job.scorer.model.provenance.to_dict(), **fingerprint}
        task = Task(options, ParquetParts(options.out, fingerprint), header)
        with StopRequest() as stop, job.progress() as progress:
            score_missing(parts.missing(sources.items(), progress), task, stop, progress)
        for _ in job.counted(parts.rows()):
            pass
        if not job.summary.statuses:
            raise job.no_photos()
        job.write_sheet()
        parts.finish()
    job.finish(sources, options.out)


class PartFacts(NamedTuple):
    """What a part says of itself, as JSON.

    Attributes:
        number: of the part, from 0.
        inputs: photos and faces that it was made from.
        digest: of their names.
        faces: rows of status "scored".
        bad: inputs that are unreadable.
    """

    number: int
    inputs: int
    digest: str
    faces: int
    bad: int = 0

    def to_json(self) -> str:
        """Return one line that `PartFacts(**json.loads(line))` reads."""
        return json.dumps(self._asdict())


class ParquetParts:
    """The output: parts that all machines see at the same path, whose name ends in .parquet.

    Files whose names begin with `_` or `.` hold no rows; Parquet readers pass them over.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Json]) -> None:
        self._store = PartStore(
            path,
            fingerprint,
            name="part-{:08d}.parquet",
            about="_about.json",
            finished="_finished.json",
            way_out=WAY_OUT,
        )
        self._count = 0  # of the parts of all inputs

    def open(self, *, restart: bool = False) -> bool:
        """Make the folder, or take up the one that is there; return whether it is finished.

        Raises:
            ValueError: it was begun with other settings, or holds something else.
        """
        self._store.claim(restart)
        return self._store.is_finished

    def missing(
        self, items: Iterator[Item], progress: Progress
    ) -> Iterator[tuple[int, list[Item]]]:
        """Yield number and inputs of the parts that are not there; `progress` counts the others.

        Raises:
            ValueError: a part was made from other inputs.
        """
        number = 0
        while part := list(islice(items, PART_INPUTS)):
            facts = self._facts(number)
            if facts is None:
                yield number, part
            elif facts.digest != _names_digest(part):
                raise ValueError(
                    f"{self._store.path(number)}: the inputs have changed since it was made (files "
                    "were added, removed or renamed): --restart begins anew"
                )
            else:
                progress.add_finished(facts.inputs)
            number = self._count = number + 1

    def check_inputs(self, items: Iterator[Item], progress: Progress) -> None:
        """Raise ValueError where finished parts were made from other inputs."""
        added = next(self.missing(items, progress), None)
        if added or self._count < len(self._store.numbers()):
            what = f"{added[1][0].file} was added" if added else "some were removed"
            raise changed_inputs(self._store.folder, what)

    def write(
        self, number: int, items: Sequence[Item], rows: Sequence[Row], header: Mapping[str, object]
    ) -> PartFacts:
        """Write a part, whole or not at all; writing it again leaves the same file."""
        faces, bad = (
            sum(row["status"] == status for row in rows) for status in ("scored", "unreadable")
        )
        facts = PartFacts(number, len(items), _names_digest(items), faces, bad)
        metadata = {KEY: as_line(header).encode(), _FACTS: facts.to_json().encode()}
        table = arrow_table(rows, metadata)
        self._store.write(number, lambda path: parquet.write_table(table, path, compression="zstd"))
        return facts

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all parts in order, part by part; OSError where one is gone."""
        for number in self._store.missing(range(self._count)):
            raise OSError(f"{self._store.path(number)} is gone: the same command makes it again")
        for number in self._store.numbers():
            with self._store.reading(number) as path:
                rows = parquet.read_table(path).to_pylist()
            yield from rows

    def finish(self) -> None:
        """Say that all parts are there."""
        self._store.finish()

    def close(self) -> None:
        """Let another process have the folder."""
        self._store.close()

    def _facts(self, number: int) -> PartFacts | None:
        if not self._store.has(number):
            return None
        with self._store.reading(number) as path:
            return PartFacts(**parse_json(parquet.read_schema(path).metadata[_FACTS]))


@dataclass(frozen=True)
class Task:
    """What every worker does; sent to each.

    Attributes:
        options: of the job.
        parts: where they are written.
        header: what the numbers come from, for every part.
    """

    options: ScoreOptions
    parts: ParquetParts
    header: Mapping[str, object]


class PartScorer:
    """One worker: it opens the model once and then scores part after part."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._scorer = task.options.open_scorer()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Score the parts of a batch of Ray Data as the local engine does, and write them."""
        task, facts = self._task, []
        for number, pickled in zip(batch["part"], batch["items"], strict=True):
            items = pickle.loads(pickled)  # of this job's own process, never from a file
            chunks = score_chunks(self._scorer, iter(items), task.options)
            rows = [row for chunk in chunks for row in chunk.to_rows()]
            facts.append(task.parts.write(int(number), items, rows, task.header).to_json())
        return {"facts": facts}


def score_missing(
    missing: Iterator[tuple[int, list[Item]]], task: Task, stop: StopRequest, progress: Progress
) -> None:
    """Score parts on the cluster that the options name, or on one that is started here.

    Raises:
        ValueError: Ray is not installed, no such cluster, or it is too small.
        Stopped: after a stop request, looked for after every part; finished parts are kept.
    """
    options = task.options
    share = UnreadableShare(options.max_bad_share)
    with _cluster(options.ray_address, options.ray_workers) as ray:
        workers, gpus = _pool(ray, options.ray_workers, options.device)
        while wave := list(islice(missing, workers * PARTS_EACH)):
            for facts in _run(ray, wave, task, workers, gpus):
                share.add(facts.inputs, facts.bad, f"rows of part {facts.number} are unreadable")
                progress.add_faces(facts.faces)
                progress(facts.inputs)
                if stop.is_requested:
                    raise Stopped


def _run(
    ray: ModuleType, wave: list[tuple[int, list[Item]]], task: Task, workers: int, gpus: int
) -> Iterator[PartFacts]:
    rows = [{"part": number, "items": pickle.dumps(items)} for number, items in wave]
    scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        PartScorer,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        num_cpus=1,
        num_gpus=gpus,
    )
    try:
        for row in scored.iter_rows():
            yield PartFacts(**json.loads(row["facts"]))
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        causes = [line for line in lines if re.match(r"\w*Error: ", line)] or lines  # among traces
        cause = causes[-1] if causes else type(error).__name__
        raise ValueError(
            f"the Ray job failed: {cause}; finished parts are kept, and the same command resumes "
            "with the others"
        ) from error


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[ModuleType]:
    """Join a cluster, or start one with a core more than workers: that is the pipeline's own."""
    ray = _import_ray()
    if address is not None and address not in ("auto", "local"):
        _check_reachable(address)
    size = {} if address else {"num_cpus": max(os.cpu_count() or 1, (workers or 1) + 1)}
    handlers = {number: signal.getsignal(number) for number in END_SIGNALS}
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
            **size,
        )
    except Exception as error:  # Ray raises plain ones too, as where a busy machine is too slow
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address is None:
            raise ValueError(f"Ray does not start: {why}; the same command tries again") from error
        raise ValueError(
            f"no Ray cluster at {address}: {why}; start one with ray start --head, or leave "
            "--ray_address out for one on this machine"
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


def _pool(ray: ModuleType, workers: int | None, device: str) -> tuple[int, int]:
    """Choose the number of workers, and GPUs of each."""
    resources = ray.cluster_resources()
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    on_gpu = gpus > 0 and device in ("auto", "cuda")
    most = min(cores - 1, gpus) if on_gpu else cores - 1
    if most < 1 or (workers or 1) > most:
        raise ValueError(
            f"--ray_workers {workers or 1}: the cluster has {cores} cores and {gpus} GPUs; one "
            f"core is the pipeline's own, so it takes up to {max(most, 0)}"
        )
    return workers or most, 1 if on_gpu else 0


def _import_ray() -> ModuleType:
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


def _names_digest(items: Sequence[Item]) -> str:
    return digest([plain_name(item) for item in items])
