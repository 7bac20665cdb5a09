"""Stop long work at a safe point instead of in the middle of a step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopRequest:
    """While active, Ctrl-C and SIGTERM set `asked`; a second Ctrl-C interrupts at once.

    Args:
        second_interrupts: False where one Ctrl-C may arrive twice, as under torchrun, which passes
            signals on.

    Attributes:
        asked: whether somebody wants the work to stop; the work looks at it where it can.
        terminated: whether SIGTERM was among what asked.
    """

    _signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, second_interrupts: bool = True) -> None:
        self.asked = self.terminated = False
        self._second_interrupts = second_interrupts

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.getsignal(number) for number in self._signals}
        for number in self._signals:
            signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.terminated |= number == signal.SIGTERM
        if self._second_interrupts:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
