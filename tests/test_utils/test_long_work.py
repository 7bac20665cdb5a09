import signal
import threading

import pytest

from utils.long_work import StopRequest, prefetch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_in_order_and_not_further_ahead_than_told():
    started, release = [], threading.Event()

    def work(item):
        started.append(item)
        if item == 0:
            release.wait(10)
        return item * item

    taken = iter(range(20))
    results = prefetch(work, taken, 3, 4)
    threading.Timer(0.05, release.set).start()
    assert next(results) == 0
    assert max(started) <= 3
    assert list(results) == [item * item for item in range(1, 20)]


def test_an_error_comes_in_its_place_and_threads_end():
    def work(item):
        if item == 2:
            raise KeyError(item)
        return item

    before = threading.active_count()
    results = prefetch(work, range(10), 2, 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)
    stopped = prefetch(work, range(10), 2, 3)
    next(stopped)
    stopped.close()
    assert threading.active_count() == before


def test_no_items_and_no_threads():
    assert list(prefetch(str, [], 2, 2)) == []
    with pytest.raises(ValueError, match="0 threads and 2 items ahead"):
        next(prefetch(str, [1], 0, 2))
