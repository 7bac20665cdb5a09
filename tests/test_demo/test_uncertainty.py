"""More degradation, more uncertainty: the promise of the demo, kept by a head trained here."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import network
from data.synthetic import DEGRADATIONS, degradation_sweep
from estimators.base import Batch
from estimators.trained_head import TrainedHead
from models.run import load_run

ROOT = Path(__file__).resolve().parents[2]
LEVELS = (0, 0.25, 0.5, 0.75, 1)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    arguments = ["--config_file", str(ROOT / "config/config_demo.py"), "--model_dir", str(folder)]
    changes = ["verification.targets=()", "device=cpu"]
    assert network.main([*arguments, "--set", *changes]) == 0
    run = load_run(folder, device="cpu")
    return TrainedHead(frozen=run.frozen, head=run.head)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_more_degradation_is_more_uncertainty(estimator, kind):
    sweep = degradation_sweep(kind, LEVELS, identities=24)
    means = [float(np.mean(estimator(Batch(images)).sigma_sq)) for images in sweep]
    assert all(later > earlier for earlier, later in itertools.pairwise(means)), means
    assert means[-1] > means[0] + 0.1
