"""Read `synthetic:identities=200,images=20,seed=1`: the options of rendered faces and sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def synthetic_options(source: str, target: Callable[..., object]) -> dict[str, Any]:
    """Return the options after `synthetic:` as numbers, checked against what the target takes.

    Raises:
        ValueError: not `key=number`, an unknown key, or a missing one.
    """
    takes = inspect.signature(target).parameters
    options: dict[str, Any] = {}
    for assignment in filter(None, source.partition(":")[2].split(",")):
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or key not in takes:
            known = ", ".join(takes)
            raise ValueError(f"{source}: {assignment!r} is not key=number with a key of: {known}")
        options[key] = _number(text, source, key)
    missing = [
        name
        for name, parameter in takes.items()
        if parameter.default is parameter.empty and name not in options
    ]
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)} missing (write {missing[0]}=NUMBER)")
    return options


def _number(text: str, source: str, key: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{source}: {key} = {text!r} is not a number")
