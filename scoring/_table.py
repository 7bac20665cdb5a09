"""What scoring/score_images.py prints: a line per face, and the counts at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from evaluation.face_score import FaceScore, Status, Verdict
from scoring._job import Chunk, called

HEADING = "uncertainty quality P(miss)  verdict    image"
_SAID: dict[Status, str] = {
    "scored": "scored",
    "no face": "without a face",
    "unreadable": "unreadable",
}


def table_lines(chunk: Chunk) -> Iterator[str]:
    """Yield a line for each row, as wide as `HEADING` up to the image's name."""
    for score in chunk.scores:
        name = called(chunk.items[score.image])
        face = f" face {score.face}" if score.face > 0 else ""
        why = "; ".join(score.reasons) or ("" if score.status == "scored" else score.note)
        line = (
            f"{_number(score.uncertainty, '.5g'):>11} {_quality(score):>7} "
            f"{_number(score.p_false_non_match, '.2g'):<8} {score.verdict or '-':<10} {name}{face}"
        )
        yield f"{line}  ({' '.join(why.split())})" if why else line


class Summary:
    """Counts rows by status and by verdict."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()

    def counted(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Pass flat rows on, and count them."""
        for row in rows:
            self.add(row["status"], row["verdict"])
            yield row

    def add(self, status: Status, verdict: Verdict) -> None:
        """Count a row."""
        self.statuses[status] += 1
        self.verdicts[verdict] += 1

    def text(self) -> str:
        """Say it in a line or two."""
        parts = [f"{self.statuses[one]} {_SAID[one]}" for one in get_args(Status)]
        line = f"{self.statuses.total()} rows: {', '.join(parts)}\n"
        if self.verdicts.total() == self.verdicts[""]:
            return line
        found = [f"{self.verdicts[one]} {one}" for one in get_args(Verdict) if one]
        empty = self.statuses.total() - self.statuses["scored"]
        why = f" ({empty} of them for want of a face)" if empty else ""
        return f"{line}verdicts: {', '.join(found)}{why}\n"


def _number(value: float, form: str) -> str:
    return "-" if value != value else format(value, form)


def _quality(score: FaceScore) -> str:
    return "-" if score.quality == 255 else str(score.quality)
