"""Stop long work at a safe point instead of in the middle of a step."""

from __future__ import annotations

import signal
from types import FrameType


class StopRequest:
    """While active, Ctrl-C and SIGTERM set `is_requested`; a second Ctrl-C interrupts at once.

    A Ctrl-C that is ignored from the start, as a script's `command &` has it, stays ignored.

    Args:
        second_interrupts: False where one Ctrl-C may arrive twice, as under torchrun, which passes
            signals on.

    Attributes:
        is_requested: whether somebody wants the work to stop; the work looks at it where it can.
        terminated: whether SIGTERM requested it.
    """

    _signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, second_interrupts: bool = True) -> None:
        self.is_requested = self.terminated = False
        self._second_interrupts = second_interrupts

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.getsignal(number) for number in self._signals}
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
