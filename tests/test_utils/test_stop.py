import signal

import pytest

from utils.long_work import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_does_not_interrupt(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_requested
        signal.raise_signal(number)
        assert stop.is_requested
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_one():
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_where_signals_are_passed_on_a_second_one_is_the_same_request():
    with StopRequest(second_interrupts=False) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_requested


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_requested
    finally:
        signal.signal(signal.SIGINT, before)
