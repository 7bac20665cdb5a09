"""Frames of a video, by OpenCV, one after the other.

Used by photos/sources.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from photos.decode import from_array
from photos.items import Item, ready, reason, refused

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for group in (
        ("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4"),
        ("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
    for suffix in group
)
_MISSING = 0.1  # of the frames that the file announces; announcements are often a little off


@dataclass(frozen=True)
class VideoSource:
    """Every n-th frame of a video, from the first; turned upright as the file says.

    Frames are decoded as they are asked for, in the thread that asks: a video has no other order.
    """

    path: str
    every: int

    def items(self, skip: int) -> Iterator[Item | None]:
        """Yield its frames, and a last item that says so where the video is damaged.

        Frames to skip are decoded all the same, for want of another way to find those that follow.
        """
        why = _no_video(self.path)
        capture = cv2.VideoCapture() if why else cv2.VideoCapture(self.path, cv2.CAP_FFMPEG)
        frames = row = 0
        try:
            while capture.grab():
                if frames % self.every == 0:
                    yield self._item(capture, frames) if row >= skip else None
                    row += 1
                frames += 1
            announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        finally:
            capture.release()
        if not frames:
            why = why or "not a video that OpenCV can read, or damaged"
        elif frames < (1 - _MISSING) * announced:
            why = f"the video breaks off: {frames} of about {announced} frames can be read"
        if why:
            yield refused(self.path, why, frames or None) if row >= skip else None

    def count(self) -> None:
        """Return None: what a video announces is no more than a guess."""

    def _item(self, capture: cv2.VideoCapture, frame: int) -> Item:
        found, bgr = capture.retrieve()
        if not found:
            return refused(self.path, "the frame is damaged", frame)
        return ready(self.path, frame, from_array(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))


def _no_video(path: str) -> str:
    """Say why a file must not reach the decoder, which would follow a playlist; "" where it may."""
    try:
        if not Path(path).is_file():
            return "not a regular file"
        with Path(path).open("rb") as file:
            head = file.read(256)
    except OSError as error:
        return reason(error)
    if not head:
        return "empty file"
    return "a text file, not a video" if head.isascii() and b"\0" not in head else ""
