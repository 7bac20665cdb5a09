"""Which methods are one method with several seeds."""

import dataclasses

import pytest

from models.seeds import ASIDE, Group, seed_groups
from utils.config import Branch, Method, Schedule, TrainConfig

BASE = TrainConfig(
    name="one",
    backbone=Method("iresnet"),
    backbone_weights="a.pth",
    head=Method("fc2", output="probability"),
    loss=Method("idq", margin=0.4),
    train_images="faces",
    schedule=Schedule(epochs=1),
)


def run(name="x", **changes):
    return dataclasses.replace(BASE, name=name, **changes)


def branches(names_and_seeds, **changes):
    made = (Branch(n, head=BASE.head, loss=Method(loss), seed=s) for n, loss, s in names_and_seeds)
    config = dataclasses.replace(BASE, head=None, loss=None, branches=tuple(made), **changes)
    return config.heads


def test_branches_of_one_run_are_groups_by_loss():
    configs = branches(
        [(f"{loss}-{seed}", loss, seed) for seed in (0, 1) for loss in ("idq", "mls")]
    )
    idq, mls = Group("idq", ("idq-0", "idq-1"), 1), Group("mls", ("mls-0", "mls-1"), 1)
    assert seed_groups(configs) == (idq, mls)


def test_separate_runs_that_differ_in_what_no_head_learns_from():
    other = {
        "name": "two",
        "log_dir": "elsewhere",
        "log_every": 7,
        "seed": 1,
        "head_seed": 5,
        "workers": 9,
        "steps_per_forward": 3,
        "execution": "compile",
        "device": "cuda",
        "backbone_weights": "moved.pth",
    }
    assert set(other) == set(ASIDE)
    (group,) = seed_groups({"a": run(), "b": run(**other)})
    assert group == Group("idq", ("a", "b"), 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": Method("idq", margin=0.5)},
        {"head": Method("fc2", output="probability", hidden=8)},
        {"head_weights": "start.pth"},
        {"schedule": Schedule(epochs=1, lr=1.0)},
        {"train_images": "others"},
        {"precision": "fp16"},
    ],
)
def test_anything_else_is_another_method(changes):
    assert seed_groups({"a": run(), "b": run(seed=1, **changes)}) == ()


def test_one_seed_is_no_group_and_counts_once():
    assert seed_groups({}) == ()
    assert seed_groups({"a": run()}) == ()
    assert seed_groups({"a": run(), "b": run(head_seed=0)}) == ()  # None means the run's seed
    configs = {"old-0": run(), "new-0": run(), "old-1": run(seed=1), "new-1": run(seed=1)}
    old, new = Group("old", ("old-0", "old-1"), 2), Group("new", ("new-0", "new-1"), 2)
    assert seed_groups(configs) == (old, new)


def test_orders_counts_the_batches_that_were_seen():
    configs = {f"r{i}": run(seed=i // 2, head_seed=i % 2) for i in range(4)}
    (group,) = seed_groups(configs)
    assert group.orders == 2


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["idq-0", "idq-1"], "idq"),
        (["idq-0", "idq-10"], "idq"),
        (["all-idq_0", "all-idq_1"], "all-idq"),
        (["idq0", "idq12"], "idq"),
        (["mbf_y1-seed0", "mbf_y1-seed1"], "mbf_y1"),
        (["glint_ir50_idq", "glint_ir50_idq-2"], "glint_ir50_idq"),
        (["seed0", "seed1"], "idq"),
        (["first", "fifth"], "idq"),
        (["0", "1"], "idq"),
        (["a.x.1", "a.y.2"], "a"),
    ],
)
def test_names(names, wanted):
    (group,) = seed_groups({name: run(seed=place) for place, name in enumerate(names)})
    assert (group.name, group.members) == (wanted, tuple(names))


def test_two_groups_never_share_a_name():
    loss = Method("pcnet")
    configs = {"a-0": run(), "a-1": run(seed=1)}
    configs |= {"a-2": run(loss=loss), "a-3": run(loss=loss, seed=1)}
    assert [group.name for group in seed_groups(configs)] == ["a", "pcnet"]
    again = {
        f"a-{2 * place + seed}": run(loss=Method("idq", margin=margin), seed=seed)
        for place, margin in enumerate((0.1, 0.2, 0.3))
        for seed in (0, 1)
    }
    assert [group.name for group in seed_groups(again)] == ["a", "idq", "a-4 ... a-5"]
