"""A batch job of score_images: inputs are read ahead by threads, scored in chunks, and written.

Memory holds the photos that are read ahead and the faces of one part. With `--out` finished parts
lie in a folder beside it, so that the same command resumes where it was stopped.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import to_112
from photos.align import align
from photos.decode import Photo
from photos.sources import Item, Sources, open_sources
from report.page import Explain
from report.sheet import NOT_COMPUTED, FaceScore, SheetBuilder, Status, Verdict
from report.words import ACCEPTED
from scoring.ofiq import write_ofiq
from scoring.rows import (
    Row,
    RowParts,
    Source,
    check_path,
    digest,
    face_score,
    input_names,
    plain_name,
    write_rows,
)
from scoring.scorer import LoadedImage, Scorer, Scores, load_items, load_scorer
from utils.files import Json
from utils.long_work import Progress, StopRequest, UnreadableShare, threads

if TYPE_CHECKING:
    from utils.config import Precision

DETECTOR = "mtcnn"
VERSION = 2  # of what rows mean; parts of another one are not resumed
PART_INPUTS = 512  # a part is written after so many inputs,
PART_SECONDS = 20.0  # or after this time, if that is sooner
SHEET = "contact_sheet.html"
HEADING = "uncertainty quality P(miss)  verdict    image"
Face = tuple[int, int]  # number of the input, number of the face in it
_STATUSES: dict[Status, str] = {
    "scored": "scored",
    "no face": "without a face",
    "unreadable": "unreadable",
}


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
    why: bool = False
    columns: Literal["own", "ofiq"] = "own"
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
    max_bad_share: float = 0.5

    def __post_init__(self) -> None:
        UnreadableShare(self.max_bad_share)
        if self.engine == "ray":
            if self.out is None or self.out.suffix != ".parquet":
                raise ValueError("--engine ray writes a folder of parts: give --out NAME.parquet")
        elif self.ray_workers or self.ray_address:
            raise ValueError("--ray_workers and --ray_address go with --engine ray")
        if self.why and self.report is None:
            raise ValueError("--why goes with --report, whose page shows faces")
        if self.columns == "ofiq" and (self.out is None or self.out.suffix != ".csv"):
            raise ValueError("--columns ofiq writes OFIQ's table: give --out NAME.csv")
        if self.restart and self.out is None:
            raise ValueError("--restart goes with --out: without it nothing is kept")

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
            **({"columns": self.columns} if self.columns != "own" else {}),
        }


class Summary:
    """Counts rows by status and by verdict."""

    def __init__(self) -> None:
        self.statuses: Counter[Status] = Counter()
        self.verdicts: Counter[Verdict] = Counter()

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass flat rows on, and count them."""
        for row in rows:
            self.add(row["status"], row["verdict"])
            yield row

    def add(self, status: Status, verdict: Verdict) -> None:
        """Count a row."""
        self.statuses[status] += 1
        self.verdicts[verdict] += 1

    def text(self) -> str:
        """Return a line or two, and what an "accept" means."""
        total, scored = self.statuses.total(), self.statuses["scored"]
        counts = ", ".join(f"{self.statuses[name]} {word}" for name, word in _STATUSES.items())
        text = f"{total} {'row' if total == 1 else 'rows'}: {counts}\n"
        if total == self.verdicts[""]:
            return text
        verdicts = ", ".join(f"{self.verdicts[name]} {name}" for name in get_args(Verdict) if name)
        unusable = f" ({total - scored} of them without a usable face)" if total > scored else ""
        accepted = f"{ACCEPTED}\n" if self.verdicts["accept"] else ""
        return f"{text}verdicts: {verdicts}{unusable}\n{accepted}"


def sheet_path(path: Path) -> Path:
    """Return the file that `--report` names: itself, or one in the folder.

    Raises:
        ValueError: a file is where the folder should be, or the reverse.
    """
    if path.suffix.lower() in (".html", ".htm"):
        if path.is_dir():
            raise ValueError(f"--report {path}: names a file, but a folder is there")
        return path
    if path.is_file():
        raise ValueError(f"--report {path}: names a folder or an .html file, but a file is there")
    return path / SHEET


class ContactSheet:
    """Takes rows, and writes a page of faces to a path.

    The photos of the faces that are shown are read once more, so that a run that was stopped in
    between has the sheet of one that was not, and nothing but numbers has to be kept.
    """

    def __init__(self, path: Path, explain: Explain | None) -> None:
        self.path, self._explain = path, explain
        self._sheet = SheetBuilder()
        self._inputs = 0

    def add(self, scores: Scores) -> None:
        """Add scored inputs, with their pixels."""
        for score in scores:
            self._sheet.add(score, scores.sources[score.image].display_name)

    def watched(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass flat rows on, and add them."""
        for row in rows:
            self._inputs += row["face"] <= 0  # the first row of an input
            name = row["file"] if row["index"] is None else f"{row['file']}[{row['index']}]"
            self._sheet.add(face_score(row, self._inputs - 1), name)
            yield row

    def write(self, header: str, sources: Sources | None = None, workers: int = 1) -> None:
        """Write the sheet; `sources` has the photos of rows that came without pixels.

        Raises:
            OSError: it cannot be written.
        """
        if sources is None:
            self._sheet.write(self.path, header, explain=self._explain)
            return
        shown: dict[Face, FaceScore] = {}

        def note(score: FaceScore, name: str) -> None:
            shown[score.image, score.face] = score

        self._sheet.page(header, pixels=note)
        pictures = _pictures(shown, sources, workers)
        self._sheet.write(
            self.path,
            header,
            pixels=lambda score, name: pictures.get((score.image, score.face)),
            explain=self._explain,
        )


def _pictures(
    shown: dict[Face, FaceScore], sources: Sources, workers: int
) -> dict[Face, NDArray[np.uint8]]:
    """Read these faces; one whose photo is not there any more is left out."""
    faces: dict[int, list[FaceScore]] = {}
    for (image, _), score in shown.items():
        faces.setdefault(image, []).append(score)
    items = islice(sources, max(faces, default=-1) + 1)
    needed = (item for number, item in enumerate(items) if number in faces)
    pictures = {}
    for number, loaded in zip(sorted(faces), load_items(needed, workers), strict=False):
        if isinstance(loaded.photo, Photo):
            for score in faces[number]:
                pictures[number, score.face] = _cut(loaded.photo, score)
    return pictures


def _cut(photo: Photo, score: FaceScore) -> NDArray[np.uint8]:
    if score.landmarks is None:
        return to_112(photo.pixels)
    return align(photo.pixels, score.landmarks / photo.scale)


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
        self.share = UnreadableShare(options.max_bad_share)
        sheet = sheet_path(options.report) if options.report else None
        for flag, path in (("--out", options.out), ("--report", sheet)):
            if path:
                _check_writable(flag, path)
        options.open_sources()
        self.scorer = options.open_scorer()
        explain = self.scorer.model.require_maps().explain if options.why else None
        self.sheet = ContactSheet(sheet, explain) if sheet else None
        self.header = self.scorer.model.header()

    def progress(self, done: int = 0) -> Progress:
        """Return the progress of all inputs, of which so many are done."""
        return Progress("score", lambda: self.options.open_sources().count(), done=done)

    def finish(self, sources: Sources, *files: Path) -> None:
        """Say what was skipped, counted and written."""
        skipped = sum(sources.skipped.values())
        if skipped:
            kinds = ", ".join(f"{number} {suffix}" for suffix, number in sources.skipped.items())
            what = "file that is not a photo" if skipped == 1 else "files that are not photos"
            sys.stderr.write(f"skipped {skipped} {what}: {kinds}\n")
        label = self.scorer.model.provenance.label
        if label and self.options.out is not None:  # which a table has in its heading
            sys.stderr.write(f"{label}\n")
        sheet = [self.sheet.path] if self.sheet else []
        written = "".join(f"wrote {file}\n" for file in (*files, *sheet))
        sys.stdout.write(self.summary.text() + written)

    def counted(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass finished rows on to a file; the summary and the sheet see them.

        Raises:
            ValueError: too many of the inputs are unreadable.
        """
        rows = self.summary.counted(judged(rows, self.options.max_bad_share))
        return rows if self.sheet is None else self.sheet.watched(rows)

    def write_sheet(self) -> None:
        """Write the sheet of rows that came without pixels."""
        if self.sheet is not None:
            options = self.options
            self.sheet.write(self.header, options.open_sources(), threads(options.workers))

    def no_photos(self) -> ValueError:
        """Return the error of inputs without a photo."""
        return ValueError(f"no photos in {', '.join(self.options.inputs)[:200]}")

    def print_table(self, stop: StopRequest) -> None:
        """Print a line per face, as soon as it is scored; nothing is kept."""
        sources = self.options.open_sources()
        heading = f"# {self.header}\n{HEADING}\n"
        with self.progress() as progress:
            for chunk in _chunks(self, iter(sources), progress, stop):
                for score in chunk:
                    self.summary.add(score.status, score.verdict)
                if self.sheet:
                    self.sheet.add(chunk)
                with tqdm.external_write_mode():  # takes the bar away
                    sys.stdout.writelines([heading, *(f"{x}\n" for x in table_lines(chunk))])
                    sys.stdout.flush()
                heading = ""
        if not self.summary.statuses:
            raise self.no_photos()
        self.share.judge()
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
            _check_inputs(out, self.options.open_sources())
            sys.stdout.write(f"{out} is finished; --restart scores the inputs again\n")
            return
        try:
            parts.open(restart=self.options.restart)
            sources = self.options.open_sources()
            done, items = parts.resume(sources.items)
            if done:
                sys.stderr.write(f"{done} inputs are done; resuming\n")
            with self.progress(done) as progress:
                chunks = _chunks(self, items, progress, stop)
                add_parts(chunks, parts, ofiq=self.options.columns == "ofiq")
            if not parts.count:
                parts.discard()
                raise self.no_photos()
            header = {
                **self.scorer.model.provenance.to_dict(),
                **fingerprint,
                "settings": parts.settings,
            }
            rows = self.counted(parts.rows())
            if self.options.columns == "ofiq":
                write_ofiq(out, rows)
            else:
                write_rows(out, rows, header)
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

    So the chunks after a restart are those of a run that never stopped, and its digits too. Items
    are taken in this thread; `before_input` is called before each is searched for faces.
    """

    def chunk_of(images: Iterator[LoadedImage]) -> Iterator[LoadedImage]:
        for image in islice(images, scorer.batch_size):
            before_input()
            yield image

    with closing(load_items(items, threads(options.workers))) as images:
        while (scores := scorer.score_loaded(chunk_of(images), options.is_aligned)).sources:
            yield scores


def _chunks(
    job: Job, items: Iterator[Item], progress: Progress, stop: StopRequest
) -> Iterator[Scores]:
    def before_input() -> None:
        if stop.is_requested:
            raise Stopped
        progress()

    for chunk in score_chunks(job.scorer, items, job.options, before_input):
        bad = [face for face in chunk.largest if face.status == "unreadable"]
        names = [f"{chunk.sources[face.image].display_name}: {face.note}" for face in bad[:1]]
        job.share.add(len(chunk.sources), len(bad), *names)
        progress.add_faces(sum(score.status == "scored" for score in chunk))
        yield chunk


def add_parts(chunks: Iterator[Scores], parts: RowParts, *, ofiq: bool = False) -> None:
    """Write chunks as parts; so is what is finished where a stop is requested, or inputs vanish."""
    sources: list[Source] = []
    rows: list[Row] = []
    begun = time.monotonic()
    try:
        for chunk in chunks:
            sources += chunk.sources
            rows += chunk.to_rows(ofiq=ofiq)
            if len(sources) >= PART_INPUTS or time.monotonic() - begun > PART_SECONDS:
                parts.add(sources, rows)
                sources, rows, begun = [], [], time.monotonic()
    except (Stopped, OSError):
        if sources:
            parts.add(sources, rows)
        raise
    if sources:
        parts.add(sources, rows)


def judged(rows: Iterable[Row], max_bad_share: float) -> Iterator[Row]:
    """Pass rows on; ValueError where the inputs that are unreadable are too many."""
    share = UnreadableShare(max_bad_share)
    for row in rows:
        if row["face"] <= 0:  # the first row of an input
            is_bad = row["status"] == "unreadable"
            share.add(1, is_bad, f"{row['file']}: {row['note']}" if is_bad else "")
        yield row
    share.judge()


def _check_inputs(out: Path, items: Iterable[Item]) -> None:
    """Raise ValueError where a finished file has rows of other inputs than there are now."""
    for then, now in zip_longest(input_names(out), map(plain_name, items)):
        if then != now:
            what = "was added" if then is None else "is not where it was"
            raise changed_inputs(out, f"{(now if then is None else then)[0]} {what}")


def changed_inputs(out: Path, what: str) -> ValueError:
    """Return the error of a finished output whose inputs are no longer those that it has."""
    return ValueError(
        f"{out} is finished, but its inputs have changed since ({what}): --restart scores all of "
        "them anew; or score the new ones into another --out"
    )


def _check_writable(flag: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"{flag} {path}: cannot be written there ({error.strerror})") from error


def table_lines(scores: Scores) -> Iterator[str]:
    """Yield a line for each row, as wide as `HEADING` up to the image's name."""
    for score in scores:
        name = scores.sources[score.image].display_name
        face = f" face {score.face}" if score.face > 0 else ""
        why = "; ".join(score.reasons) or ("" if score.status == "scored" else score.note)
        quality = "-" if score.quality == NOT_COMPUTED else str(score.quality)
        line = (
            f"{_number(score.uncertainty, '.5g'):>11} {quality:>7} "
            f"{_number(score.p_false_non_match, '.2g'):<8} {score.verdict or '-':<10} {name}{face}"
        )
        yield f"{line}  ({' '.join(why.split())})" if why else line


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)
