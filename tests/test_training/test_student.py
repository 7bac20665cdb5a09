"""Students learn from a branch, from a finished run and from a file; runs resume and are shared."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import network
import training.trainer
from data.augment import BatchAugment
from data.faces import open_faces
from estimators.base import Batch
from estimators.trained_head import TrainedHead
from models.backbones.base import BackboneOutput
from models.load import load_checkpoint
from models.run import load_run
from tests.helpers import ROOT, TORCHRUN, python
from training.teachers import FileTeacher, RunTeacher, logit_of
from training.trainer import Trainer
from utils.config import (
    Augment,
    Branch,
    Method,
    Schedule,
    Verification,
    from_json,
    load_config,
    override,
    to_json,
)

PLAIN = Augment(flip=0.5, blur=0.0, occlusion=0.0, rare=0.0)
STUDENT = Method("student", output="probability", size=32)
DISTILL = Method("distill", margin=0.45)
ADAMW = Schedule(epochs=2, steps_per_epoch=2, lr=2e-3, weight_decay=1e-2, optimizer="adamw")


@pytest.fixture
def two(config):
    """A teacher and its student, four steps."""
    student = Branch("student", head=STUDENT, loss=DISTILL, teacher="idq-0", schedule=ADAMW)
    schedule = Schedule(epochs=2, steps_per_epoch=2)
    teacher = dataclasses.replace(config.branches[0], schedule=None)
    return dataclasses.replace(
        config, branches=(teacher, student), schedule=schedule, verification=Verification()
    )


def alone(config, teacher, **changes):
    """The config of a student by itself."""
    return dataclasses.replace(
        config, branches=(), head=STUDENT, loss=DISTILL, teacher=str(teacher), **changes
    )


def brightness_of(faces):
    return np.array([faces.read(row).mean() for row in range(len(faces))])


def test_a_student_learns_what_a_file_says_of_the_images(config, train, tmp_path):
    faces = open_faces("synthetic:identities=40,images=6,seed=1")
    rows = zip(map(faces.name, range(len(faces))), brightness_of(faces), strict=True)
    scores = tmp_path / "scores.csv"
    scores.write_text("file,quality\n" + "".join(f"{name},{value:.6f}\n" for name, value in rows))
    schedule = Schedule(epochs=1, steps_per_epoch=50, lr=3e-3, drop_at=(0.7,), optimizer="adamw")
    learning = alone(
        config, scores, schedule=schedule, augment=PLAIN, verification=Verification(),
        train_images="synthetic:identities=40,images=6,seed=1",
    )  # fmt: skip
    run = load_run(train(learning), device="cpu")
    others = open_faces("synthetic:identities=30,images=4,seed=77")
    images = np.stack([others.read(row) for row in range(len(others))])
    sigma_sq = TrainedHead(frozen=run.frozen, head=run.head)(Batch(images)).sigma_sq[:, 0]
    assert spearmanr(sigma_sq, -brightness_of(others)).statistic > 0.8


def test_a_branch_teaches_by_what_it_says_of_the_same_images(two, monkeypatch, tmp_path):
    trainer = Trainer(two)
    teacher, student = trainer.branches
    seen = []
    forward, loss = teacher.forward, student.loss.forward
    monkeypatch.setattr(
        teacher, "forward", lambda *a, **k: seen.append(forward(*a, **k)) or seen[0]
    )
    monkeypatch.setattr(
        student.loss, "forward", lambda *a, **k: seen.append(k["teacher"]) or loss(*a, **k)
    )
    trainer.files = training.trainer.RunFiles(tmp_path, two, trainer.backbone, trainer.branches)
    loader = training.trainer.BatchLoader(
        trainer.faces, trainer.rank_share, range(4), workers=1, max_bad_share=0.0, on_bad=str
    )
    batch = next(iter(loader))
    (images,) = training.trainer.step_inputs(batch, trainer.forward(batch), trainer.teachers)
    trainer.train_step(images, [])
    (raw, _), logits = seen
    assert torch.equal(logits, raw.detach()[:, 0])
    assert not logits.requires_grad


def test_a_run_with_a_student_resumes_and_its_teacher_does_not_notice(two, train, assert_same_run):
    whole = train(two, "whole")
    teacher = train(dataclasses.replace(two, branches=two.branches[:1]), "teacher")
    assert_same_run(whole / "idq-0", teacher / "idq-0")
    half = train(two, "half", "schedule.epochs=1")
    assert network.main(["--resume", str(half), "--set", "schedule.epochs=2"]) == 0
    assert_same_run(half / "student", whole / "student")
    best = load_checkpoint(half / "student" / "best.pt")
    assert best["config"] == to_json(two.branch_config(two.branches[1]))


def test_a_finished_run_teaches_as_it_stands(config, together, train):
    folder = train(alone(config, together / "dropped", schedule=ADAMW))
    trainer = Trainer(from_json(load_checkpoint(folder / "last.pt")["config"]))
    (teacher,) = trainer.teachers.values()
    assert isinstance(teacher, RunTeacher)
    run = load_run(together / "dropped", device="cpu")
    images = torch.from_numpy(np.stack([trainer.faces.read(row) for row in range(5)]))
    output = trainer.frozen(images)
    logits = teacher(0, np.arange(5), output)
    assert torch.equal(logits, run.head(output).detach()[:, 0])
    assert torch.equal(teacher(9, np.arange(5), output), logits), "no dropout, no statistics"


def test_recorded_steps_give_the_same_student(two, train, request, assert_same_run):
    plain = train(two, "plain")
    tape = request.getfixturevalue("tape")
    recorded = train(two, "recorded")
    assert tape.repeated == 1, "4 steps, less the first and the 2 of log lines"
    assert_same_run(recorded / "student", plain / "student")


def test_two_processes_train_the_student_of_one(two, train, tmp_path, losses_of):
    slow = dataclasses.replace(two.branches[1], schedule=None)
    shared = dataclasses.replace(two, branches=(two.branches[0], slow), log_every=1)
    one = train(shared, "one")
    arguments = ["--config_file", tmp_path / "one.py", "--model_dir", tmp_path / "two"]
    done = python(*TORCHRUN, ROOT / "network.py", *arguments)
    assert done.returncode == 0, done.stderr
    losses = [np.array(losses_of(path / "student")) for path in (one, tmp_path / "two")]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)


def test_fixed_layers_stay_as_they_start_and_the_others_learn_with_a_hint(two, train):
    head = Method("student", output="probability", size=32, fixed=3, hint=1.0)
    branch = dataclasses.replace(two.branches[1], head=head)
    trainer = Trainer(dataclasses.replace(two, branches=(two.branches[0], branch)))
    start = {name: value.clone() for name, value in trainer.branches[1].head.state_dict().items()}
    end = load_checkpoint(train(trainer.config) / "student" / "last.pt")["head"]
    fixed = ("body.conv_1", "body.conv_2_dw", "body.dconv_23", "hint_target.")
    for name, value in end.items():
        if name.startswith(fixed[:3]):
            assert torch.equal(value, start[name]), name
        elif not name.endswith("num_batches_tracked"):
            assert not torch.equal(value, start[name]), name
    assert end["hint_layer.weight"].shape == (2 * 8, 256), "2 x the channels of the tiny backbone"


class Named:
    """Three images that are known by name alone."""

    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def name(self, row):
        return self.names[row]


def file_teacher(path, faces, names, augment):
    np.savez(path, key=np.array(names), uncertainty=np.arange(len(names), dtype=np.float32))
    return FileTeacher(path, faces, BatchAugment(augment, seed=0), torch.device("cpu"))


def test_ranks_become_logits_of_images_as_they_were(tmp_path):
    faces = open_faces("synthetic:identities=8,images=4,seed=1")
    augment = dataclasses.replace(PLAIN, blur=0.5, degrade=0.2)
    names = [faces.name(row) for row in range(32)]
    rows = np.arange(31, -1, -1)
    logits = file_teacher(tmp_path / "x.npz", faces, names, augment)(3, rows, None).numpy()
    images = torch.from_numpy(np.stack([faces.read(int(row)) for row in rows])).float()
    operations = BatchAugment(augment, seed=0)
    changed = operations(images.byte(), operations.parameters(3, rows)).permute(0, 2, 3, 1)
    unchanged = [
        bool((new == old).all() or (new == old.flip(1)).all())
        for new, old in zip(changed, images, strict=True)
    ]
    assert 3 < sum(unchanged) < 29
    assert (np.isfinite(logits) == unchanged).all()
    share = (rows + 0.5) / 32
    np.testing.assert_allclose(logits[unchanged], np.log(share / (1 - share))[unchanged], rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        ([f"faces/train.rec: key {key}" for key in (1, 2, 3)], ["1", "2", "3"]),
        ([f"/some/Ann/{row}.jpg" for row in range(3)], ["Ann/0.jpg", "Ann/1.jpg", "Ann/2.jpg"]),
    ],
)
def test_names_may_be_keys_of_a_pack_or_ends_of_paths(names, stored, tmp_path):
    teacher = file_teacher(tmp_path / "x.npz", Named(names), stored, PLAIN)
    np.testing.assert_allclose(
        teacher(0, np.arange(3), None), [-np.log(5), 0, np.log(5)], atol=1e-6
    )
    with pytest.raises(ValueError, match="no score for 1 of 3 images, the first is"):
        file_teacher(tmp_path / "y.npz", Named(names), stored[:2], PLAIN)


def test_variances_read_as_odds():
    log_variance = torch.tensor([[0.5], [-1.0]])
    assert torch.allclose(logit_of(log_variance, "variance"), log_variance[:, 0], atol=1e-6)
    per_dimension = torch.full((2, 4), 0.1).log()
    assert logit_of(per_dimension, "variance").exp().tolist() == pytest.approx([0.4, 0.4], rel=1e-4)
    assert logit_of(torch.tensor([[2.0]]), "probability").tolist() == [2.0]
    assert logit_of(torch.zeros(1, 3), "probability").item() == pytest.approx(0, abs=1e-5)


def test_set_reaches_teacher_and_optimizer(two):
    changed = override(two, ["branches.student.teacher=scores.csv", "schedule.optimizer=adamw"])
    assert changed.branches[1].teacher == "scores.csv"
    assert changed.schedule.optimizer == "adamw"
    assert from_json(to_json(changed)) == changed


def test_mistakes(two, config, together, tmp_path):
    teacher, student = two.branches
    cases = [
        ({"branches": (student, teacher)}, r"student\.teacher = 'idq-0': must be a branch before"),
        (
            {"branches": (dataclasses.replace(student, teacher="idq-1"),)},
            "teacher = 'idq-1': no run folder, no file of scores and none of the branches student",
        ),
        (
            {"branches": (dataclasses.replace(student, teacher=None),)},
            "loss 'distill' learns from a teacher: name a branch before this one, a run folder",
        ),
        (
            {"branches": (teacher, dataclasses.replace(teacher, name="x", teacher="idq-0"))},
            "teacher = 'idq-0': loss 'idq' has no use for one; take 'distill'",
        ),
        ({"branches": (dataclasses.replace(student, teacher=str(together)),)}, "run of 4 branches"),
        ({"branches": (dataclasses.replace(student, teacher=str(tmp_path)),)}, "no trained run in"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            Trainer(dataclasses.replace(two, **changes))


def test_a_teacher_of_another_backbone_is_refused(config, together):
    other = load_config(ROOT / "config" / "config_demo.py")
    small = {"train_images": config.train_images, "verification": Verification(), "device": "cpu"}
    with pytest.raises(ValueError, match=r"reads Method\('iresnet', .*8, 8\)\), and this run"):
        Trainer(alone(other, together / "idq-0", classes_per_batch=4, **small))


def test_outputs_without_images_stay_without():
    output = BackboneOutput(torch.zeros(2, 3), torch.ones(2, 4))
    doubled = output.map(lambda part: part + 1)
    assert doubled.images is None
    assert len(doubled.tensors) == 2
    assert doubled.embedding.mean() == 1
