"""Paths that lists name, and links in folders, stay in one folder where `--within` asks for it."""

from __future__ import annotations

import os
from pathlib import Path

_bound: list[Path] = []  # the folder, for the whole process; empty where any path may be read


def stay_within(folder: str | Path | None) -> None:
    """From now on refuse paths that lead out of a folder; None: any path may be read.

    Raises:
        ValueError: no such folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"--within {folder}: no such folder")
    _bound[:] = [] if folder is None else [Path(folder).resolve()]


def is_bounded() -> bool:
    """Whether paths are checked; what an earlier start has cached was not."""
    return bool(_bound)


def check_path(path: str | Path, where: str) -> None:
    """Raise ValueError for a path that leads out: an absolute one, by `..`, or by a link.

    Args:
        path: as it will be opened.
        where: the list and the line that name it.
    """
    if _bound and not Path(os.path.realpath(path)).is_relative_to(_bound[0]):
        raise ValueError(f"{where}: {path} lies outside of {_bound[0]} (--within)")
