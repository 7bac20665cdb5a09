"""Find a method by its file name: `losses/idq.py` is the loss "idq", with no registry to edit.

Used by everything that turns a config into objects; imports no method until it is requested.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import typing
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from utils.config import Method, parsed


def available(package: str) -> list[str]:
    """Return the method names of a package: its public modules, but for `base` and packages."""
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(f"{package!r} is not a package of methods")
    modules = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(
        module.name
        for module in modules
        if not (module.ispkg or module.name.startswith("_") or module.name == "base")
    )


def find(package: str, name: str) -> type[Any]:
    """Return the one class that `package/name.py` exports in its `__all__`.

    Raises:
        ValueError: there is no such file (the message lists the names that exist), it cannot be
            imported, it has no such class, or the class lacks a part that its contract asks for.
    """
    names = available(package)
    if name not in names:
        suggest = getattr(import_module(package), "suggest", None)
        ways_in = getattr(import_module(package), "WAYS_IN", "")
        close = (suggest(name) if suggest else []) or difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"unknown name {name!r} in {package}{hint} (known: {', '.join(names)})"
            + (f". Ways in: {ways_in}" if ways_in else "")
        )
    file = f"{package.replace('.', '/')}/{name}.py"
    try:
        module = import_module(f"{package}.{name}")
    except (ImportError, SyntaxError) as error:
        raise ValueError(f"{file} cannot be imported: {error}") from error
    exported = list(getattr(module, "__all__", ()))
    if len(exported) != 1:
        state = f"names {', '.join(exported)}" if exported else "is missing or empty"
        raise ValueError(f"{file}: __all__ {state}; it must name the file's one class")
    target = getattr(module, exported[0], None)
    if not isinstance(target, type):
        raise ValueError(f"{file}: __all__ names {exported[0]!r}, which is not a class of the file")
    contract = _contract(package)
    if inspect.isabstract(contract) and not issubclass(target, contract):
        raise ValueError(
            f"{file}: class {target.__name__} is not a subclass of {contract.__name__}, of "
            f"{contract.__module__} (docs/adding_a_method.md)"
        )
    _require(file, target, sorted(getattr(target, "__abstractmethods__", ())))
    return target


def _contract(package: str) -> type:
    """Return the class of `package/base.py` whose parts a method has, or `object`."""
    name = getattr(import_module(package), "CONTRACT", "")
    return getattr(import_module(f"{package}.base"), name) if name else object


def _require(file: str, target: type, missing: list[str]) -> None:
    if missing:
        raise ValueError(
            f"{file}: class {target.__name__} lacks {', '.join(missing)} "
            "(docs/adding_a_method.md lists the parts)"
        )


def check_options(package: str, method: Method, *others: type) -> None:
    """Bind a method's options to its constructor, so that a misspelt one fails before any work.

    What the constructors of `others` take suits every method of the package.

    Raises:
        ValueError: unknown name, an option that the constructor does not take, or a value of
            another type than it says.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for target in (find(package, method.name), *others):
        parameters |= inspect.signature(target).parameters
    unknown = [option for option in method.options if option not in parameters]
    if unknown:
        close = difflib.get_close_matches(unknown[0], parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        takes = ", ".join(
            name if parameter.default is parameter.empty else f"{name}={parameter.default!r}"
            for name, parameter in parameters.items()
        )
        raise ValueError(
            f"{package}.{method.name}: no option {', '.join(map(repr, unknown))}{hint}; "
            f"it takes ({takes})"
        )
    for target in (find(package, method.name), *others):
        for option, kind in _hints(target).items():
            if option in method.options and typing.get_origin(kind) is not typing.Literal:
                parsed(kind, method.options[option], f"{package}.{method.name}: {option}")


def _hints(target: type) -> dict[str, object]:
    """Return the types of a constructor's parameters; names that only type checkers know: any."""
    unknown: dict[str, object] = {}
    while True:
        try:
            return typing.get_type_hints(target.__init__, localns=unknown)  # type: ignore[misc]
        except NameError as error:
            unknown[error.name or ""] = object


def build(package: str, method: Method, **runtime: object) -> Any:
    """Construct a method from its config options and the runtime objects that it names.

    Args:
        package: `losses`, `models.heads`, `models.backbones`, `estimators`, ...
        method: name and options as the config gives them.
        runtime: objects that only exist at run time (`features_shape`, `embedding_size`, ...); a
            constructor gets those it has a parameter for.

    Raises:
        ValueError: unknown name or option, an option that is a runtime object, one that is missing,
            values that the constructor refuses, or a part of the contract that is never set.
    """
    check_options(package, method)
    reserved = [option for option in method.options if option in runtime]
    if reserved:
        raise ValueError(
            f"{package}.{method.name}: {', '.join(map(repr, reserved))} is set by the program, "
            "not by the config"
        )
    target = find(package, method.name)
    parameters = inspect.signature(target).parameters
    objects = {name: value for name, value in runtime.items() if name in parameters}
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in {**method.options, **objects}
    ]
    if missing:
        example = ",".join(f"{name}=..." for name in missing)
        needs = f"{package}.{method.name} needs {', '.join(missing)}"
        raise ValueError(f"{needs}: give {method.name}:{example}")
    built = target(**method.options, **objects)
    contract = _contract(package)
    required = [*inspect.get_annotations(contract), *{"__call__"}.intersection(vars(contract))]
    file = f"{package.replace('.', '/')}/{method.name}.py"
    _require(file, target, [name for name in required if not hasattr(built, name)])
    return built
