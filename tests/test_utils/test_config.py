import dataclasses

import pytest

from utils.config import Augment, Method, Schedule, TrainConfig, Verification, load_config


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
