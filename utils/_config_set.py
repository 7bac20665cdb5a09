"""`--set KEY=VALUE`: put a value where a dotted key says, in the plain form of a config.

Public through utils.config_json.override.
"""

from __future__ import annotations

from typing import Any

# of the run's schedule; branches with a schedule of their own follow
_SHARED = ("schedule.epochs", "schedule.steps_per_epoch", "schedule.drop_at")


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set one field of a config that `dataclasses.asdict` made plain.

    `branches.NAME.field` reaches into one branch, `branches.*.field` into all of them.

    Raises:
        ValueError: a field or branch that does not exist, with those that do.
    """
    if key.partition(".")[0] == "branches":
        _assign_branches(values, key, value)
        return
    _put(values, key.split("."), value, key, _branch_hint(values, key))
    if key in _SHARED:
        for branch in values["branches"]:
            if branch["schedule"] is not None:
                branch["schedule"][key.partition(".")[2]] = value


def _assign_branches(values: dict[str, Any], key: str, value: Any) -> None:
    branches = {branch["name"]: branch for branch in values["branches"]}
    if not branches:
        raise ValueError(f"--set {key}: this config has one head and no branches; set head or loss")
    _, *parents = key.split(".")
    if len(parents) < 2:
        raise ValueError(
            f"--set {key}: set a field of a branch, such as branches.{next(iter(branches))}.loss, "
            "or of all, such as branches.*.loss"
        )
    name, *path = parents
    if name != "*" and name not in branches:
        raise ValueError(f"--set {key}: no branch {name!r} (known: {', '.join(branches)}, *)")
    for branch in branches.values() if name == "*" else [branches[name]]:
        if path[0] == "schedule" and len(path) > 1 and branch["schedule"] is None:
            branch["schedule"] = dict(values["schedule"])
        _put(branch, path, value, key, "")


def _put(node: Any, path: list[str], value: Any, key: str, hint: str) -> None:
    *parents, last = path
    for name in parents:
        if name not in node:
            raise ValueError(f"--set {key}: no field {name!r} (known: {', '.join(node)})")
        node = node[name]
        if not isinstance(node, dict):
            raise ValueError(f"--set {key}: {name!r} has no fields{hint}")
    if set(node) == {"name", "options"} and last != "name":
        node["options"][last] = value
    elif last in node:
        node[last] = value
    else:
        raise ValueError(f"--set {key}: no field {last!r} (known: {', '.join(node)})")


def _branch_hint(values: dict[str, Any], key: str) -> str:
    if values["branches"] and key.partition(".")[0] in ("head", "loss"):
        return f" in a config of branches; set branches.NAME.{key}, or branches.*.{key}"
    return ""
