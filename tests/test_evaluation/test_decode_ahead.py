"""Decoding ahead changes when images are decoded, never which."""

import threading

import numpy as np
import pytest

from evaluation._decode_ahead import BATCHES, DecodedAhead

SPANS = [(start, start + 4) for start in range(0, 80, 4)]


class Numbers:
    """A source whose images are their own numbers; one of them may be damaged."""

    def __init__(self, damaged=None):
        self.damaged, self.asked, self.lock = damaged, [], threading.Lock()

    def decode(self, start, stop):
        with self.lock:
            self.asked.append(start)
        if start == self.damaged:
            raise ValueError(f"image {start} is damaged")
        return np.arange(start, stop, dtype=np.uint8)[:, None, None, None]


def test_each_batch_is_what_the_source_gives_and_is_decoded_once():
    source = Numbers()
    with DecodedAhead(source, SPANS) as ahead:
        for start, stop in SPANS:
            assert ahead.decode(start, stop).ravel().tolist() == list(range(start, stop))
    assert sorted(source.asked) == [start for start, _ in SPANS]


def test_batches_may_be_left_out_and_others_asked_for():
    with DecodedAhead(Numbers(), SPANS) as ahead:
        for start, stop in [SPANS[0], SPANS[9], (1, 3), SPANS[19]]:
            assert ahead.decode(start, stop).ravel().tolist() == list(range(start, stop))


def test_an_error_comes_with_its_own_batch_and_no_more_than_a_few_are_decoded_ahead():
    source = Numbers(damaged=8)
    with DecodedAhead(source, SPANS) as ahead:
        ahead.decode(0, 4)
        ahead.decode(4, 8)
        with pytest.raises(ValueError, match="image 8 is damaged"):
            ahead.decode(8, 12)
    assert max(source.asked) <= 4 * (2 + BATCHES)


def test_threads_end_with_the_context():
    before = threading.active_count()
    with DecodedAhead(Numbers(), SPANS) as ahead:
        ahead.decode(0, 4)
    assert threading.active_count() == before
