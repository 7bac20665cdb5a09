"""Steps that are recorded and repeated leave the heads where plain steps leave them."""

import dataclasses

import pytest

import training.trainer


def some(config, *names):
    branches = tuple(branch for branch in config.branches if branch.name in names)
    return dataclasses.replace(config, branches=branches)


def test_recorded_steps_give_the_same_heads(config, train, tape, together, assert_same_run):
    folder = train(some(config, "idq-0", "idq-1", "mls"))
    assert tape.recorded == 2, "one for each learning rate"
    assert tape.repeated == 5, "12 steps, less the first and the 6 of log lines"
    for name in ("idq-0", "idq-1", "mls"):
        assert_same_run(folder / name, together / name)


@pytest.mark.parametrize(("limit", "name"), [(0, "mls"), (None, "dropped")])
def test_dropout_and_numbers_of_pairs_beyond_the_limit_are_not_recorded(
    config, train, tape, together, assert_same_run, monkeypatch, limit, name
):
    if limit is not None:
        monkeypatch.setattr(training.trainer, "MOST_RECORDINGS", limit)
    folder = train(some(config, "idq-0", name))
    assert (tape.recorded, tape.repeated) == (0, 0)
    assert_same_run(folder / name, together / name)
