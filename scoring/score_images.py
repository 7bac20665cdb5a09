"""Score the faces in photos, folders, lists, packs and videos: one row per face.

python scoring/score_images.py PHOTO_OR_FOLDER... --model demo
python scoring/score_images.py FOLDER --model runs/NAME --out scores.csv --report sheet.html

Prints a table, or writes .csv, .json, .jsonl or .parquet. Memory does not grow with the number of
inputs; with --out a stopped command goes on where it was when it is given again.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photos.detectors import open_detector
from photos.sources import Sources, open_sources
from scoring import load_scorer
from scoring._job import Job, Stopped
from scoring._parts import Parts, digest
from scoring._progress import FaceProgress
from scoring._report import Report, report_path
from scoring._table import HEADING, Summary, table_lines
from scoring.scorer import Scorer
from scoring.writers import check_path, write_rows
from utils.cli import Parser, run_command, share
from utils.stop import StopRequest

DETECTOR = "mtcnn"
MOST_WORKERS = 16
STOPPED = 130
VERSION = 1  # of what rows mean; parts of another one are not gone on with
ALIGNED = {"auto": None, "yes": True, "no": False}


def main(argv: Sequence[str] | None = None) -> int:
    """Score; the exit code is 0, 2 after an error, or 130 when stopped."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _body(args))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Score the faces in photos: how far each can be relied on.",
        epilog="With --out the same command again goes on where it was. Exit code: 0 when all "
        "inputs have their rows, also unreadable ones, 2 after an error, 130 when stopped.",
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="photo, folder, list, .bin, .rec, .parquet, video",
    )
    add("--model", required=True, help="run folder, packed .pt, .onnx, or the word demo")
    add("--out", help="write rows here: .csv, .json, .jsonl or .parquet (a table is printed)")
    add("--report", metavar="DIR_OR_HTML", help="write a contact sheet, from worst to best, here")
    add("--aligned", choices=ALIGNED, default="auto", help="inputs are 112x112 faces (auto)")
    add("--detector", default=DETECTOR, help="of faces: a name, or NAME:weights=FILE (mtcnn)")
    add("--every", type=_positive, default=1, metavar="N", help="take every N-th video frame (1)")
    add("--max_faces", type=_positive, metavar="N", help="of a photo, the largest ones (all)")
    add("--target_risk", type=share, help="accept up to this P(false non-match)")
    add("--refuse_risk", type=share, help="refuse above this P(false non-match)")
    add("--restart", action="store_true", help="begin anew, and overwrite --out")
    add("--batch_size", type=_positive, default=64, help="faces per forward pass (64)")
    add("--workers", type=_positive, help="threads that decode (the cores, up to 16)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    add("--backbone_name", help="for --model embedding_norm and other scores without training")
    add("--backbone_weights", help="its file; of a run: where the backbone's file is now")
    add("--calibration", help="file of calibrate.py, instead of the model's own")
    add("--engine", choices=["local", "ray"], default="local", help="ray: on many machines (local)")
    add("--ray_workers", type=_positive, metavar="N", help="scorers at a time (a GPU or core each)")
    add("--ray_address", help="of a running cluster, or auto (a cluster on this machine)")
    return parser


def _body(args: argparse.Namespace) -> int:
    _check_engine(args)
    if args.out and args.engine == "local":
        check_path(Path(args.out))
    elif args.restart and not args.out:
        raise ValueError("--restart goes with --out: without it nothing is kept")
    report = Report(report_path(args.report)) if args.report else None
    for flag, path in (("--out", args.out), ("--report", report and report.path)):
        if path:
            _check_writable(flag, Path(path))
    _sources(args)  # what is missing is told before a model is loaded
    scorer = load_scorer(args.model, **_options(args))
    if args.detector != DETECTOR:
        open_detector(args.detector)  # told now, not at the first photo that is no aligned face
    work = _to_terminal if not args.out else _to_file if args.engine == "local" else _by_ray
    with StopRequest() as request:
        try:
            return work(args, scorer, report, request)
        except (KeyboardInterrupt, Stopped):
            goes_on = "the same command goes on where it was" if args.out else "nothing was kept"
            sys.stderr.write(f"stopped; {goes_on}\n")
            return STOPPED


def _check_engine(args: argparse.Namespace) -> None:
    if args.engine == "local":
        if args.ray_workers or args.ray_address:
            raise ValueError("--ray_workers and --ray_address go with --engine ray")
    elif not args.out or Path(args.out).suffix != ".parquet":
        raise ValueError("--engine ray writes a folder of parts: give --out NAME.parquet")


def _check_writable(flag: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"{flag} {path}: cannot be written there ({error.strerror})") from error


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What `load_scorer` takes besides the model."""
    names = ("detector", "device", "precision", "batch_size", "target_risk")
    more = ("refuse_risk", "backbone_name", "backbone_weights", "calibration", "max_faces")
    return {name: getattr(args, name) for name in (*names, *more)}


def _to_terminal(
    args: argparse.Namespace, scorer: Scorer, report: Report | None, request: StopRequest
) -> int:
    sources = _sources(args)
    summary = Summary()
    sys.stdout.write(f"# {scorer.model.header()}\n{HEADING}\n")
    with _progress(args) as progress:
        for chunk in _job(args, scorer, request, progress).chunks(iter(sources)):
            for score in chunk.scores:
                summary.add(score.status, score.verdict)
            if report:
                report.add_chunk(chunk)
            with progress.paused():
                sys.stdout.writelines(f"{line}\n" for line in table_lines(chunk))
                sys.stdout.flush()
    if not summary.statuses:
        raise _nothing_in(args)
    if report:
        report.write(scorer.model.header())
    _tell_end(summary, sources, *([report.path] if report else []))
    return 0


def _to_file(
    args: argparse.Namespace, scorer: Scorer, report: Report | None, request: StopRequest
) -> int:
    out, about = Path(args.out), _about(args, scorer)
    parts = Parts(out, about)
    if not args.restart and parts.is_finished():
        if report and not report.path.exists():
            raise ValueError(f"{out} is finished, without {report.path}: give --restart for both")
        sys.stdout.write(f"{out} is finished; --restart scores the inputs again\n")
        return 0
    try:
        parts.open(restart=args.restart)
        sources = _sources(args)
        done, items = parts.resume(sources.items)
        if done:
            sys.stderr.write(f"{done} inputs are done; going on\n")
        with _progress(args, done) as progress:
            if not _job(args, scorer, request, progress).into_parts(items, parts):
                raise Stopped
        if not parts.count:
            parts.discard()
            raise _nothing_in(args)
        summary = Summary()
        rows = summary.counted(parts.rows())
        header = {**scorer.model.about, **about, "settings": parts.settings}
        write_rows(out, report.watched(rows) if report else rows, header)
        if report:
            report.write(scorer.model.header(), _sources(args), _workers(args))
        parts.discard()
    finally:
        parts.close()
    _tell_end(summary, sources, out, *([report.path] if report else []))
    return 0


def _by_ray(
    args: argparse.Namespace, scorer: Scorer, report: Report | None, request: StopRequest
) -> int:
    from scoring._ray_parts import PartFolder
    from scoring.ray_engine import Task, score_with_ray

    folder, about = PartFolder(Path(args.out)), _about(args, scorer)
    if args.restart:
        folder.discard()
    if folder.is_finished(about):
        sys.stdout.write(f"{folder.path} is finished; --restart scores the inputs again\n")
        return 0
    header = {**scorer.model.about, **about}
    task = Task(args.model, _options(args), ALIGNED[args.aligned], _workers(args), folder, header)
    sources, summary = _sources(args), Summary()
    with _progress(args) as progress:
        score_with_ray(
            folder.missing(sources.items(), progress.before),
            task,
            workers=args.ray_workers,
            address=args.ray_address,
            stop=request,
            progress=progress,
        )
    rows = summary.counted(folder.rows())
    for _ in report.watched(rows) if report else rows:
        pass
    if not summary.statuses:
        raise _nothing_in(args)
    if report:
        report.write(scorer.model.header(), _sources(args), _workers(args))
    folder.finish()
    _tell_end(summary, sources, folder.path, *([report.path] if report else []))
    return 0


def _job(
    args: argparse.Namespace, scorer: Scorer, request: StopRequest, progress: FaceProgress
) -> Job:
    return Job(scorer, ALIGNED[args.aligned], _workers(args), request, progress)


def _progress(args: argparse.Namespace, done: int = 0) -> FaceProgress:
    return FaceProgress(lambda: _sources(args).count(), done)


def _workers(args: argparse.Namespace) -> int:
    return args.workers or max(1, min(MOST_WORKERS, os.cpu_count() or 1))


def _sources(args: argparse.Namespace) -> Sources:
    return open_sources(args.inputs, every=args.every)


def _about(args: argparse.Namespace, scorer: Scorer) -> dict[str, Any]:
    """All that rows depend on, but where files lie and what computes."""
    model = scorer.model
    return {
        "version": VERSION,
        "inputs": digest(args.inputs),
        "model_sha256": model.about.get("sha256", ""),
        "calibration": digest(model.calibration.to_dict() if model.calibration else None),
        "meaning": model.header(),
        "detector": args.detector,
        "aligned": args.aligned,
        "every": args.every,
        "max_faces": args.max_faces,
        "precision": args.precision,
    }


def _nothing_in(args: argparse.Namespace) -> ValueError:
    return ValueError(f"no photos in {', '.join(args.inputs)[:200]}")


def _tell_end(summary: Summary, sources: Sources, *files: Path) -> None:
    count = sum(sources.skipped.values())
    if count:
        kinds = ", ".join(f"{suffix} {number}" for suffix, number in sources.skipped.items())
        what = "file is no photo and was" if count == 1 else "files are no photos and were"
        sys.stderr.write(f"in folders, {count} {what} left out: {kinds}\n")
    sys.stdout.write(summary.text() + "".join(f"wrote {file}\n" for file in files))


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
