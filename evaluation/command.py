"""What the evaluation scripts do: open, embed, evaluate and print one set after the other.

And write the files that were asked for. Flags come in as the dataclasses of `evaluation.flags`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluation.flags import CalibrationFlags, ComparisonFlags, EvaluationFlags, SetFlags
from evaluation.run import (
    EvaluationOptions,
    EvaluationResult,
    embed_set,
    evaluate,
    file_name,
    method_label,
    method_name,
    save_features,
)
from report.results import result_dict
from report.sentences import protocol_sentence
from report.text import result_text, warnings
from utils.config import Verification
from utils.distributed import World
from utils.files import write_text

if TYPE_CHECKING:
    from evaluation.open_model import LoadedModel


class Evaluated(NamedTuple):
    """A result, the label of its files where there are several sets, and what it was read from."""

    result: EvaluationResult
    label: str
    files: list[Path]


def run_evaluation(
    flags: EvaluationFlags,
    sets: SetFlags,
    open_model: Callable[[], LoadedModel],
    world: World,
) -> int:
    """Evaluate every set, print each, and write what the flags ask for; the exit code is 0.

    Args:
        flags: of the evaluation.
        sets: how sets are opened.
        open_model: returns the model; not called for stored files.
        world: the ranks that embed; the main one does the rest.

    Raises:
        ValueError: anything the user can mend (no target, a file that is missing, NaN, ...).
    """
    flags.check()
    results = []
    if flags.features:
        config: dict[str, object] = {}
        evaluated = _evaluate_stored(flags, sets) if world.is_main else iter(())
    else:
        model = open_model()
        config = dataclasses.asdict(model.config) if model.config else {}
        evaluated = _evaluate_sets(flags, sets, model, world)
    for each in evaluated:
        result = each.result
        sys.stdout.write(result_text(result))
        sys.stdout.flush()
        for line in warnings(result):
            sys.stderr.write(f"warning: {result.name}: {line}\n")
        if flags.json:
            results.append(result_dict(result))
        if flags.save_scores:
            _save_scores(flags.save_scores, each)
        if flags.report:
            from report.page import write_reports

            for path in write_reports(result, flags.report, config=config, files=each.files):
                sys.stdout.write(f"wrote {path}\n")
    if flags.json and world.is_main:
        write_text(Path(flags.json), json.dumps({"results": results}, indent=1) + "\n")
        sys.stdout.write(f"wrote {flags.json}\n")
    return 0


def run_comparison(flags: ComparisonFlags, sets: SetFlags, device: str, world: World) -> int:
    """Compare methods, print each set, and write tables and figures; the exit code is 0.

    Raises:
        ValueError: anything the user can mend.
    """
    from evaluation.comparison import compare, compare_stored
    from report.comparison import comparison_text, draw_comparison, write_comparisons

    options, folder = flags.options(), Path(flags.out) if flags.out else None
    if folder is not None and folder.is_file():
        raise ValueError(f"--out {folder}: names a folder, but a file is there")
    if flags.features and (flags.target or flags.methods):
        raise ValueError("--features has its own comparisons; --target and --methods do not go")
    from evaluation.open_model import named, open_models

    if flags.features:
        stored = {name: sets.open_stored(path) for name, path in named(flags.features)}
        compared = compare_stored(stored, options) if world.is_main else iter(())
    elif flags.target and flags.methods:
        models = open_models(
            flags.methods,
            backbone_name=flags.backbone_name,
            backbone_weights=flags.backbone_weights,
            device=device,
            precision=flags.precision,
        )
        compared = compare(map(sets.open, flags.target), models, options, world=world)
    else:
        raise ValueError("give --target SET ... with --methods METHOD ..., or --features FILE ...")
    comparisons = []
    for comparison in compared:
        sys.stdout.write(comparison_text(comparison))
        sys.stdout.flush()
        comparisons.append(comparison)
        if folder is not None:
            path = draw_comparison(folder, comparison, with_fmr=len(options.fmr) > 1)
            sys.stdout.write(f"wrote {path}\n")
    if not world.is_main:
        return 0
    protocol = options.switches
    sys.stdout.write(f"{protocol_sentence(protocol)}.\n")
    for path in write_comparisons(folder, comparisons, protocol) if folder is not None else ():
        sys.stdout.write(f"wrote {path}\n")
    return 0


def run_calibration(
    flags: CalibrationFlags, sets: SetFlags, open_model: Callable[[], LoadedModel], world: World
) -> int:
    """Calibrate on one set, print what cut-offs do, and write the file; the exit code is 0.

    Raises:
        ValueError: anything the user can mend.
    """
    from evaluation.calibration_run import calibrate
    from report.text import calibration_text, calibration_warning

    out, options = flags.destination(), flags.options()
    if flags.features:
        if not world.is_main:
            return 0
        result = calibrate(sets.open_stored(flags.features), options=options)
    else:
        if not flags.target:
            raise ValueError("nothing to calibrate on: give --target NAME, such as lfw")
        source, model = sets.open(flags.target), open_model()
        embedding = EvaluationOptions(batch_size=options.batch_size, flip=options.flip)
        estimate = embed_set(source, model, embedding, world=world)
        if not world.is_main:
            return 0
        result = calibrate(source, estimate, options, method=method_name(model))
    sys.stdout.write(calibration_text(result))
    warning = calibration_warning(result)
    if warning:
        sys.stderr.write(f"warning: {result.comparisons.name}: {warning}\n")
    result.calibration.save(out)
    sys.stdout.write(f"\nwrote {out}\n")
    return 0


def _evaluate_stored(flags: EvaluationFlags, sets: SetFlags) -> Iterator[Evaluated]:
    assert flags.features is not None
    path = Path(flags.features)
    result = evaluate(sets.open_stored(flags.features), options=flags.options(Verification()))
    file = path / "about.json" if path.is_dir() else path  # which says what a folder's shards are
    yield Evaluated(result, "", [file])


def _evaluate_sets(
    flags: EvaluationFlags, sets: SetFlags, model: LoadedModel, world: World
) -> Iterator[Evaluated]:
    """Evaluate set after set; all ranks embed, the main one alone gets results."""
    verification = Verification() if model.config is None else model.config.verification
    options, targets = flags.options(verification), flags.targets(verification)
    if not targets:
        raise ValueError("nothing to evaluate: give --target NAME[,NAME] or --features FILE.npz")
    sets = dataclasses.replace(sets, dataset_path=sets.dataset_path or verification.dataset_path)
    for target in targets:
        source = sets.open(target)
        estimate = embed_set(source, model, options, about=model.fingerprint, world=world)
        if not world.is_main:
            continue
        label = file_name(source.name) if len(targets) > 1 else ""
        if flags.save_features:
            path = _with_label(flags.save_features, label)
            save_features(path, source, estimate)
            sys.stdout.write(f"wrote {path}\n")
        result = evaluate(source, estimate, options, method=method_label(model))
        yield Evaluated(result, label, [*model.files, *_files(target, sets.dataset_path)])


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
