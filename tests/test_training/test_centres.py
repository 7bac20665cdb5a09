"""The centres of identities: what they are the means of, where they come from, who needs them."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.centres import FILE_NAME, mean_centres
from training.trainer import Trainer
from utils.config import Method
from utils.distributed import ALONE


@pytest.fixture
def scf(config):
    """One head without dropout, whose loss needs centres."""
    method = Method("fc2", output="variance", hidden=8)
    return dataclasses.replace(config, branches=(), head=method, loss=Method("scf"))


@pytest.mark.parametrize(("images", "folds"), [(18, [0, 1, 2, 3] * 4), (2, [0, 1])])
def test_a_centre_is_the_mean_of_images_in_other_folds(images, folds, scf, tmp_path):
    source = f"synthetic:identities=4,images={images},seed=1"
    trainer = Trainer(dataclasses.replace(scf, train_images=source))
    faces, frozen = trainer.faces, trainer.frozen
    found = mean_centres(faces, frozen, trainer._loader, 5, tmp_path / FILE_NAME, ALONE)
    pixels = torch.from_numpy(np.stack([faces.read(row) for row in range(len(faces))]))
    mu = F.normalize(frozen(pixels).embedding)
    rows = np.arange(len(faces))
    own, every = found(rows, faces.labels.astype(np.int64))
    for label in range(4):
        mine = np.flatnonzero(faces.labels == label)
        used = mine[np.arange(len(folds)) * images // len(folds)].tolist()
        torch.testing.assert_close(every[label], F.normalize(mu[used].mean(0), dim=0))
        for row in mine.tolist():
            fold = folds[used.index(row)] if row in used else None
            others = [other for other, at in zip(used, folds, strict=True) if at != fold]
            torch.testing.assert_close(own[row], F.normalize(mu[others].mean(0), dim=0))


def test_a_resumed_run_takes_the_centres_of_its_folder(scf, train, tmp_path, monkeypatch):
    folder = train(scf)
    before = (folder / FILE_NAME).read_bytes()
    monkeypatch.setattr("training.centres._Chunks", None)  # what the images are read with
    centres = Trainer(scf).centres_in(folder)
    assert (folder / FILE_NAME).read_bytes() == before
    with pytest.raises(TypeError):
        Trainer(
            dataclasses.replace(scf, train_images="synthetic:identities=7,images=4,seed=1")
        ).centres_in(folder)
    weight = centres(np.zeros(1, np.int64), np.zeros(1, np.int64)).every
    torch.save({"weight": weight[:5]}, tmp_path / "softmax_fc_gpu_0.pt")
    torch.save({"state_dict_softmax_fc": {"weight": 3 * weight[5:]}}, tmp_path / "1.pt")
    files = (str(tmp_path / "softmax_fc_gpu_0.pt"), str(tmp_path / "1.pt"))
    rows, labels = np.arange(3), np.array([5, 0, 7])
    joined = Trainer(dataclasses.replace(scf, centres=files)).centres_in(folder)(rows, labels)
    torch.testing.assert_close(joined.own, weight[labels])
    torch.testing.assert_close(joined.every, weight)


def test_refused_classifiers(scf, tmp_path):
    path = str(tmp_path / "fc.pt")
    cases = [
        ({"weight": torch.zeros(8, 4)}, r"which tensor has the centres, \(C, 512\)\? .* \(8, 4\)"),
        ({"a": torch.zeros(8, 512), "b": torch.zeros(8, 512)}, "which tensor has the centres"),
        ({"weight": torch.zeros(9, 512)}, "9 rows, and the training images are of 8 identities"),
    ]
    for tensors, text in cases:
        torch.save(tensors, path)
        with pytest.raises(ValueError, match=text):
            Trainer(dataclasses.replace(scf, centres=path))
    head = Method("fc2", output="probability", hidden=8)
    plain = dataclasses.replace(scf, head=head, loss=Method("idq"), centres=path)
    with pytest.raises(ValueError, match="centres = .*: no loss of this config has a use for them"):
        Trainer(plain)


def test_recorded_steps_use_the_centres_of_their_own_images(scf, train, request, assert_same_run):
    expected = train(scf, "eager")
    tape = request.getfixturevalue("tape")
    assert_same_run(train(scf, "recorded"), expected)
    assert tape.repeated == 5
