"""How far scoring is: inputs, faces, and time left once it is known how many inputs there are.

For scoring/score_images.py. Counting goes on beside the work, which does not wait for it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from utils.progress import LINE_EVERY, duration


class FaceProgress:
    """A bar on a terminal, a line now and then elsewhere; a context manager.

    Args:
        count: gives the number of inputs, or None where it takes too long; asked by a thread.
        done: inputs that an earlier start has finished.
    """

    def __init__(self, count: Callable[[], int | None], done: int = 0) -> None:
        self._count, self._done = count, done
        self.inputs = self.faces = 0
        self._total: int | None = None
        terminal = sys.stderr.isatty()
        self._lines = not terminal
        self._bar = tqdm(
            desc="score",
            unit="img",
            unit_scale=True,
            leave=False,
            initial=done,
            disable=not terminal,
        )
        self._start = self._last = time.monotonic()

    def __enter__(self) -> FaceProgress:
        threading.Thread(target=self.find_total, name="count", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def before(self, inputs: int) -> None:
        """Count inputs that an earlier start has finished."""
        self._done += inputs
        self._bar.update(inputs)

    def input(self, count: int = 1) -> None:
        """Count inputs that were taken up."""
        self.inputs += count
        self._bar.total = self._total
        self._bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            sys.stderr.write(self.line(now - self._start) + "\n")
            sys.stderr.flush()

    def found(self, faces: int) -> None:
        """Count faces."""
        self.faces += faces
        self._bar.set_postfix_str(f"{self.faces} faces", refresh=False)

    def line(self, seconds: float) -> str:
        """Say how far it is, how fast, and how long it will take, after so many seconds."""
        there = self._done + self.inputs
        rate = self.inputs / max(seconds, 1e-9)
        text = f"score: {there} images, {self.faces} faces, {rate:.1f} images/s"
        if self._total is None:
            return text
        left = duration((self._total - there) / max(rate, 1e-9))
        share = there / max(self._total, 1)
        return f"{text}, {share:.1%} of {self._total}, {left} left"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something else is written."""
        with tqdm.external_write_mode():
            yield

    def find_total(self) -> None:
        """Count all inputs; what is wrong with one is told by the work itself."""
        try:
            self._total = self._count()
        except (ValueError, OSError):
            self._total = None
