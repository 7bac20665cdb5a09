"""Pixels of any number type to 8 bits.

Used by photos/decode.py for arrays, and by photos/pillow.py for files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_OVERSHOOT = 0.05  # of the range: what resizing by cubic curves may add


def to_bytes(values: NDArray[Any]) -> tuple[NDArray[np.uint8], str]:
    """Return uint8 of the same shape, and a note on what it was.

    Args:
        values: uint8 as it is; bool; uint16, whose high byte is taken, as Pillow and OpenCV do;
            floating point, 0..1 or 0..255 by the largest value, rounded.

    Raises:
        ValueError: another type, values outside, or values that are no numbers.
    """
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8), ""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), "black and white"
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8), "16-bit"
    if values.dtype.kind == "f":
        return _from_float(values), "floating point"
    raise ValueError(
        f"pixels of type {values.dtype}: expected uint8, uint16, bool or floating point; for "
        "values 0..255 use .astype(np.uint8)"
    )


def _from_float(values: NDArray[Any]) -> NDArray[np.uint8]:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("pixels that are infinite or no numbers (NaN)")
    top = 1 if highest <= 1 + _OVERSHOOT else 255
    if lowest < -_OVERSHOOT * top or highest > (1 + _OVERSHOOT) * top:
        raise ValueError(
            f"floating-point pixels from {lowest:g} to {highest:g}: expected 0..1 or 0..255"
        )
    scaled = values.astype(np.float32) * np.float32(255 // top)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
