"""A batch job of score_images: inputs are read ahead by threads, scored in chunks, and written.

Memory holds the photos that are read ahead and the faces of one part. With `--out` finished parts
lie in a folder beside it, so that the same command resumes where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from glob import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from photos.sources import Item, Sources, open_sources
from scoring.contact_sheet import ContactSheet, sheet_path
from scoring.images import LoadedImage, Source, load_items
from scoring.progress import HEADING, FaceProgress, Summary, table_lines
from scoring.rows import Row, as_line, check_path, plain_text, write_rows
from scoring.scorer import Scorer, Scores, load_scorer
from utils.files import write_text
from utils.parts import Json, PartStore
from utils.stop import StopRequest

if TYPE_CHECKING:
    from utils.config import Precision

DETECTOR = "mtcnn"
MOST_WORKERS = 16
VERSION = 1  # of what rows mean; parts of another one are not resumed
PART_INPUTS = 512  # a part is written after so many inputs,
PART_SECONDS = 20.0  # or after this time, if that is sooner
ABOUT = "about.json"
WAY_OUT = "give what it was made with, or --restart to begin anew, or another --out"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What a job does, by the names of score_images' flags; `load_scorer` explains the model's.

    Raises:
        ValueError: options that do not go together.
    """

    inputs: Sequence[str]
    model: str
    out: Path | None = None
    report: Path | None = None
    aligned: Literal["auto", "yes", "no"] = "auto"
    detector: str = DETECTOR
    every: int = 1
    max_faces: int | None = None
    target_risk: float | None = None
    refuse_risk: float | None = None
    restart: bool = False
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    backbone_name: str | None = None
    backbone_weights: str | None = None
    calibration: str | None = None
    engine: Literal["local", "ray"] = "local"
    ray_workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.engine == "ray":
            if self.out is None or self.out.suffix != ".parquet":
                raise ValueError("--engine ray writes a folder of parts: give --out NAME.parquet")
        elif self.ray_workers or self.ray_address:
            raise ValueError("--ray_workers and --ray_address go with --engine ray")
        if self.restart and self.out is None:
            raise ValueError("--restart goes with --out: without it nothing is kept")

    @property
    def threads(self) -> int:
        """Threads that read and decode."""
        return self.workers or max(1, min(MOST_WORKERS, os.cpu_count() or 1))

    @property
    def is_aligned(self) -> bool | None:
        """Whether all inputs are aligned faces; None leaves it to each."""
        return {"auto": None, "yes": True, "no": False}[self.aligned]

    def open_sources(self) -> Sources:
        """Open the inputs; ValueError where one does not exist."""
        return open_sources(list(self.inputs), every=self.every)

    def open_scorer(self) -> Scorer:
        """Open the model, and a detector other than the bundled one."""
        scorer = load_scorer(
            self.model,
            detector=self.detector,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            target_risk=self.target_risk,
            refuse_risk=self.refuse_risk,
            backbone_weights=self.backbone_weights,
            backbone_name=self.backbone_name,
            calibration=self.calibration,
            max_faces=self.max_faces,
        )
        if self.detector != DETECTOR:
            scorer.detector  # noqa: B018 - refuse a mistake now, not at the first photo
        return scorer

    def fingerprint(self, scorer: Scorer) -> dict[str, Json]:
        """Return all that rows depend on, but where files lie and what computes."""
        model = scorer.model
        return {
            "version": VERSION,
            "inputs": digest(list(self.inputs)),
            "model_sha256": model.provenance.sha256,
            "calibration": digest(model.calibration.to_dict() if model.calibration else None),
            "meaning": model.header(),
            "detector": self.detector,
            "aligned": self.aligned,
            "every": self.every,
            "max_faces": self.max_faces,
            "precision": self.precision,
        }


class Stopped(KeyboardInterrupt):
    """A stop was requested; what was not handed out is dropped."""


class Job:
    """One run of score_images: its scorer, its contact sheet and its counts.

    Raises:
        ValueError: a missing input, a place that cannot be written, or what `load_scorer` refuses;
            all of it before a photo is read.
    """

    def __init__(self, options: ScoreOptions) -> None:
        self.options, self.summary = options, Summary()
        self.sheet = ContactSheet(sheet_path(options.report)) if options.report else None
        for flag, path in (("--out", options.out), ("--report", self.sheet and self.sheet.path)):
            if path:
                _check_writable(flag, path)
        options.open_sources()
        self.scorer = options.open_scorer()
        self.header = self.scorer.model.header()

    def progress(self, done: int = 0) -> FaceProgress:
        """Return the progress of all inputs, of which so many are done."""
        return FaceProgress(lambda: self.options.open_sources().count(), done)

    def finish(self, sources: Sources, *files: Path) -> None:
        """Say what was skipped, counted and written."""
        skipped = sum(sources.skipped.values())
        if skipped:
            kinds = ", ".join(f"{suffix} {number}" for suffix, number in sources.skipped.items())
            what = "file" if skipped == 1 else "files"
            sys.stderr.write(f"in folders, skipped {skipped} non-photo {what}: {kinds}\n")
        sheet = [self.sheet.path] if self.sheet else []
        written = "".join(f"wrote {file}\n" for file in (*files, *sheet))
        sys.stdout.write(self.summary.text() + written)

    def counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass finished rows on to a file; the summary and the sheet see them."""
        rows = self.summary.counted(rows)
        return rows if self.sheet is None else self.sheet.watched(rows)

    def write_sheet(self) -> None:
        """Write the sheet of rows that came without pixels."""
        if self.sheet is not None:
            options = self.options
            self.sheet.write(self.header, options.open_sources(), options.threads)

    def no_photos(self) -> ValueError:
        """Return the error of inputs without a photo."""
        return ValueError(f"no photos in {', '.join(self.options.inputs)[:200]}")

    def print_table(self, stop: StopRequest) -> None:
        """Print a line per face, as soon as it is scored; nothing is kept."""
        sources = self.options.open_sources()
        sys.stdout.write(f"# {self.header}\n{HEADING}\n")
        with self.progress() as progress:
            for chunk in _chunks(self, iter(sources), progress, stop):
                for score in chunk:
                    self.summary.add(score.status, score.verdict)
                if self.sheet:
                    self.sheet.add(chunk)
                with progress.paused():
                    sys.stdout.writelines(f"{line}\n" for line in table_lines(chunk))
                    sys.stdout.flush()
        if not self.summary.statuses:
            raise self.no_photos()
        if self.sheet:
            self.sheet.write(self.header)
        self.finish(sources)

    def write_file(self, out: Path, stop: StopRequest) -> None:
        """Score into parts, and then write the file; resumes where it was stopped."""
        fingerprint = self.options.fingerprint(self.scorer)
        parts = RowParts(out, fingerprint)
        if not self.options.restart and parts.is_finished():
            if self.sheet and not self.sheet.path.exists():
                raise ValueError(
                    f"{out} is finished, without {self.sheet.path}: give --restart for both"
                )
            sys.stdout.write(f"{out} is finished; --restart scores the inputs again\n")
            return
        try:
            parts.open(restart=self.options.restart)
            sources = self.options.open_sources()
            done, items = parts.resume(sources.items)
            if done:
                sys.stderr.write(f"{done} inputs are done; resuming\n")
            with self.progress(done) as progress:
                add_parts(_chunks(self, items, progress, stop), parts)
            if not parts.count:
                parts.discard()
                raise self.no_photos()
            header = {
                **self.scorer.model.provenance.to_dict(),
                **fingerprint,
                "settings": parts.settings,
            }
            for leftover in out.parent.glob(
                f".{escape(out.stem)}.{'[0-9a-f]' * 12}.tmp{out.suffix}"
            ):
                leftover.unlink()  # of a process that was killed while it wrote the output
            write_rows(out, self.counted(parts.rows()), header)
            self.write_sheet()
            parts.discard()
        finally:
            parts.close()
        self.finish(sources, out)


def score(options: ScoreOptions) -> None:
    """Score on this machine: print a table, or write `options.out`.

    Raises:
        ValueError: options, inputs or a model that cannot be used.
        KeyboardInterrupt: a stop was requested; finished parts are kept.
    """
    if options.out is not None:
        check_path(options.out)
    job = Job(options)
    with StopRequest() as stop:
        if options.out is None:
            job.print_table(stop)
        else:
            job.write_file(options.out, stop)


def score_chunks(
    scorer: Scorer,
    items: Iterator[Item],
    options: ScoreOptions,
    before_input: Callable[[], None] = lambda: None,
) -> Iterator[Scores]:
    """Yield scored inputs; a chunk has as many inputs as a batch of the scorer has faces.

    So the chunks after a restart are those of a run that never stopped, and its digits too.

    Args:
        scorer: detector and model.
        items: the inputs, iterated over in this thread.
        options: how they are read.
        before_input: called before each is searched for faces.
    """

    def chunk_of(images: Iterator[LoadedImage]) -> Iterator[LoadedImage]:
        for image in islice(images, scorer.batch_size):
            before_input()
            yield image

    with closing(load_items(items, options.threads)) as images:
        while (scores := scorer.score_loaded(chunk_of(images), options.is_aligned)).sources:
            yield scores


def _chunks(
    job: Job, items: Iterator[Item], progress: FaceProgress, stop: StopRequest
) -> Iterator[Scores]:
    def before_input() -> None:
        if stop.is_requested:
            raise Stopped
        progress.add_inputs()

    for chunk in score_chunks(job.scorer, items, job.options, before_input):
        progress.add_faces(sum(score.status == "scored" for score in chunk))
        yield chunk


def add_parts(chunks: Iterator[Scores], parts: RowParts) -> None:
    """Write chunks as parts; what is finished when a stop is requested becomes a part, too."""
    sources: list[Source] = []
    rows: list[Row] = []
    begun = time.monotonic()
    try:
        for chunk in chunks:
            sources += chunk.sources
            rows += chunk.to_rows()
            if len(sources) >= PART_INPUTS or time.monotonic() - begun > PART_SECONDS:
                parts.add(sources, rows)
                sources, rows, begun = [], [], time.monotonic()
    except Stopped:
        if sources:
            parts.add(sources, rows)
        raise
    if sources:
        parts.add(sources, rows)


class RowParts:
    """Rows of consecutive inputs, part after part, in a folder beside the output.

    Args:
        out: the output; the folder is its name with `.parts`.
        fingerprint: all that rows depend on.

    Attributes:
        settings: short hash of the fingerprint; it stands in the output too.
        count: of finished parts that are known.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Json]) -> None:
        self.out, self.count = out, 0
        folder = out.with_name(f"{out.name}.parts")
        name = "part-{:06d}.jsonl"
        self._store = PartStore(folder, fingerprint, name=name, about=ABOUT, way_out=WAY_OUT)
        self.settings = f"settings {self._store.settings[:16]}"

    def is_finished(self) -> bool:
        """Whether the output is there and was made with these settings; nothing is left to do.

        Raises:
            ValueError: the output is there and was made with others, or by something else.
        """
        begun = (self._store.folder / ABOUT).exists()
        if not self.out.exists() or (begun and not self._store.is_finished):
            return False
        if self.settings.encode() in _ends(self.out):
            self._store.discard()  # what a crash left
            return True
        raise ValueError(
            f"{self.out} is there already, made in another way: --restart overwrites it, or name "
            "another --out"
        )

    def open(self, *, restart: bool = False) -> None:
        """Make the folder, or take up the one that is there; see `PartStore.claim`."""
        self._store.claim(restart)

    def resume(self, items_from: Callable[[int], Iterator[Item]]) -> tuple[int, Iterator[Item]]:
        """Find where to resume.

        Args:
            items_from: gives the inputs from a number on.

        Returns:
            How many inputs finished parts have, and the inputs after them.

        Raises:
            ValueError: the input before these is another than when the parts were made.
        """
        done, last = 0, None
        while self._store.has(self.count):
            facts = self._facts(self.count)
            done, last = done + facts["inputs"], facts["last"]
            self.count += 1
        for number in self._store.numbers()[self.count :]:  # after one that somebody has deleted
            self._store.remove(number)
        if not done:
            return 0, items_from(0)
        items = items_from(done - 1)
        item = next(items, None)
        if item is None or _name(item) != last:
            raise ValueError(
                f"the inputs have changed since {self._store.folder} was begun (files were added, "
                "removed or renamed): --restart begins anew"
            )
        return done, items

    def add(self, sources: Sequence[Source], rows: Sequence[Row]) -> None:
        """Store the part that comes next."""
        facts = {"inputs": len(sources), "last": _name(sources[-1]), "rows": len(rows)}
        lines = [as_line(facts), *map(as_line, rows)]
        write_text(self._store.path(self.count), "\n".join(lines) + "\n")
        self.count += 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all parts in order; ValueError where one is damaged."""
        for number in range(self.count):
            left = self._facts(number)["rows"]
            with self._store.path(number).open(encoding="utf-8") as file:
                next(file)
                for line in file:
                    yield json.loads(line)
                    left -= 1
            if left:
                raise self._damaged(number)

    def discard(self) -> None:
        """Remove the folder; a crash meanwhile leaves one that says that it is finished."""
        self._store.finish()
        self._store.discard()

    def close(self) -> None:
        """Let another process have the folder."""
        self._store.close()

    def _facts(self, number: int) -> Row:
        try:
            with self._store.path(number).open(encoding="utf-8") as file:
                facts = json.loads(file.readline())
            return {name: facts[name] for name in ("inputs", "last", "rows")}
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(number) from error

    def _damaged(self, number: int) -> ValueError:
        path = self._store.path(number)
        return ValueError(f"{path} is damaged: delete it and give the same command")


def digest(value: Json | Mapping[str, object]) -> str:
    """Return a short hash of plain values, to compare them by."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _name(item: Item | Source) -> list[str | int | None]:
    return [plain_text(item.file), item.index]


def _ends(path: Path) -> bytes:
    """First and last bytes of a file: its header lies in one of them, whatever the format."""
    size = 1 << 16
    with path.open("rb") as file:
        first = file.read(size)
        file.seek(max(0, path.stat().st_size - size))
        return first + file.read(size)


def _check_writable(flag: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"{flag} {path}: cannot be written there ({error.strerror})") from error
