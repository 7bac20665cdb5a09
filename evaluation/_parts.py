"""Finished parts of a long run over images, kept in a folder so that a stopped run can go on.

Public through evaluation.embed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from estimators.base import Estimate
from utils.tables import read_npz

FACTS = "about.json"


class Parts:
    """Estimates of consecutive images, one `.npz` for each part.

    Several processes may share a folder, as long as each part is one process's.

    Args:
        folder: made where it is missing.
        facts: what the estimates depend on; stored, and compared on a later start.

    Raises:
        ValueError: the folder holds parts that were made under other facts, or something else.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str | int | bool]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        stored = folder / FACTS
        if not stored.exists():  # other processes of a job may be here at the same time
            foreign = any(not path.match("about-*.tmp") for path in folder.iterdir())
            if foreign and not stored.exists():
                raise ValueError(f"{folder} holds other files: name an empty folder for the parts")
            temporary = folder / f"about-{uuid.uuid4().hex}.tmp"
            temporary.write_text(json.dumps(dict(facts), indent=1), encoding="utf-8")
            temporary.replace(stored)
            return
        try:
            there = json.loads(stored.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{stored} is damaged ({error}): delete the folder") from error
        for name, value in facts.items():
            if there.get(name) != value:
                raise ValueError(
                    f"{folder} holds parts with {name} {there.get(name)!r}, not {value!r}: delete "
                    "it, or name another folder"
                )

    def there(self, start: int) -> bool:
        """Whether images from `start` on are there; `load` may still find them damaged."""
        return self._path(start).exists()

    def load(self, start: int, stop: int) -> Estimate | None:
        """Return images [start, stop) if they are there; ValueError if the file is damaged."""
        path = self._path(start)
        if not self.there(start):
            return None
        try:
            arrays = read_npz(path, ("mu", "sigma_sq"))
        except ValueError as error:
            raise ValueError(f"{error}: delete it") from error
        if {len(array) for array in arrays.values()} != {stop - start}:
            raise ValueError(f"{path} has not the {stop - start} images expected: delete it")
        return Estimate(arrays["mu"], arrays["sigma_sq"])

    def save(self, start: int, part: Estimate) -> None:
        """Store a part; a crash leaves it whole or not at all."""
        path = self._path(start)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, mu=part.mu, sigma_sq=part.sigma_sq)
        temporary.replace(path)

    def _path(self, start: int) -> Path:
        return self.folder / f"part-{start:09d}.npz"
