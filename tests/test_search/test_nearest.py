"""Blocked search against brute force over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from data.features import cosines, unit_rows
from search.nearest import Candidates, nearest


def brute_force(probes, gallery, count, exclude=None) -> Candidates:
    """Every pair scored alone; a stable sort of each row."""
    unit = np.concatenate([unit_rows(probes), unit_rows(gallery)])
    pairs = np.array(
        [(p, len(probes) + g) for p in range(len(probes)) for g in range(len(gallery))]
    )
    scores = cosines(unit, pairs).reshape(len(probes), len(gallery))
    if exclude is not None:
        scores[np.equal.outer(*exclude)] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(scores, rows, 1)
    rows[best == -np.inf] = -1
    pad = ((0, 0), (0, max(0, count - len(gallery))))
    return Candidates(
        np.pad(best, pad, constant_values=-np.inf), np.pad(rows, pad, constant_values=-1)
    )


@pytest.mark.parametrize("order", ["random", "ascending"])
@pytest.mark.parametrize("block", [(1024, 8192), (7, 5), (3, 64), (64, 1)])
def test_equals_brute_force_whatever_the_blocks(block, order):
    rng = np.random.default_rng(3)
    probes, gallery = rng.standard_normal((30, 12)), rng.standard_normal((200, 12))
    gallery[50:60] = gallery[40:50] * 3  # ties: the first in the gallery counts
    probes[4] = gallery[45]
    if order == "ascending":  # every block is better than the one before
        gallery = gallery[np.argsort(unit_rows(gallery) @ probes[0])]
    found = nearest(probes, gallery.astype(np.float16), 6, block=block)
    expected = brute_force(probes, gallery.astype(np.float16), 6)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize("block", [(1024, 8192), (4, 7)])
@pytest.mark.parametrize("by", ["person", "row"])
def test_leaves_out_the_own_person_or_the_row_itself(by, block):
    rng = np.random.default_rng(5)
    faces = rng.standard_normal((40, 8))
    ids = np.arange(40) // (10 if by == "person" else 1)
    found = nearest(faces, faces, 35, exclude=(ids, ids), block=block)
    expected = brute_force(faces, faces, 35, (ids, ids))
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert (found.rows[:, -1] == -1).all() == (by == "person")


def test_small_galleries_are_filled_up_and_empty_sides_give_empty_results():
    rows = np.eye(3, 4, dtype=np.float32)
    found = nearest(rows, rows[:1], 2)
    assert found.rows.tolist() == [[0, -1]] * 3
    assert found.scores[:, 1].tolist() == [-np.inf] * 3
    assert nearest(rows, rows[:0], 2).rows.tolist() == [[-1, -1]] * 3
    assert nearest(rows[:0], rows, 2).rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("probes", "gallery", "count", "key"),
    [
        ([[1, np.nan]], [[1, 0]], 1, "probes: .*row 0"),
        ([[1, 0]], [[1, 0], [0, 0]], 1, "gallery, rows from 0 on: .*row 1"),
        ([[1, 0]], [[1, 0]], 0, "count = 0"),
        ([[1, 0]], [[1, 0, 0]], 1, "do not fit"),
    ],
)
def test_refuses_what_has_no_direction_and_what_does_not_fit(probes, gallery, count, key):
    with pytest.raises(ValueError, match=key):
        nearest(np.array(probes, np.float32), np.array(gallery, np.float32), count)


def test_refuses_numbers_that_do_not_fit():
    rows = np.eye(2)
    with pytest.raises(ValueError, match="exclude"):
        nearest(rows, rows, 1, exclude=(np.arange(2), np.arange(3)))
