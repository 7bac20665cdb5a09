"""Argument checks that all heads share."""

from __future__ import annotations

_OUTPUTS = ("probability", "variance")


def check_head(name: str, output: str, dim: int, hidden: int | None = None) -> None:
    """Refuse options that no head can be built from.

    Raises:
        ValueError: the message names the head, the option and what is allowed.
    """
    if output not in _OUTPUTS:
        raise ValueError(f"head {name!r}: output = {output!r}: must be one of {_OUTPUTS}")
    if dim < 1:
        raise ValueError(f"head {name!r}: dim = {dim!r}: must be at least 1")
    if output == "probability" and dim != 1:
        raise ValueError(
            f"head {name!r}: dim = {dim!r}: a probability head has one output; "
            'take output="variance" for one per dimension'
        )
    if hidden is not None and hidden < 1:
        raise ValueError(f"head {name!r}: hidden = {hidden!r}: must be at least 1")
