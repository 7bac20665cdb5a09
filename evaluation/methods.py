"""Methods by what a person writes on the command line, ready to run over one backbone.

A run folder of network.py, a file with a score per image, or the name of an estimator. A run of
several branches stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.base import Estimator, EstimatorGroup, build_estimator
from estimators.from_file import FromFile
from estimators.trained_head import TrainedHead
from evaluation.seeds import Group, seed_groups
from models.frozen import FrozenBackbone
from models.run import Run, branch_folders, load_run, open_backbone
from utils.config import Execution, Precision
from utils.config_json import parse_method
from utils.files import file_sha256


@dataclass(frozen=True)
class Methods:
    """Methods that share a backbone.

    Attributes:
        names: of the columns of the estimator's sigma_sq.
        estimator: all of them in one.
        frozen: the backbone.
        about: what their values depend on, in words and hashes.
        groups: of runs that differ in their seeds alone.
    """

    names: tuple[str, ...]
    estimator: EstimatorGroup
    frozen: FrozenBackbone
    about: str
    groups: tuple[Group, ...]


def named(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read `NAME=WHAT` or `WHAT`; the name is then the file's or folder's, or the text itself.

    Raises:
        ValueError: two of one name.
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        given, what = _split(text)
        name = given or _own_name(text)
        if name in dict(found):
            raise ValueError(
                f"two methods are called {name!r}: name them, as in first={what}, or a run of "
                "several branches as a whole, as in first=RUN"
            )
        found.append((name, what))
    return found


def with_branches(texts: Sequence[str]) -> list[str]:
    """Replace each run of several branches by `BRANCH=FOLDER` of all of them.

    `NAME=RUN` gives `NAME-BRANCH=FOLDER`; anything else stays as it is.

    Raises:
        ValueError: a branch without a trained head.
    """
    found: list[str] = []
    for text in texts:
        name, what = _split(text)
        folders = branch_folders(what)
        prefix = f"{name}-" if name else ""
        found += [f"{prefix}{folder.name}={folder}" for folder in folders] or [text]
    return found


def _own_name(text: str) -> str:
    path = Path(text)
    if path.is_dir():
        return path.absolute().name  # whole: `margin-0.4` has no ending
    return path.stem if path.exists() else text


def _split(text: str) -> tuple[str, str]:
    """Part `NAME=WHAT`; the name is "" where there is none."""
    name, equals, what = text.partition("=")
    if not equals or ":" in name or Path(text).exists():
        return "", text
    return name, what


def open_methods(
    texts: Sequence[str],
    *,
    backbone_name: str | None = None,
    backbone_weights: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    execution: Execution = "eager",
) -> Methods:
    """Open methods over one backbone: that of the run folders, or the one that is named.

    Args:
        texts: `[NAME=]METHOD` each, as `with_branches` and `named` read them.
        backbone_name: where no run folder is among them, as `models.run.parse_backbone` reads it.
        backbone_weights: its file, or where the runs' file is now.
        device: see `TrainConfig.device`.
        precision: see `TrainConfig.precision`.
        execution: see `TrainConfig.execution`.

    Raises:
        ValueError: two of one name, no or several backbones, or a method that cannot be opened.
    """
    wanted = named(with_branches(texts))
    where: dict[str, Any] = {"device": device, "precision": precision, "execution": execution}
    runs = _load_runs(wanted, backbone_weights=backbone_weights, **where)
    files = [path for run in runs.values() for path in run.files]
    if runs:
        frozen = next(iter(runs.values())).frozen
    elif backbone_name and backbone_weights:
        frozen = open_backbone(backbone_name, backbone_weights, **where)
        files.append(Path(backbone_weights))
    else:
        raise ValueError(
            "which backbone? give --backbone_name with --backbone_weights, or a run folder among "
            "the methods"
        )
    members = {name: _open(what, runs.get(name), frozen) for name, what in wanted}
    files += [Path(what) for _, what in wanted if Path(what).is_file()]
    hashes = {path: file_sha256(path) for path in dict.fromkeys(files)}
    about = " ".join([*texts, *(hashes[path] for path in files)])
    groups = seed_groups({name: run.config for name, run in runs.items()})
    return Methods(tuple(members), EstimatorGroup(members), frozen, about, groups)


def _open(what: str, run: Run | None, frozen: FrozenBackbone) -> Estimator:
    if run is not None:
        return TrainedHead(frozen=frozen, head=run.head)
    if Path(what).is_file():
        return FromFile(path=what, frozen=frozen)
    return build_estimator(parse_method(what), frozen=frozen)


def _load_runs(wanted: Sequence[tuple[str, str]], **where: Any) -> dict[str, Run]:
    """Load the run folders among the methods; they share one backbone, in memory once."""
    runs: dict[str, Run] = {}
    for name, folder in wanted:
        if not Path(folder).is_dir():
            continue
        first = next(iter(runs), None)
        run = load_run(folder, beside=None if first is None else runs[first], **where)
        if first is not None and run.frozen is not runs[first].frozen:
            raise ValueError(
                f"{name} and {first} were trained on different backbones; one table compares "
                "methods over one"
            )
        runs[name] = run
    return runs
