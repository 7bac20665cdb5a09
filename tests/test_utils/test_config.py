import dataclasses
from functools import partial

import pytest

from tests.helpers import ROOT
from utils.config import (
    Augment,
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

HEAD = Method("fc2", output="probability")
BRANCHES = (
    Branch("idq-0", head=HEAD, loss=Method("idq"), seed=0),
    Branch("pcnet", head=HEAD, loss=Method("pcnet"), seed=7),
)
IN_CAPITALS = dataclasses.replace(BRANCHES[1], name="IDQ-0")
LONGER = dataclasses.replace(BRANCHES[0], schedule=Schedule(epochs=3, steps_per_epoch=5))
several = partial(
    TrainConfig,
    name="all",
    backbone=Method("iresnet", depth=18),
    backbone_weights="backbone.pth",
    train_images="faces.rec",
    schedule=Schedule(epochs=2, steps_per_epoch=5),
    branches=BRANCHES,
)
one_head = partial(several, branches=(), head=HEAD, loss=Method("idq"))
schedule = partial(Schedule, epochs=4)


@pytest.mark.parametrize(
    ("make", "changes", "text"),
    [
        (schedule, {"epochs": 0}, r"schedule\.epochs = 0: must be at least 1"),
        (schedule, {"lr": -1.0}, r"schedule\.lr = -1\.0: must be above 0"),
        (schedule, {"drop_at": (5,)}, r"schedule\.drop_at = \(5,\): must be inside \(0, 4\)"),
        (schedule, {"momentum": 1.0}, r"schedule\.momentum"),
        (schedule, {"optimizer": "adam"}, r"schedule\.optimizer = 'adam': must be one of 'sgd'"),
        (Augment, {"blur": 1.5}, r"augment\.blur = 1\.5: must be a probability"),
        (Augment, {"blur_radii": ()}, r"augment\.blur_radii"),
        (Verification, {"batch_size": 0}, r"verification\.batch_size = 0"),
        (one_head, {"images_per_class": 1}, "images_per_class = 1: must be at least 2"),
        (one_head, {"classes_per_batch": 0}, "classes_per_batch = 0"),
        (one_head, {"precision": "int8"}, "precision = 'int8': must be one of"),
        (one_head, {"execution": "fast"}, "execution = 'fast': must be one of"),
        (one_head, {"steps_per_forward": 0}, "steps_per_forward = 0: must be at least 1, or None"),
        (one_head, {"max_bad_share": 2.0}, r"max_bad_share = 2\.0"),
        (one_head, {"name": ""}, "name = ''"),
        (several, {"branches": ()}, "head = None: must be given, unless branches are"),
        (several, {"loss": Method("idq")}, "loss = .*: must be left out: each of the branches has"),
        (several, {"branches": BRANCHES[:1] * 2}, "must be of different names"),
        (several, {"branches": (BRANCHES[0], IN_CAPITALS)}, "of different names, in any case"),
        (several, {"branches": (LONGER,)}, r"idq-0\.schedule = '3 x 5 steps': must be as long as"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_name(make, changes, text):
    with pytest.raises(ValueError, match=text):
        make(**changes)


def test_a_misspelt_field_is_an_error_and_configs_are_frozen():
    with pytest.raises(TypeError, match="scheduel"):
        one_head(scheduel=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one_head().name = "other"


def test_one_source_or_several():
    assert one_head().sources == ("faces.rec",)
    assert one_head(train_images=("a", "b")).sources == ("a", "b")


def test_load_config_names_the_file_and_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"no config file .*absent\.py"):
        load_config(tmp_path / "absent.py")
    flat = tmp_path / "old.py"
    flat.write_text("num_epochs = 12\n")
    with pytest.raises(ValueError, match=r"old\.py does not define .*docs/migrating\.md"):
        load_config(flat)


def test_learning_rate_drops_at_the_stated_epochs_or_within_one():
    whole = schedule(steps_per_epoch=3, lr=1.0, drop_at=(2, 3))
    rates = [whole.lr_at(step) for step in range(12)]
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 3 + [0.01] * 3)
    within = schedule(epochs=2, steps_per_epoch=4, lr=1.0, drop_at=(1, 1.5), drop_factor=0.5)
    assert [within.lr_at(step) for step in range(8)] == [1] * 4 + [0.5] * 2 + [0.25] * 2


def test_a_branch_alone_is_a_plain_config():
    alone = several().branch_config(BRANCHES[1])
    assert alone.branches == ()
    assert (alone.name, alone.loss, alone.head_seed) == ("all-pcnet", Method("pcnet"), 7)
    assert alone.schedule == Schedule(epochs=2, steps_per_epoch=5)
    assert several().heads == {"idq-0": several().branch_config(BRANCHES[0]), "pcnet": alone}
    assert alone.heads == {"": alone}


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_a_branch_is_named_like_a_folder(name):
    with pytest.raises(ValueError, match="it is a folder"):
        Branch(name, head=Method("fc2"), loss=Method("idq"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from utils.config import Branch\n\nBranch('a', sed=1)\n", r":3: TypeError: .*'sed'"),
        ("config = (\n", r":1: SyntaxError: "),
        ("a = 1\nconfig = b\n", r":2: NameError: name 'b'"),
    ],
)
def test_a_mistake_in_a_config_file_has_its_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.py{message}"):
        load_config(tmp_path / "mine.py")


# --- as JSON and on the command line -------------------------------------------------------------

CONFIGS = sorted((ROOT / "config").glob("*.py"))
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
        ("schedule.steps_per_epoch=5", lambda config: config.log_every, 20),
        ("schedule.steps_per_epoch=99", lambda config: config.log_every, 100),
    ],
)
def test_override_sets_one_field(assignment, read, expected):
    assert read(override(BASE, [assignment])) == expected


@pytest.mark.parametrize(
    ("config", "assignment", "text"),
    [
        (BASE, "schedule.lr", "expected key=value"),
        (BASE, "nothing=1", r"no field 'nothing' \(known: name, backbone"),
        (BASE, "schedule.rate=1", "no field 'rate'"),
        (BASE, "shedule.lr=1", "no field 'shedule'; did you mean schedule\\?"),
        (BASE, "lr=1", "no field 'lr'; did you mean schedule.lr\\?"),
        (BASE, "scale=8", "no field 'scale'; did you mean loss.scale\\?"),
        (BASE, "seed=1.5", "seed = 1.5: expected int"),
        (BASE, "schedule.lr=fast", "schedule.lr = 'fast': expected a finite number"),
        (BASE, "schedule.lr=-1", r"schedule\.lr = -1\.0: must be above 0"),
        (BASE, "seed=True", "expected int"),
        (BASE, "schedule.lr=1e999", "expected a finite number"),
        (BASE, "loss.scale.b=1", "no field 'scale'"),
        (BASE, "seed.b=1", "'seed' has no fields"),
        (BASE, "loss=idq:margin", "expected name:option=value"),
        (BASE, "branches.one.seed=5", "this config has one head and no branches"),
        (BRANCHED, "loss.margin=0.3", "'loss' has no fields in a config of branches; set branches"),
        (BRANCHED, "branches.three.seed=4", r"no branch 'three' \(known: one, two-0, \*\)"),
        (BRANCHED, "branches.one=pcnet", r"set a field of a branch, such as branches\.one\.loss"),
        (BRANCHED, "branches=5", r"set a field of a branch, such as branches\.one\.loss"),
        (BRANCHED, "branches.one.sed=5", r"no field 'sed'; did you mean seed\? \(known: name"),
        (BRANCHED, "branches.one.schedule.drop_at=(9,)", r"branches\.one\.schedule: schedule\.dro"),
        (BRANCHED, "execution=cudagraph", "must be one of 'eager', 'cuda_graph', 'compile'"),
        (BRANCHED, "verification=None", "expected the fields of Verification: dataset_path"),
    ],
)
def test_override_errors_name_the_key_and_the_value(config, assignment, text):
    with pytest.raises(ValueError, match=text):
        override(config, [assignment])


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
