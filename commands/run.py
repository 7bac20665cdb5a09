"""What the evaluation scripts do once their flags are read: open, embed, evaluate, print, write.

One set after the other. A ValueError is something that the user can mend.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from commands import flags
from commands.flags import Outputs, SetFlags
from evaluation.metrics.thresholds import Caution
from evaluation.run import (
    EvaluationOptions,
    EvaluationResult,
    embed_set,
    evaluate,
    method_name,
    save_features,
)
from report.results import result_dict
from report.text import result_text, result_warnings
from report.words import caution_sentences, protocol_sentence
from utils.cli import PARTS_HINT, run_on_ranks
from utils.config import Verification
from utils.distributed import World
from utils.files import file_name, sole_writer, write_text

if TYPE_CHECKING:
    from evaluation.comparison import ComparisonOptions, MethodComparison
    from evaluation.open_model import LoadedModel
    from report.page import Explain


log = logging.getLogger("faceuq")


class LoggedWarnings(logging.Handler):
    """What is warned of while models and sets are opened and read, for JSON and page to repeat."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, and write it to stderr, as Python does for a logger without handlers."""
        self.lines.append(record.getMessage())
        if logging.lastResort and not logging.root.handlers:
            logging.lastResort.handle(record)

    def take(self, start: int) -> tuple[Caution, ...]:
        """Return all lines as cautions, and forget those from the start-th on."""
        cautions = tuple(Caution("said", {"sentence": line}) for line in self.lines)
        del self.lines[start:]
        return cautions


class Evaluated(NamedTuple):
    """A result, the label of its files where there are several sets, and what it was read from."""

    result: EvaluationResult
    label: str
    files: list[Path]


def evaluation_main(args: argparse.Namespace, model: flags.ModelFlags) -> int:
    """Evaluate a model on sets, or what is stored, as the flags say; returns the exit code."""
    sets, outputs = flags.read(SetFlags, args), flags.read(Outputs, args)

    def body(world: World, device: str) -> int:
        options = flags.read_evaluation(args)
        flags.refuse_with_features(vars(args))
        if args.features:
            if outputs.why:
                raise ValueError("--why needs a model: stored features have no faces")
            evaluated = _evaluate_stored(args.features, sets, options) if world.is_main else ()
            return _print_and_write(evaluated, outputs, {}, world, logged)
        loaded = model.open(device)
        explain = loaded.require_maps().explain if outputs.why else None
        config = dataclasses.asdict(loaded.config) if loaded.config else {}
        verification = loaded.config.verification if loaded.config else Verification()
        targets = flags.split_targets(args.target) if args.target else verification.targets
        folder = sets.dataset_path or verification.dataset_path
        opened = dataclasses.replace(sets, dataset_path=folder)
        completed = options.completed(verification)
        evaluated = _evaluate_sets(targets, opened, loaded, completed, outputs.save_features, world)
        return _print_and_write(evaluated, outputs, config, world, logged, explain)

    device = "cpu" if args.features else args.device

    def claimed(world: World, device: str) -> int:
        outputs.check()
        with _sole_writer(outputs.report, world):
            return body(world, device)

    with LoggedWarnings() as logged:
        return run_on_ranks(device, claimed, resume_hint=PARTS_HINT)


def comparison_main(args: argparse.Namespace) -> int:
    """Compare methods on sets, or what is stored, as the flags say; returns the exit code."""
    sets = flags.read(SetFlags, args)

    def body(world: World, device: str) -> int:
        from evaluation.comparison import ComparisonOptions, compare, compare_stored
        from evaluation.open_model import named, open_models

        options = flags.read(ComparisonOptions, args)
        protocol, folder = options.switches, Path(args.out) if args.out else None
        if folder is not None and folder.is_file():
            raise ValueError(f"--out {folder}: names a folder, but a file is there")
        if args.features and (args.target or args.methods):
            raise ValueError("--features has its own comparisons; --target and --methods do not go")
        if args.features:
            stored = {name: sets.open_stored(path) for name, path in named(args.features)}
            compared = compare_stored(stored, options) if world.is_main else iter(())
        elif args.target and args.methods:
            models = open_models(
                args.methods,
                backbone_name=args.backbone_name,
                backbone_weights=args.backbone_weights,
                device=device,
                precision=args.precision,
            )
            for loaded in models.models.values() if world.is_main else ():
                _warn_of_training_faces(args.target, loaded)
            compared = compare(map(sets.open, args.target), models, options, world=world)
        else:
            raise ValueError(
                "give --target SET ... with --methods METHOD ..., or --features FILE ..."
            )
        with _sole_writer(folder, world):
            comparisons = list(_printed(compared, folder, options, logged))
            if world.is_main:
                from report.results import write_comparisons

                sys.stdout.write(f"{protocol_sentence(protocol)}.\n")
                for path in write_comparisons(folder, comparisons, protocol) if folder else ():
                    sys.stdout.write(f"wrote {path}\n")
        return 0

    device = "cpu" if args.features else args.device
    with LoggedWarnings() as logged:
        return run_on_ranks(device, body, resume_hint=PARTS_HINT)


def calibration_main(args: argparse.Namespace) -> int:
    """Calibrate a model on a set, or what is stored, as the flags say; returns the exit code."""
    sets, model = flags.read(SetFlags, args), flags.read(flags.ModelFlags, args)

    def body(world: World, device: str) -> int:
        from evaluation.calibration_run import CalibrationOptions, calibrate
        from evaluation.open_model import kind_of
        from report.text import calibration_text

        out = model.calibration_file(args.out, args.features)
        options = flags.read(CalibrationOptions, args)
        if not (args.features or args.target):
            raise ValueError("nothing to calibrate on: give --target NAME, such as lfw")
        run = partial(calibrate, options=options)
        if args.features:
            run = partial(run, sets.open_stored(args.features))
        else:
            source, loaded = sets.open(args.target), model.open(device)
            if world.is_main:
                _warn_of_training_faces([args.target], loaded)
            embedding = EvaluationOptions(batch_size=options.batch_size, flip=options.flip)
            estimate = embed_set(source, loaded, embedding, world=world)
            run = partial(run, source, estimate, method=method_name(loaded, with_run=False))
            run = partial(run, weights_sha256=loaded.weights_sha256)
        if not world.is_main:
            return 0
        result = run()
        sys.stdout.write(calibration_text(result))
        _warn(result.comparisons.name, caution_sentences(result.cautions))
        if out.suffix == ".pt":
            from models.run import recalibrate

            recalibrate(kind_of(str(model.model))[1], out, result.calibration.to_dict())
        else:
            result.calibration.save(out)
        sys.stdout.write(f"\nwrote {out}\n")
        return 0

    device = "cpu" if args.features else args.device
    return run_on_ranks(device, body, resume_hint=PARTS_HINT)


def _print_and_write(
    evaluated: Iterable[Evaluated],
    outputs: Outputs,
    config: dict[str, object],
    world: World,
    logged: LoggedWarnings,
    explain: Explain | None = None,
) -> int:
    """Print each result as it comes, and write what was asked for."""
    results, of_model = [], len(logged.lines)
    for each in evaluated:
        result = each.result
        sys.stdout.write(result_text(result))
        sys.stdout.flush()
        _warn(result.name, result_warnings(result))
        cautions = (*result.cautions, *logged.take(of_model))
        result = dataclasses.replace(result, cautions=cautions)
        if outputs.json:
            results.append(result_dict(result))
        if outputs.save_scores:
            _save_scores(outputs.save_scores, each)
        if outputs.report:
            from report.page import write_reports

            for path in write_reports(
                result, outputs.report, config=config, files=each.files, explain=explain
            ):
                sys.stdout.write(f"wrote {path}\n")
    if outputs.json and world.is_main:
        write_text(Path(outputs.json), json.dumps({"results": results}, indent=1) + "\n")
        sys.stdout.write(f"wrote {outputs.json}\n")
    return 0


def _sole_writer(folder: str | Path | None, world: World) -> AbstractContextManager[object]:
    """Keep other processes from writing the folder of results, if there is one."""
    return sole_writer(Path(folder)) if folder and world.is_main else nullcontext()


def _warn(name: str, lines: Iterable[str]) -> None:
    sys.stderr.writelines(f"warning: {name}: {line}\n" for line in lines)


def _printed(
    compared: Iterator[MethodComparison],
    folder: Path | None,
    options: ComparisonOptions,
    logged: LoggedWarnings,
) -> Iterator[MethodComparison]:
    """Print each comparison as it comes, and draw it."""
    from report.results import draw_comparison
    from report.text import comparison_text

    of_models = len(logged.lines)
    for comparison in compared:
        sys.stdout.write(comparison_text(comparison))
        sys.stdout.flush()
        if folder is not None:
            path = draw_comparison(folder, comparison, with_fmr=len(options.fmr) > 1)
            sys.stdout.write(f"wrote {path}\n")
        cautions = (*comparison.cautions, *logged.take(of_models))
        yield dataclasses.replace(comparison, cautions=cautions)


def _evaluate_stored(
    features: str, sets: SetFlags, options: EvaluationOptions
) -> Iterator[Evaluated]:
    path = Path(features)
    result = evaluate(sets.open_stored(features), options=options)
    file = path / "about.json" if path.is_dir() else path  # which says what a folder's shards are
    yield Evaluated(result, "", [file])


def _evaluate_sets(
    targets: Sequence[str],
    sets: SetFlags,
    model: LoadedModel,
    options: EvaluationOptions,
    save_to: str | None,
    world: World,
) -> Iterator[Evaluated]:
    """Evaluate set after set; all ranks embed, the main one alone gets results."""
    if not targets:
        raise ValueError("nothing to evaluate: give --target NAME[,NAME] or --features FILE.npz")
    for target in targets:
        source = sets.open(target)
        if world.is_main:
            _warn_of_training_faces([target], model)
        estimate = embed_set(source, model, options, about=model.fingerprint, world=world)
        if not world.is_main:
            continue
        label = file_name(source.name) if len(targets) > 1 else ""
        if save_to:
            path = _with_label(save_to, label)
            save_features(path, source, estimate)
            sys.stdout.write(f"wrote {path}\n")
        result = evaluate(source, estimate, options, method=method_name(model))
        yield Evaluated(result, label, [*model.files, *_files(target, sets.dataset_path)])


def _warn_of_training_faces(targets: Iterable[str], model: LoadedModel) -> None:
    seen = {Path(source).resolve() for source in (model.config.sources if model.config else ())}
    for target in targets:
        kind, _, path = target.partition(":")
        if kind == "faces" and Path(path).resolve() in seen:
            log.warning(
                "%s: %s was trained on these faces, and will do worse on others: take other people",
                *(target, model.name),
            )


def _save_scores(path: str, evaluated: Evaluated) -> None:
    from evaluation.sets.score_files import write_scores

    for part in evaluated.result.uncertainties:
        file = _with_label(_with_label(path, evaluated.label), file_name(part.label))
        write_scores(file, part.comparisons)
        sys.stdout.write(f"wrote {file}\n")


def _with_label(path: str | Path, label: str) -> Path:
    """Return the path, with the label in its name where there is one."""
    file = Path(path)
    return file.with_name(f"{file.stem}-{label}{file.suffix}") if label else file


def _files(target: str, dataset_path: str | None) -> list[Path]:
    """Return the file behind a target, where there is a single one."""
    kind, colon, rest = target.partition(":")
    path = Path(rest) if colon else Path(dataset_path or "") / f"{target}.bin"
    if path.is_dir():
        return sorted(path.glob("*.rec"))
    return [path] if path.is_file() else []
