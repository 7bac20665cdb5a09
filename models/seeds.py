"""Runs that differ in nothing but their seeds are one method, trained several times.

`evaluation.open_model` groups them, `evaluation.comparison` takes their means and spread.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from utils.config import TrainConfig

# Fields without a part in what a head learns; the backbone's file is compared by its hash.
ASIDE = (
    "name",
    "log_dir",
    "log_every",
    "seed",
    "head_seed",
    "workers",
    "steps_per_forward",
    "execution",
    "device",
    "backbone_weights",
)


@dataclass(frozen=True)
class Group:
    """Methods that differ in their seeds alone.

    They saw `orders` different batches and augmentations: 1 for branches of one run, as many as
    members for independent runs.
    """

    name: str
    members: tuple[str, ...]
    orders: int


def seed_groups(configs: Mapping[str, TrainConfig]) -> tuple[Group, ...]:
    """Find the groups of two or more; `configs` are of heads on one backbone, by method.

    A seed counts once in a group: of runs that agree in their seeds too, the first ones make one
    group, the second ones another.
    """
    by_seeds: list[dict[tuple[int, int], str]] = []
    for name, config in configs.items():
        seeds = _seeds(config)
        for group in by_seeds:
            first = configs[next(iter(group.values()))]
            if seeds not in group and _without_seeds(first) == _without_seeds(config):
                group[seeds] = name
                break
        else:
            by_seeds.append({seeds: name})
    groups: list[Group] = []
    for group in by_seeds:
        members = tuple(group.values())
        if len(members) > 1:
            name = _name(members, configs[members[0]], [group.name for group in groups])
            groups.append(Group(name, members, len({seed for seed, _ in group})))
    return tuple(groups)


def _seeds(config: TrainConfig) -> tuple[int, int]:
    return config.seed, config.seed if config.head_seed is None else config.head_seed


def _without_seeds(config: TrainConfig) -> TrainConfig:
    changes = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.name in ASIDE and field.default is not dataclasses.MISSING
    }
    return dataclasses.replace(config, **changes, name="-", backbone_weights="-")


def _name(members: tuple[str, ...], config: TrainConfig, taken: list[str]) -> str:
    """Name of a group: what its members' names share, else its loss, else its first and last."""
    parts = [re.split(r"([-_. ])", member) for member in members]
    shared = "".join(os.path.commonprefix(parts)).rstrip("-_. ")
    stems = {re.sub(r"[-_. ]?(seed)?\d+$", "", member) for member in members}
    loss = config.loss.name if config.loss else ""
    for name in (shared, stems.pop() if len(stems) == 1 else "", loss):
        if name and name not in taken:
            return name
    return f"{members[0]} ... {members[-1]}"
