import dataclasses
from pathlib import Path

import pytest

from utils.config import (
    Branch,
    Method,
    Schedule,
    TrainConfig,
    Verification,
    from_json,
    load_config,
    override,
    parse_method,
    to_json,
)

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "config").glob("*.py"))
BASE = TrainConfig(
    name="tiny",
    backbone=Method("iresnet", depth=18, layers=(1, 1, 1, 1)),
    backbone_weights="backbone.pth",
    head=Method("fc2", output="probability"),
    loss=Method("idq", scale=16.0),
    train_images=("a.rec", "b.rec"),
    schedule=Schedule(epochs=4, steps_per_epoch=10, drop_at=(2, 3)),
    verification=Verification(targets=("lfw", "cfp_fp")),
)
BRANCHED = dataclasses.replace(
    BASE,
    head=None,
    loss=None,
    branches=tuple(
        Branch(name, head=BASE.head, loss=Method("idq", margin=0.4)) for name in ("one", "two-0")
    ),
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_survives_json(path):
    config = load_config(path)
    assert from_json(to_json(config)) == config
    assert from_json(to_json(BASE)).backbone.options["layers"] == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("assignment", "read", "expected"),
    [
        ("schedule.lr=3e-3", lambda config: config.schedule.lr, 3e-3),
        ("schedule.lr=1", lambda config: config.schedule.lr, 1.0),
        ("loss.margin=0.4", lambda config: config.loss.options, {"scale": 16.0, "margin": 0.4}),
        ("loss.name=pcnet", lambda config: config.loss.name, "pcnet"),
        ("loss=pcnet", lambda config: config.loss, Method("pcnet")),
        ("loss=idq:margin=0.4", lambda config: config.loss, Method("idq", margin=0.4)),
        ("loss={'name': 'pcnet'}", lambda config: config.loss, Method("pcnet")),
        ("train_images=faces.rec", lambda config: config.train_images, "faces.rec"),
        ("train_images=('a','b')", lambda config: config.train_images, ("a", "b")),
        ("verification.targets=lfw", lambda config: config.verification.targets, ("lfw",)),
        ("verification.dataset_path=x y", lambda c: c.verification.dataset_path, "x y"),
        ("augment.blur=0", lambda config: config.augment.blur, 0.0),
        ("name=a=b", lambda config: config.name, "a=b"),
    ],
)
def test_override_sets_one_field(assignment, read, expected):
    assert read(override(BASE, [assignment])) == expected


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("schedule.lr", "expected key=value"),
        ("nothing=1", r"no field 'nothing' \(known: name, backbone"),
        ("schedule.rate=1", "no field 'rate'"),
        ("shedule.lr=1", "no field 'shedule'; did you mean schedule\\?"),
        ("lr=1", "no field 'lr'; did you mean schedule.lr\\?"),
        ("scale=8", "no field 'scale'; did you mean loss.scale\\?"),
        ("seed=1.5", "seed = 1.5: expected int"),
        ("schedule.lr=fast", "schedule.lr = 'fast': expected float"),
        ("schedule.lr=-1", r"schedule\.lr = -1\.0: must be above 0"),
        ("seed=True", "expected int"),
        ("schedule.lr=1e999", "expected float"),
        ("loss.scale.b=1", "no field 'scale'"),
        ("seed.b=1", "'seed' has no fields"),
        ("loss=idq:margin", "expected name:option=value"),
    ],
)
def test_override_errors_name_the_key_and_the_value(assignment, text):
    with pytest.raises(ValueError, match=text):
        override(BASE, [assignment])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1]", r"config = \[1\]: expected the fields of TrainConfig"),
        ('{"nme": "x"}', "no field 'nme'"),
        ('{"name": "x"}', "missing"),
        ("{", "."),
    ],
)
def test_json_from_a_stranger_is_checked(text, match):
    with pytest.raises(ValueError, match=match):
        from_json(text)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("mbf", Method("mbf")),
        ("a:b=1.5,c=x/y.csv", Method("a", b=1.5, c="x/y.csv")),
        ("a:layers=(1, 2,3),d=[4,5], e='x'", Method("a", layers=(1, 2, 3), d=(4, 5), e="x")),
    ],
)
def test_a_method_on_the_command_line(text, method):
    assert parse_method(text) == method


@pytest.mark.parametrize("text", ["a:b", "a:b=1,,c=2", "a:=1"])
def test_a_method_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=f"{text}: expected name:option=value,option=value"):
        parse_method(text)


@pytest.mark.parametrize("turn", [1, -1])
def test_fields_that_depend_on_each_other_are_checked_together(turn):
    changes = ["schedule.epochs=1", "schedule.drop_at=(0.5,)"][::turn]
    schedule = override(BASE, changes).schedule
    assert (schedule.epochs, schedule.drop_at) == (1, (0.5,))


def test_a_shorter_run_loses_the_drops_beyond_its_end():
    assert override(BASE, ["schedule.epochs=3"]).schedule.drop_at == (2,)
    with pytest.raises(ValueError, match=r"schedule\.drop_at = \(9\.0,\): must be inside \(0, 3\)"):
        override(BASE, ["schedule.epochs=3", "schedule.drop_at=(9,)"])


def test_branches_travel_as_json_and_are_overridden_by_name():
    config = dataclasses.replace(BRANCHED, schedule=Schedule(epochs=1))
    assert from_json(to_json(config)) == config
    changed = override(config, ["branches.two-0.loss.margin=0.3", "branches.one.seed=4"])
    assert [branch.loss.options["margin"] for branch in changed.branches] == [0.4, 0.3]
    assert [branch.seed for branch in changed.branches] == [4, None]
    own = Schedule(epochs=2, lr=1.0, drop_at=(1.5,))
    run = dataclasses.replace(config, schedule=Schedule(epochs=2))
    slow = dataclasses.replace(config.branches[0], schedule=own)
    slower = dataclasses.replace(run, branches=(slow,))
    shorter = override(slower, ["schedule.epochs=1", "schedule.lr=0.5", "schedule.drop_at=()"])
    assert shorter.branches[0].schedule == Schedule(epochs=1, lr=1.0)
    everywhere = override(config, ["branches.*.loss.margin=0.2", "branches.one.schedule.lr=3.0"])
    assert [branch.loss.options["margin"] for branch in everywhere.branches] == [0.2, 0.2]
    assert everywhere.branches[0].schedule == Schedule(epochs=1, lr=3.0)
    assert everywhere.branches[1].schedule is None


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("loss.margin=0.3", "'loss' has no fields in a config of branches; set branches.NAME.loss"),
        ("branches.three.seed=4", r"no branch 'three' \(known: one, two-0, \*\)"),
        ("branches.one=pcnet", r"set a field of a branch, such as branches\.one\.loss"),
        ("branches=5", r"set a field of a branch, such as branches\.one\.loss"),
        ("branches.one.sed=5", "no field 'sed'; did you mean seed\\? \\(known: name, head"),
        ("branches.one.schedule.drop_at=(9,)", r"branches\.one\.schedule: schedule\.drop_at"),
        ("execution=cudagraph", "must be one of 'eager', 'cuda_graph', 'compile'"),
        ("verification=None", "expected the fields of Verification: dataset_path, targets"),
    ],
)
def test_overrides_of_branches_fail_by_name(assignment, text):
    with pytest.raises(ValueError, match=text):
        override(BRANCHED, [assignment])
    with pytest.raises(ValueError, match="this config has one head and no branches"):
        override(BASE, ["branches.one.seed=5"])
