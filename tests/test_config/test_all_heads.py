"""The configs of several heads say the same as the configs of the single ones."""

import dataclasses
from pathlib import Path

import pytest

from utils.config import load_config
from utils.methods import check_options

CONFIG = Path(__file__).resolve().parents[2] / "config"
IR50 = {
    "idq": "config_ir50_idq_loss_glint360k.py",
    "pcnet": "config_ir50_ms_pcloss_glint360k.py",
    "fast_mls": "config_ir50_ms_fast_mls_glint360k.py",
    "mls": "config_ir50_ms_mls_glint360k.py",
}
MBF = {
    "idq_grid": "config_mbf_idq_grid_lfw.py",
    "idq": "config_mbf_idq_lfw.py",
    "pcnet": "config_mbf_pcnet_lfw.py",
    "fast_mls": "config_mbf_fast_mls_lfw.py",
    "mls": "config_mbf_mls_lfw.py",
}
ALL = {"config_ir50_all_glint360k.py": IR50, "config_mbf_all_lfw.py": MBF}
CASES = [
    pytest.param(whole, group, single, id=f"{whole[7:11]}-{group}")
    for whole, singles in ALL.items()
    for group, single in singles.items()
]


@pytest.mark.parametrize("whole", ALL)
def test_three_seeds_of_every_loss(whole):
    config = load_config(CONFIG / whole)
    assert [branch.name for branch in config.branches] == [
        f"{group}-{seed}" for group in ALL[whole] for seed in (0, 1, 2)
    ]
    assert [branch.seed for branch in config.branches] == [0, 1, 2] * len(ALL[whole])


@pytest.mark.parametrize(("whole", "group", "single"), CASES)
def test_a_branch_alone_is_the_single_config(whole, group, single):
    config, expected = load_config(CONFIG / whole), load_config(CONFIG / single)
    for branch in config.branches:
        if not branch.name.startswith(f"{group}-"):
            continue
        single_head = dataclasses.replace(
            config.branch_config(branch), name=expected.name, head_seed=None
        )
        if (whole, group) == ("config_ir50_all_glint360k.py", "pcnet"):
            # longer than its own config, with the same rate in every step of that
            assert expected.schedule.total_steps == 2000
            for step in range(2000):
                assert single_head.schedule.lr_at(step) == expected.schedule.lr_at(step)
            assert dataclasses.replace(single_head.schedule, epochs=2) == expected.schedule
            single_head = dataclasses.replace(single_head, schedule=expected.schedule)
        assert single_head == expected
        check_options("models.heads", branch.head)
        check_options("losses", branch.loss)
