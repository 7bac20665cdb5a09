import dataclasses
from functools import partial

import pytest

from utils.config import Augment, Branch, Method, Schedule, TrainConfig, Verification, load_config

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
