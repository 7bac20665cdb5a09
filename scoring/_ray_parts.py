"""The output of scoring on many machines: a folder of Parquet parts that readers take as one table.

For the Ray engine. Files whose names begin with `_` hold no rows; Parquet readers pass them over.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from photos.sources import Item
from scoring.columns import arrow_schema, import_pyarrow, plain_text
from scoring.writers import KEY, as_line

ABOUT, FINISHED = "_about.json", "_finished.json"
PART_INPUTS = 512
_FACTS = b"face-uncertainty part"


@dataclass(frozen=True)
class PartFacts:
    """What a part says of itself.

    Attributes:
        number: of the part, from 0.
        inputs: photos and faces that it was made from.
        digest: of their names.
        faces: rows of status "scored".
    """

    number: int
    inputs: int
    digest: str
    faces: int

    def to_json(self) -> str:
        """Return one line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PartFacts:
        """Read what `to_json` gave."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class PartFolder:
    """A folder of parts; all machines see it at the same path.

    Attributes:
        path: the folder, whose name ends in .parquet.
    """

    path: Path

    def is_finished(self, about: Mapping[str, Any]) -> bool:
        """Whether all parts are there; makes the folder where it is new.

        Raises:
            ValueError: it was begun with other settings, or holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; with --engine ray --out names a folder")
        file, wanted = self.path / ABOUT, json.loads(as_line(about))
        if not file.exists():
            if self.path.exists() and any(self.path.iterdir()):
                raise ValueError(f"{self.path} holds other files: name another --out")
            self.path.mkdir(parents=True, exist_ok=True)
            _write(file, json.dumps(wanted, indent=1) + "\n")
            return False
        there = json.loads(file.read_text(encoding="utf-8"))
        differ = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
        if differ:
            raise ValueError(
                f"{self.path} was begun with another {', '.join(differ)}: give what it was begun "
                "with, or --restart to begin anew, or another --out"
            )
        return (self.path / FINISHED).exists()

    def discard(self) -> None:
        """Remove parts and what is said of them; other files stay."""
        for name in (FINISHED, ABOUT):
            (self.path / name).unlink(missing_ok=True)
        for part in self.path.glob("part-*.parquet*"):
            part.unlink()

    def missing(
        self, items: Iterator[Item], there: Callable[[int], Any]
    ) -> Iterator[tuple[int, list[Item]]]:
        """Yield number and inputs of the parts that are not there.

        Args:
            items: all inputs, in order.
            there: told the number of inputs of each part that is there.

        Raises:
            ValueError: a part was made from other inputs.
        """
        number = 0
        while part := list(islice(items, PART_INPUTS)):
            facts = self._facts(number)
            if facts is None:
                yield number, part
            elif facts.digest != digest(part):
                raise ValueError(
                    f"{self._part(number)}: the inputs have changed since it was made (files were "
                    "added, removed or renamed): --restart begins anew"
                )
            else:
                there(facts.inputs)
            number += 1

    def write(
        self,
        number: int,
        items: Sequence[Item],
        rows: Sequence[Mapping[str, Any]],
        header: Mapping[str, Any],
    ) -> PartFacts:
        """Write a part, whole or not at all; writing it again leaves the same file."""
        pyarrow, parquet = import_pyarrow("pyarrow"), import_pyarrow("pyarrow.parquet")
        faces = sum(row["status"] == "scored" for row in rows)
        facts = PartFacts(number, len(items), digest(items), faces)
        metadata = {KEY: as_line(header).encode(), _FACTS: facts.to_json().encode()}
        schema = arrow_schema().with_metadata(metadata)
        table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)
        path = self._part(number)
        own = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # two may write it at a time
        parquet.write_table(table, own, compression="zstd")
        own.replace(path)
        return facts

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of all parts in order, part by part."""
        parquet = import_pyarrow("pyarrow.parquet")
        for path in sorted(self.path.glob("part-*.parquet")):
            yield from parquet.read_table(path).to_pylist()

    def finish(self) -> None:
        """Say that all parts are there."""
        for left in self.path.glob("part-*.tmp"):
            left.unlink()
        _write(self.path / FINISHED, "{}\n")

    def _facts(self, number: int) -> PartFacts | None:
        path = self._part(number)
        if not path.exists():
            return None
        pyarrow, parquet = import_pyarrow("pyarrow"), import_pyarrow("pyarrow.parquet")
        try:
            return PartFacts.from_json(parquet.read_schema(path).metadata[_FACTS].decode())
        except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: delete it and give the same command") from error

    def _part(self, number: int) -> Path:
        return self.path / f"part-{number:08d}.parquet"


def digest(items: Sequence[Item]) -> str:
    """Return a short hash of the names of inputs."""
    names = [[plain_text(item.file), item.index] for item in items]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
