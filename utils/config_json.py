"""Configs from text: `key=value` overrides of the command line, and JSON both ways.

Nothing here runs code; every value is checked against the type of its field.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from utils.config import Method, TrainConfig

Plain = dict[str, Any]  # what `dataclasses.asdict` makes of a config
# Of the run's schedule; branches with a schedule of their own follow.
_SHARED = ("schedule.epochs", "schedule.steps_per_epoch", "schedule.drop_at")


def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return the config with `key=value` assignments applied, all of them before it is checked.

    `schedule.lr=3e-3` reaches into a nested field, `loss.margin=0.4` into a method's options,
    `branches.NAME.loss.margin=0.4` into a branch (`branches.*` into all), and `loss=idq:margin=0.4`
    replaces a method (see `parse_method`). Values are Python literals, anything else is taken as a
    string. Length and drops of the run's schedule, when set, are also those of its branches; a run
    that is made shorter loses the drops beyond its end.

    Raises:
        ValueError: no `=`, an unknown field, or a value of the wrong type or out of range.
    """
    values = dataclasses.asdict(config)
    keys = set()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: expected key=value")
        keys.add(key.strip())
        _assign(values, key.strip(), _literal(text.strip()))
    if "schedule.epochs" in keys and "schedule.drop_at" not in keys:
        _shorten(values)
    return _train_config(values)


def parse_method(text: str) -> Method:
    """Read `name` or `name:option=value,option=value` of the command line.

    Values are Python literals, anything else is taken as a string; commas inside brackets belong to
    the value. ValueError for an option without `=` or without a name.
    """
    name, _, rest = text.partition(":")
    options: Plain = {}
    for part in re.split(r",(?![^(\[{]*[)\]}])", rest) if rest else ():
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{text}: expected name:option=value,option=value, got {part!r}")
        options[key.strip()] = _with_tuples(_literal(value.strip()))
    return Method(name, **options)


def to_json(config: TrainConfig) -> str:
    """Write a config as JSON that `from_json` reads back to an equal config."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> TrainConfig:
    """Read what `to_json` wrote, and run no code; ValueError where it is anything else."""
    return _train_config(json.loads(text))


def _train_config(values: object) -> TrainConfig:
    config = _parsed(TrainConfig, values, "config")
    assert isinstance(config, TrainConfig)
    return config


def _literal(text: str) -> object:
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value


def _with_tuples(value: object) -> object:
    """Options are compared and passed on as tuples, which JSON does not have."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _assign(values: Plain, key: str, value: object) -> None:
    """Set one field of a plain config; ValueError for a field or branch that does not exist."""
    first, _, rest = key.partition(".")
    if first == "branches":
        _assign_branches(values, rest, value, key)
        return
    hint = ""
    if values["branches"] and first in ("head", "loss"):
        hint = f" in a config of branches; set branches.NAME.{key}, or branches.*.{key}"
    _put(values, key.split("."), value, key, hint)
    if key in _SHARED:
        for branch in values["branches"]:
            if branch["schedule"] is not None:
                branch["schedule"][rest] = value


def _assign_branches(values: Plain, rest: str, value: object, key: str) -> None:
    branches = {branch["name"]: branch for branch in values["branches"]}
    if not branches:
        raise ValueError(f"--set {key}: this config has one head and no branches; set head or loss")
    name, *path = rest.split(".")
    if not path:
        raise ValueError(
            f"--set {key}: set a field of a branch, such as branches.{next(iter(branches))}.loss, "
            "or of all, such as branches.*.loss"
        )
    if name != "*" and name not in branches:
        raise ValueError(f"--set {key}: no branch {name!r} (known: {', '.join(branches)}, *)")
    for branch in branches.values() if name == "*" else [branches[name]]:
        if path[0] == "schedule" and len(path) > 1 and branch["schedule"] is None:
            branch["schedule"] = dict(values["schedule"])
        _put(branch, path, value, key, "")


def _put(node: Plain, path: list[str], value: object, key: str, hint: str) -> None:
    *parents, last = path
    for name in parents:
        _require_field(node, name, key)
        node = node[name]
        if not isinstance(node, dict):
            raise ValueError(f"--set {key}: {name!r} has no fields{hint}")
    if set(node) == {"name", "options"} and last != "name":
        node["options"][last] = value
        return
    _require_field(node, last, key)
    node[last] = value


def _require_field(node: Plain, name: str, key: str) -> None:
    if name in node:
        return
    nested = [
        f"{field}.{name}"
        for field, inner in node.items()
        if isinstance(inner, dict) and name in {**inner, **inner.get("options", {})}
    ]
    close = nested or difflib.get_close_matches(name, node, n=1)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"--set {key}: no field {name!r}{hint} (known: {', '.join(node)})")


def _shorten(values: Plain) -> None:
    """Leave out the drops of the learning rate beyond the end of a run."""
    schedules = [values["schedule"], *(branch["schedule"] for branch in values["branches"])]
    for schedule in filter(None, schedules):
        if isinstance(schedule["epochs"], int):
            schedule["drop_at"] = [at for at in schedule["drop_at"] if at < schedule["epochs"]]


def _parsed(kind: object, value: object, where: str) -> object:
    """Check a plain value against a field's type and return it in that type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _parsed_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _parsed_union(arguments, value, where)
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else (value,)
        places = [_place(where, index, item) for index, item in enumerate(items)]
        return tuple(map(partial(_parsed, arguments[0]), items, places))
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"{where} = {value!r}: must be one of {', '.join(map(repr, arguments))}")
    if kind is float:
        if isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where} = {value!r}: expected {getattr(kind, '__name__', kind)}")


def _parsed_dataclass(kind: Callable[..., object], value: object, where: str) -> object:
    hints = typing.get_type_hints(kind)
    if kind is Method and isinstance(value, str):
        return parse_method(value)
    if not isinstance(value, Mapping):
        expected = f"the fields of {kind.__name__}: {', '.join(hints)}"
        raise ValueError(f"{where} = {value!r}: expected {expected}")
    if kind is Method:
        options = {key: _with_tuples(item) for key, item in value.get("options", {}).items()}
        return Method(value["name"], **options)
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"{where}: no field {', '.join(map(repr, sorted(unknown)))}")
    fields = {name: _parsed(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        if not where.startswith("config.branches"):
            raise
        raise ValueError(f"{where.removeprefix('config.')}: {error}") from error


def _parsed_union(kinds: tuple[object, ...], value: object, where: str) -> object:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1 and dataclasses.is_dataclass(others[0]):
        return _parsed(others[0], value, where)
    for kind in kinds:
        try:
            return _parsed(kind, value, where)
        except ValueError:
            continue
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise ValueError(f"{where} = {value!r}: expected {names}")


def _place(where: str, index: int, item: object) -> str:
    name = item.get("name") if isinstance(item, Mapping) else None
    return f"{where}[{index}]" if name is None else f"{where}.{name}"
