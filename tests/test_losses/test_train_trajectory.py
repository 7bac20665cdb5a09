"""Twelve optimizer steps of a tiny head and its loss, against the original training recipe."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from losses.fast_mls import FastMLSLoss
from losses.idq import IDQLoss
from models.backbones.base import BackboneOutput
from models.heads.fc2 import FC2Head

GOLDEN = Path(__file__).parents[1] / "golden" / "losses"
LR = {"idq": 1e-2, "fast_mls": 3e-3}


@pytest.fixture(scope="module")
def recorded():
    numbers = json.loads((GOLDEN / "train_trajectory.json").read_text())
    with np.load(GOLDEN / "train_trajectory.npz") as arrays:
        return numbers, {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _state(arrays, prefix):
    return {name[len(prefix) :]: arrays[name] for name in arrays if name.startswith(prefix)}


@pytest.mark.parametrize("method", ["idq", "fast_mls"])
def test_twelve_steps(recorded, method):
    numbers, arrays = recorded
    expected = numbers[method]
    output = "probability" if method == "idq" else "variance"
    head = FC2Head(output=output, features_shape=(4, 3, 3), hidden=5)
    head.load_state_dict(_state(arrays, f"{method}/init/"))
    loss = IDQLoss() if method == "idq" else FastMLSLoss()
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=LR[method],
        momentum=expected["momentum"],
        weight_decay=expected["weight_decay"],
    )
    for step in range(12):
        passed = sum(milestone <= step for milestone in expected["milestones"])
        for group in optimizer.param_groups:
            group["lr"] = LR[method] * 0.1**passed
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected["lr"][step])
        embedding, features = arrays["mu"][step], arrays["feat"][step]
        raw = head(BackboneOutput(embedding, features))
        if method == "fast_mls":  # the original's loss took exp of what was a variance already
            raw = raw.exp()
        optimizer.zero_grad()
        result = loss(embedding, raw, arrays["label"])
        result.loss.backward()
        optimizer.step()
        assert result.loss.item() == pytest.approx(expected["loss"][step], abs=2e-6), step
    for name, expected_tensor in _state(arrays, f"{method}/final/").items():
        torch.testing.assert_close(head.state_dict()[name], expected_tensor, rtol=1e-4, atol=1e-6)
