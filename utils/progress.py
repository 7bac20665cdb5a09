"""How far long work over images is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_EVERY = 30.0  # seconds


class Progress:
    """Counts images of `total`; call it with the number in each batch.

    A process that is not the main one shows nothing.
    """

    def __init__(self, what: str, total: int, *, shown: bool) -> None:
        self._what, self._total, self._done = what, total, 0
        terminal = sys.stderr.isatty()
        hidden = not (shown and terminal)
        self._bar = tqdm(
            total=total, desc=what, unit="img", unit_scale=True, leave=False, disable=hidden
        )
        self._lines = shown and not terminal
        self._start = self._last = time.monotonic()

    def __call__(self, images: int) -> None:
        """Count images that are done."""
        self._done += images
        self._bar.update(images)
        now = time.monotonic()
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            sys.stderr.write(self.line(now - self._start) + "\n")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """Say how far it is, how fast, and how long it will take, after so many seconds."""
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        return (
            f"{self._what}: {self._done} of {self._total} images "
            f"({self._done / max(self._total, 1):.1%}), {rate:.1f} images/s, {duration(left)} left"
        )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


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
