"""Unpickle plain data from strangers: nothing that a pickle names is imported or run.

numpy's own unpickling is not used either: a forged dtype could make it read wild memory. Stand-ins
collect an array's parts, and the array is built from checked dtype, shape and bytes. What a few
bytes can make endless is left out: sets and dictionaries, whose keys are hashed at any depth, and
arrays without content.
"""

from __future__ import annotations

import pickle
import re
import reprlib
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from utils.files import open_input

_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|S[0-9]+|O8?")
_SHOWN = 100  # letters
_DAMAGE = (  # what the unpickler raises on damaged data
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    ImportError,
)


class UnsafePickleError(ValueError):
    """The pickle asks for something that plain data does not need."""


def load_pickle(path: Path) -> object:
    """Return what a pickle holds: lists, tuples, bytes, strings, numbers, None, numpy arrays.

    Strings of Python 2 come as str, one character per byte (latin1).

    Raises:
        ValueError: damaged, or it names anything else (UnsafePickleError: file and name).
    """
    try:
        with open_input(path) as file:
            content = BytesIO(file.read())  # which makes no room for more than there is
        return _plain(_Unpickler(content, encoding="latin1").load())
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: refused, nothing was run: {error}") from error
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: damaged or cut short ({reason})") from error


class _Call:
    """A stand-in that pickled instructions can call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise UnsafePickleError("it tries to change a function")


class _DType:
    """`numpy.dtype(code)`, whose state then says the byte order."""

    __slots__ = ("value",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise UnsafePickleError(f"an array of dtype {_short(code)}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder("<" if state[1] == "<" else ">")


class _Array:
    """What `_reconstruct` gives: empty until its state says shape, dtype and bytes."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: NDArray[np.generic] | list[object] = []

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _short(value: object) -> str:
    return reprlib.repr(value)[:_SHOWN]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """`_codecs.encode`: how protocol 2 of Python 3 spells bytes."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise UnsafePickleError(f"it encodes as {_short(encoding)}")
    return text.encode("latin1")


def _bytearray(raw: object = b"", encoding: object = "latin1") -> bytes:
    return bytes(raw) if isinstance(raw, (bytes, bytearray)) else _encode(raw, encoding)


def _from_buffer(raw: object, dtype: object, shape: object, order: str) -> _Array:
    """`numpy.core.numeric._frombuffer`: how protocol 5 spells an array."""
    array = _Array()
    array.value = _array(raw, dtype, shape, order)
    return array


def _scalar(dtype: object, raw: object) -> object:
    value = _array(raw, dtype, (1,), "C")[0]
    return value.item() if isinstance(value, np.generic) else value


def _not_called(*_: object) -> NoReturn:
    raise UnsafePickleError("it makes a numpy.ndarray, which is only an argument of _reconstruct")


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_ALLOWED: dict[tuple[str, str], _Call] = {
    ("_codecs", "encode"): _Call(_encode),
    **{(module, "bytearray"): _Call(_bytearray) for module in ("builtins", "__builtin__")},
    ("numpy", "dtype"): _Call(_DType),
    ("numpy", "ndarray"): _Call(_not_called),
    **{(module, "_reconstruct"): _Call(_Array) for module in _MULTIARRAY},
    **{(module, "scalar"): _Call(_scalar) for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _Call(_from_buffer) for module in _NUMERIC},
}


def _load_bytearray(unpickler: Any) -> None:
    unpickler.load_binbytes8()
    unpickler.append(bytearray(unpickler.stack.pop()))


def _refuse_keys(_: object) -> NoReturn:
    raise UnsafePickleError("it holds a set or a dictionary")


class _Unpickler(pickle._Unpickler):
    """The one in Python: the one in C makes room for whatever place in its memo a file names."""

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys(b"}du\x8f\x90\x91s", _refuse_keys),
        pickle.BYTEARRAY8[0]: _load_bytearray,  # its own makes room for any length it reads of
    }

    def find_class(self, module: str, name: str) -> _Call:
        if (module, name) not in _ALLOWED:
            raise UnsafePickleError(f"it asks for {module}.{name}"[:_SHOWN])
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise UnsafePickleError(f"it refers to an object outside the file ({_short(pid)})")


def _array(
    raw: object, dtype: object, shape: object, order: str
) -> NDArray[np.generic] | list[object]:
    """Build an array; one of objects becomes the list that the file has of them."""
    if isinstance(dtype, _DType) and dtype.value.kind == "O" and isinstance(raw, list):
        return raw
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if (
        not isinstance(dtype, _DType)
        or dtype.value.kind == "O"
        or not isinstance(raw, (bytes, bytearray))
    ):
        raise UnsafePickleError("an array that does not consist of numbers")
    if not isinstance(shape, tuple) or not raw:
        raise UnsafePickleError(f"an array of shape {_short(shape)} and {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _plain(value: object) -> object:
    """Replace stand-ins by their arrays in (images, issame), in both, and in their items."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return _unwrap(value)
    return [
        [_unwrap(inner) for inner in item] if isinstance(item, (list, tuple)) else item
        for item in map(_unwrap, value)
    ]


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, _Array) else value
