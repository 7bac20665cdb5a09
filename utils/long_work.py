"""Work over many images: read ahead in threads, shown as it goes on, stopped at a safe point."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Self, TypeVar

from tqdm import tqdm

from utils.cli import END_SIGNALS

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, depth: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order.

    An error of the function is raised in the place of its result, and ends the iteration; so does a
    consumer that closes it. Both wait for what the threads are working on.

    Args:
        function: called in threads, several at a time.
        items: iterated over in the calling thread.
        workers: threads.
        depth: results at most that are being made or wait to be taken; memory holds so many.

    Raises:
        ValueError: fewer than one thread or item; raised with the first result.
    """
    if workers < 1 or depth < 1:
        raise ValueError(f"{workers} threads and {depth} items ahead: both must be at least 1")
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(workers, depth), thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


JUDGED_AFTER = 1000  # inputs; the share of unreadable ones says little before


class UnreadableShare:
    """Counts inputs, and ends the work where too many of them cannot be read (docs/formats.md).

    Args:
        limit: share that may be unreadable.
        flag: its name, for messages.
    """

    def __init__(self, limit: float, flag: str = "--max_bad_share") -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"{flag} {limit}: must lie in 0..1")
        self.limit, self._flag = limit, flag
        self._read = self._bad = 0
        self._example = ""

    def add(self, read: int, bad: int = 0, example: str = "") -> None:
        """Count inputs, those among them that cannot be read, and name one.

        Raises:
            ValueError: too many of 1000 inputs or more.
        """
        self._read, self._bad = self._read + read, self._bad + bad
        self._example = self._example or example
        if self._read >= JUDGED_AFTER:
            self.judge()

    def judge(self) -> None:
        """Raise ValueError where too many inputs are unreadable, however few were read."""
        if self._bad > self.limit * self._read:
            raise ValueError(
                f"{self._bad} of {self._read} images read are bad, more than {self._flag} "
                f"{self.limit:g} allows; such as {self._example}. What is finished is kept: mend "
                f"them or allow more, and the same command resumes"
            )


LINE_EVERY = 30.0  # seconds
MOST_THREADS = 16


def threads(requested: int | None) -> int:
    """Return how many threads decode: the cores that this process may use, unless requested."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    own = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return requested or max(1, min(MOST_THREADS, own))


class Progress:
    """Images that are done: a bar on a terminal, a line now and then elsewhere; a context manager.

    Call it with the number in each batch.

    Args:
        what: what is done with them.
        total: how many there are, or what counts them, in a thread beside the work; None from it
            where that takes too long. Only with a total the time left is shown.
        done: images that an earlier start has finished.
        shown: whether this process shows anything.
    """

    def __init__(
        self, what: str, total: int | Callable[[], int | None], *, done: int = 0, shown: bool = True
    ) -> None:
        self._what, self._finished, self._done, self._faces = what, done, 0, 0
        self._count = total if callable(total) else lambda: total
        self._total = None if callable(total) else total
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self._total,
            desc=what,
            unit="img",
            unit_scale=True,
            leave=False,
            initial=done,
            disable=not (shown and terminal),
        )
        self._lines = shown and not terminal
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._total is None:
            threading.Thread(target=self.count_total, name="count", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, images: int = 1) -> None:
        """Count images that are done, or taken up."""
        self._done += images
        self._bar.total = self._total
        self._bar.update(images)
        now = time.monotonic()
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            sys.stderr.write(self.line(now - self._start) + "\n")
            sys.stderr.flush()

    def add_faces(self, count: int) -> None:
        """Count faces in the images."""
        self._faces += count
        self._bar.set_postfix_str(f"{self._faces} faces", refresh=False)

    def add_finished(self, images: int) -> None:
        """Count images that an earlier start has finished."""
        self._finished += images
        self._bar.update(images)

    def count_total(self) -> None:
        """Count all images; the work itself reports what is wrong with one."""
        with suppress(ValueError, OSError):
            self._total = self._count()

    def line(self, seconds: float) -> str:
        """Say how far it is, how fast, and how long it will take, after so many seconds."""
        done, total = self._finished + self._done, self._total
        rate = self._done / max(seconds, 1e-9)
        faces = f", {self._faces} faces" if self._faces else ""
        if total is None:
            return f"{self._what}: {done} images{faces}, {rate:.1f} images/s"
        left = duration((total - done) / max(rate, 1e-9))
        share = f"{done} of {total} images ({done / max(total, 1):.1%})"
        return f"{self._what}: {share}{faces}, {rate:.1f} images/s, {left} left"


def duration(seconds: float) -> str:
    """Write seconds as 45 s, 12 min, 3 h 20 min or 5 days 4 h."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if hours < 48:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} days {int(hours % 24)} h"


class StopRequest:
    """While active, signals that end a job set `is_requested`; a second Ctrl-C interrupts at once.

    A signal that is ignored from the start, as a script's `command &` or nohup has it, stays so.

    Args:
        second_interrupts: False where one Ctrl-C may arrive twice, as under torchrun, which passes
            signals on.

    Attributes:
        is_requested: whether somebody wants the work to stop; the work looks at it where it can.
        terminated: whether SIGTERM requested it.
    """

    def __init__(self, second_interrupts: bool = True) -> None:
        self.is_requested = self.terminated = False
        self._second_interrupts = second_interrupts

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.getsignal(number) for number in END_SIGNALS}
        for number, handler in self._previous.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # somebody inside chose to ignore it
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.is_requested = True
        self.terminated |= number == signal.SIGTERM
        if self._second_interrupts:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
