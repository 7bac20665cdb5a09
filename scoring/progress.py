"""What scoring/job.py shows: how far it is, a line per face, and the counts at the end."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Self, get_args

from tqdm import tqdm

from report.face_score import NOT_COMPUTED, Status, Verdict
from scoring.rows import Row
from scoring.scorer import Scores
from utils.progress import LINE_EVERY, duration

HEADING = "uncertainty quality P(miss)  verdict    image"
_STATUSES: dict[Status, str] = {
    "scored": "scored",
    "no face": "without a face",
    "unreadable": "unreadable",
}


class FaceProgress:
    """Inputs and faces: a bar on a terminal, a line now and then elsewhere; a context manager.

    The time left is shown once all inputs are counted, which a thread does beside the work.

    Args:
        count: gives the number of inputs, or None where it takes too long.
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

    def __enter__(self) -> Self:
        threading.Thread(target=self.count_total, name="count", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add_finished(self, inputs: int) -> None:
        """Count inputs that an earlier start has finished."""
        self._done += inputs
        self._bar.update(inputs)

    def add_inputs(self, count: int = 1) -> None:
        """Count inputs that were taken up."""
        self.inputs += count
        self._bar.total = self._total
        self._bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            sys.stderr.write(self.line(now - self._start) + "\n")
            sys.stderr.flush()

    def add_faces(self, count: int) -> None:
        """Count scored faces."""
        self.faces += count
        self._bar.set_postfix_str(f"{self.faces} faces", refresh=False)

    def line(self, seconds: float) -> str:
        """Say how far it is, how fast, and how long it will take, after so many seconds."""
        done = self._done + self.inputs
        rate = self.inputs / max(seconds, 1e-9)
        text = f"score: {done} images, {self.faces} faces, {rate:.1f} images/s"
        if self._total is None:
            return text
        left = duration((self._total - done) / max(rate, 1e-9))
        share = done / max(self._total, 1)
        return f"{text}, {share:.1%} of {self._total}, {left} left"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something else is written."""
        with tqdm.external_write_mode():
            yield

    def count_total(self) -> None:
        """Count all inputs; the work itself reports what is wrong with one."""
        try:
            self._total = self._count()
        except (ValueError, OSError):
            self._total = None


class Summary:
    """Counts rows by status and by verdict."""

    def __init__(self) -> None:
        self.statuses: Counter[Status] = Counter()
        self.verdicts: Counter[Verdict] = Counter()

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pass flat rows on, and count them."""
        for row in rows:
            self.add(row["status"], row["verdict"])
            yield row

    def add(self, status: Status, verdict: Verdict) -> None:
        """Count a row."""
        self.statuses[status] += 1
        self.verdicts[verdict] += 1

    def text(self) -> str:
        """Return a line or two."""
        total, scored = self.statuses.total(), self.statuses["scored"]
        counts = ", ".join(f"{self.statuses[name]} {word}" for name, word in _STATUSES.items())
        text = f"{total} {'row' if total == 1 else 'rows'}: {counts}\n"
        if total == self.verdicts[""]:
            return text
        verdicts = ", ".join(f"{self.verdicts[name]} {name}" for name in get_args(Verdict) if name)
        unusable = f" ({total - scored} of them without a usable face)" if total > scored else ""
        return f"{text}verdicts: {verdicts}{unusable}\n"


def table_lines(scores: Scores) -> Iterator[str]:
    """Yield a line for each row, as wide as `HEADING` up to the image's name."""
    for score in scores:
        name = scores.sources[score.image].display_name
        face = f" face {score.face}" if score.face > 0 else ""
        why = "; ".join(score.reasons) or ("" if score.status == "scored" else score.note)
        quality = "-" if score.quality == NOT_COMPUTED else str(score.quality)
        line = (
            f"{_number(score.uncertainty, '.5g'):>11} {quality:>7} "
            f"{_number(score.p_false_non_match, '.2g'):<8} {score.verdict or '-':<10} {name}{face}"
        )
        yield f"{line}  ({' '.join(why.split())})" if why else line


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)
