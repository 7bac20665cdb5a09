"""What only a GPU shows: no waiting between log lines, and heads that learn as on a CPU."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest

import network
from data.loader import BatchLoader
from training.trainer import Trainer, step_inputs

pytestmark = pytest.mark.gpu


def test_nothing_waits_for_the_device_between_log_lines(config, no_waiting):
    trainer = Trainer(dataclasses.replace(config, device="cuda", log_every=10_000))
    loader = BatchLoader(
        trainer.faces, trainer.rank_share, range(5), 2, 0.0, print, steps_per_batch=1, pin=True
    )
    for number, batch in enumerate(loader):
        with nullcontext() if number < 2 else no_waiting():
            for images in step_inputs(batch, trainer.forward(batch)):
                trainer.train_step(images, [])
    assert trainer.step == 5


@pytest.mark.parametrize("execution", ["eager", "cuda_graph"])
def test_losses_are_those_of_the_cpu(config_file, together, tmp_path, losses_of, execution):
    arguments = ["--config_file", str(config_file), "--model_dir", str(tmp_path / "run"), "--set"]
    changes = ["device=cuda", "precision=fp32", f"execution={execution}", "steps_per_forward=3"]
    assert network.main([*arguments, *changes]) == 0
    for name in ("idq-0", "idq-1", "mls"):
        there, here = losses_of(tmp_path / "run" / name), losses_of(together / name)
        np.testing.assert_allclose([b for _, b in there], [b for _, b in here], rtol=5e-3)
