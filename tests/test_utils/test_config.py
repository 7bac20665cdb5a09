import dataclasses

import pytest

from utils.config import Augment, Branch, Method, Schedule, TrainConfig, Verification, load_config


def make_config(**changes):
    fields = {
        "name": "tiny",
        "backbone": Method("iresnet", depth=18),
        "backbone_weights": "backbone.pth",
        "head": Method("fc2", output="probability"),
        "loss": Method("idq"),
        "train_images": "faces.rec",
        "schedule": Schedule(epochs=4, steps_per_epoch=10, drop_at=(2, 3)),
    }
    return TrainConfig(**{**fields, **changes})


@pytest.mark.parametrize(
    ("kind", "field", "value", "text"),
    [
        (Schedule, "epochs", 0, r"schedule\.epochs = 0: must be at least 1"),
        (Schedule, "lr", -1.0, r"schedule\.lr = -1\.0: must be above 0"),
        (Schedule, "drop_at", (5,), r"schedule\.drop_at = \(5,\): must be inside \(0, 4\)"),
        (Schedule, "momentum", 1.0, r"schedule\.momentum"),
        (Augment, "blur", 1.5, r"augment\.blur = 1\.5: must be a probability"),
        (Augment, "degrade", -0.1, r"augment\.degrade = -0\.1: must be a probability"),
        (Augment, "blur_radii", (), r"augment\.blur_radii"),
        (Verification, "batch_size", 0, r"verification\.batch_size = 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_and_number(kind, field, value, text):
    base = {"epochs": 4} if kind is Schedule else {}
    with pytest.raises(ValueError, match=text):
        kind(**{**base, field: value})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images_per_class": 1}, "images_per_class = 1: must be at least 2"),
        ({"classes_per_batch": 0}, "classes_per_batch = 0"),
        ({"precision": "int8"}, "precision = 'int8': must be one of"),
        ({"max_bad_share": 2.0}, r"max_bad_share = 2\.0"),
        ({"name": ""}, "name = ''"),
    ],
)
def test_train_config_refuses_bad_values(changes, text):
    with pytest.raises(ValueError, match=text):
        make_config(**changes)


def test_a_misspelt_field_is_an_error_and_configs_are_frozen():
    with pytest.raises(TypeError, match="scheduel"):
        make_config(scheduel=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().name = "other"


def test_one_source_or_several():
    assert make_config().sources == ("faces.rec",)
    assert make_config(train_images=("a", "b")).sources == ("a", "b")


def test_load_config_names_the_file_and_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"no config file .*absent\.py"):
        load_config(tmp_path / "absent.py")
    flat = tmp_path / "old.py"
    flat.write_text("num_epochs = 12\n")
    with pytest.raises(ValueError, match=r"old\.py does not define .*docs/migrating\.md"):
        load_config(flat)


def test_learning_rate_drops_at_the_stated_epochs():
    schedule = Schedule(epochs=4, steps_per_epoch=3, lr=1.0, drop_at=(2, 3))
    rates = [schedule.lr_at(step) for step in range(12)]
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 3 + [0.01] * 3)


def test_learning_rate_may_drop_within_an_epoch():
    schedule = Schedule(epochs=2, steps_per_epoch=4, lr=1.0, drop_at=(1, 1.5), drop_factor=0.5)
    assert [schedule.lr_at(step) for step in range(8)] == [1] * 4 + [0.5] * 2 + [0.25] * 2


BRANCHES = (
    Branch("idq-0", head=Method("fc2", output="probability"), loss=Method("idq"), seed=0),
    Branch("pcnet", head=Method("fc2", output="probability"), loss=Method("pcnet"), seed=7),
)


def several(**changes):
    fields = {
        "name": "all",
        "backbone": Method("iresnet", depth=18),
        "backbone_weights": "backbone.pth",
        "train_images": "faces",
        "schedule": Schedule(epochs=2, steps_per_epoch=5),
        "branches": BRANCHES,
    }
    return TrainConfig(**{**fields, **changes})


def test_a_branch_alone_is_a_plain_config():
    alone = several().branch_config(BRANCHES[1])
    assert alone.branches == ()
    assert (alone.name, alone.loss, alone.head_seed) == ("all-pcnet", Method("pcnet"), 7)
    assert alone.schedule == Schedule(epochs=2, steps_per_epoch=5)
    assert several().heads == {"idq-0": several().branch_config(BRANCHES[0]), "pcnet": alone}
    assert alone.heads == {"": alone}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"branches": ()}, "head = None: must be given, unless branches are"),
        ({"loss": Method("idq")}, "loss = .*: must be left out: each of the branches has its own"),
        ({"branches": (BRANCHES[0], BRANCHES[0])}, "must be of different names"),
        ({"steps_per_forward": 0}, "steps_per_forward = 0: must be at least 1, or None"),
        ({"execution": "fast"}, "execution = 'fast': must be one of"),
    ],
)
def test_heads_are_given_once(changes, text):
    with pytest.raises(ValueError, match=text):
        several(**changes)


def test_a_branch_has_as_many_steps_as_the_run():
    branch = dataclasses.replace(BRANCHES[0], schedule=Schedule(epochs=3, steps_per_epoch=5))
    with pytest.raises(ValueError, match=r"idq-0\.schedule = '3 x 5 steps': must be as long as"):
        several(branches=(branch,))


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


def test_names_of_branches_differ_on_every_disk():
    twice = (BRANCHES[0], dataclasses.replace(BRANCHES[1], name="IDQ-0"))
    with pytest.raises(ValueError, match="of different names, in any case"):
        several(branches=twice)
