"""Work over consecutive images, shared out over the ranks of a job.

Public through evaluation.embed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from utils.distributed import World

T = TypeVar("T")
Span = tuple[int, int]  # of rows, the end not included


def spans(stop: int, size: int, start: int = 0) -> list[Span]:
    """Cut rows [start, stop) into spans of that size; the last one may be smaller."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def mine(found: Sequence[Span], world: World) -> Sequence[Span]:
    """Return this rank's spans: span k belongs to rank k % size."""
    return found[world.rank :: world.size]


def each_on_one_rank(found: Sequence[Span], work: Callable[[int, int], T], world: World) -> list[T]:
    """Return the work's result for every span in order, on every rank.

    Raises:
        ValueError: of the work, on all ranks alike; of several, that of the earliest rows.
    """
    done: list[T] = []
    problem: tuple[int, str] | None = None
    for start, stop in mine(found, world):
        try:
            done.append(work(start, stop))
        except (ValueError, OSError) as error:
            if world.size == 1:
                raise
            problem = (start, str(error))
            break
    gathered: list[tuple[list[T], tuple[int, str] | None]] = world.gather((done, problem))
    problems = [one for _, one in gathered if one is not None]
    if problems:
        raise ValueError(min(problems)[1])
    return [gathered[k % world.size][0][k // world.size] for k in range(len(found))]
