"""Configs from text: `key=value` overrides of the command line, and JSON both ways.

Nothing here runs code; every value is checked against the type of its field.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from utils._config_set import assign
from utils.config import Method, TrainConfig


def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return the config with `key=value` assignments applied, all of them before it is checked.

    `schedule.lr=3e-3` reaches into a nested field, `loss.margin=0.4` into a method's options,
    `branches.NAME.loss.margin=0.4` into a branch (`branches.*` into all), and `loss=idq:margin=0.4`
    replaces a method (see `parse_method`). Values are Python literals, anything else is taken as a
    string. Length and drops of the run's schedule, when set, are also those of its branches.

    Raises:
        ValueError: no `=`, an unknown field, or a value of the wrong type or out of range.
    """
    values = dataclasses.asdict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment}: expected key=value")
        assign(values, key.strip(), _literal(text.strip()))
    changed = _parsed(TrainConfig, values, "config")
    assert isinstance(changed, TrainConfig)
    return changed


def parse_method(text: str) -> Method:
    """Read `name` or `name:option=value,option=value` of the command line.

    Values are Python literals, anything else is taken as a string; commas inside brackets belong to
    the value.

    Raises:
        ValueError: an option without `=`, or without a name.
    """
    name, _, options = text.partition(":")
    parts = re.split(r",(?![^(\[{]*[)\]}])", options) if options else []
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"{text}: expected name:option=value,option=value, got {part!r}")
        found[key.strip()] = _with_tuples(_literal(value.strip()))
    return Method(name, **found)


def to_json(config: TrainConfig) -> str:
    """Write a config as JSON that `from_json` reads back to an equal config."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> TrainConfig:
    """Read what `to_json` wrote; runs no code.

    Raises:
        ValueError: not JSON, a field that does not exist, a missing one, or a value out of range.
    """
    config = _parsed(TrainConfig, json.loads(text), "config")
    assert isinstance(config, TrainConfig)
    return config


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _with_tuples(value: Any) -> Any:
    """Options are compared and passed on as tuples, which JSON does not have."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _parsed(kind: Any, value: Any, where: str) -> Any:
    """Check a plain value against a field's type and return it in that type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else _parsed_dataclass(kind, value, where)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _parsed_union(typing.get_args(kind), value, where)
    if origin is tuple:
        return _parsed_tuple(typing.get_args(kind)[0], value, where)
    if origin is Literal:
        allowed = typing.get_args(kind)
        if value in allowed:
            return value
        raise ValueError(f"{where} = {value!r}: must be one of {', '.join(map(repr, allowed))}")
    if kind is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{where} = {value!r}: expected {getattr(kind, '__name__', kind)}")


def _parsed_dataclass(kind: type[Any], value: Any, where: str) -> Any:
    if kind is Method and isinstance(value, str):
        return parse_method(value)
    if not isinstance(value, Mapping):
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        raise ValueError(f"{where} = {value!r}: expected the fields of {kind.__name__}: {names}")
    if kind is Method:
        options = {key: _with_tuples(item) for key, item in value.get("options", {}).items()}
        return Method(value["name"], **options)
    hints = typing.get_type_hints(kind)
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


def _parsed_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
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


def _parsed_tuple(kind: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        value = (value,)
    return tuple(
        _parsed(kind, item, _place(where, index, item)) for index, item in enumerate(value)
    )


def _place(where: str, index: int, item: Any) -> str:
    named = isinstance(item, Mapping) and "name" in item
    return f"{where}.{item['name']}" if named else f"{where}[{index}]"
