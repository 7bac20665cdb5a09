"""The work of scoring/score_images.py: inputs are read ahead by threads and scored in chunks.

Memory holds the photos that are read ahead and the faces of one chunk.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, cast

from evaluation.face_score import FaceScore
from photos.decode import Photo
from photos.sources import Item, read_ahead
from scoring._parts import Parts
from scoring._progress import FaceProgress
from scoring.columns import flat_row
from scoring.scorer import Scorer
from utils.stop import StopRequest

PART_INPUTS = 512  # a part is written after so many inputs,
AHEAD = 2  # photos for each thread that are decoded or being decoded
PART_SECONDS = 20.0  # or after this time, if that is sooner


Read = tuple[Item, Photo | ValueError]


class Chunk(NamedTuple):
    """Consecutive inputs, and the rows of each, in order."""

    items: list[Item]
    scores: list[FaceScore]

    def rows(self) -> list[dict[str, Any]]:
        """Flat rows, for files."""
        found = []
        for score in self.scores:
            item = self.items[score.image]
            found.append(flat_row(item.file, item.index, score))
        return found


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody asked for an end; what was not handed out is dropped."""


@dataclass(frozen=True)
class Job:
    """How inputs are scored.

    Attributes:
        scorer: detector and model.
        aligned: whether all inputs are aligned faces; None leaves it to each.
        workers: threads that read and decode.
        stop: looked at before every input.
        progress: told of every input and face.
    """

    scorer: Scorer
    aligned: bool | None
    workers: int
    stop: StopRequest
    progress: FaceProgress

    def chunks(self, items: Iterator[Item]) -> Iterator[Chunk]:
        """Yield scored inputs; a chunk has as many inputs as a batch of the scorer has faces.

        So the chunks after a restart are those of a run that never stopped, and its digits too.

        Raises:
            Stopped: at the first input after a stop request.
        """
        ahead = read_ahead(items, self.workers, AHEAD * self.workers)
        with closing(cast("Generator[Read]", ahead)) as photos:
            while (chunk := self._next(photos)).items:
                self.progress.found(sum(score.status == "scored" for score in chunk.scores))
                yield chunk

    def _next(self, photos: Iterator[Read]) -> Chunk:
        items: list[Item] = []
        names: list[str] = []

        def pulled() -> Iterator[Photo | ValueError]:
            for item, photo in islice(photos, self.scorer.batch_size):
                if self.stop.is_requested:
                    raise Stopped
                self.progress.input()
                items.append(item)
                names.append(called(item))
                yield photo

        def aligned() -> Iterator[bool | None]:
            taken = 0
            while taken < len(items):
                yield items[taken].aligned if self.aligned is None else self.aligned
                taken += 1

        return Chunk(items, self.scorer.score_photos(pulled(), aligned(), names))

    def into_parts(self, items: Iterator[Item], parts: Parts) -> bool:
        """Score inputs into parts; returns whether that came to its end."""
        taken: list[Item] = []
        rows: list[dict[str, Any]] = []
        begun, ended = time.monotonic(), True
        try:
            for chunk in self.chunks(items):
                taken += chunk.items
                rows += chunk.rows()
                if len(taken) >= PART_INPUTS or time.monotonic() - begun > PART_SECONDS:
                    parts.add(taken, rows)
                    taken, rows, begun = [], [], time.monotonic()
        except Stopped:
            ended = False
        if taken:
            parts.add(taken, rows)
        return ended


def called(item: Item) -> str:
    """Name an input in a line for people."""
    name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in item.file)
    return name if item.index is None else f"{name}[{item.index}]"
