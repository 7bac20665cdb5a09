"""What all heads share: their contract and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

Output = Literal["probability", "variance"]

_OUTPUTS = ("probability", "variance")


class Head(nn.Module):
    """A small network from `BackboneOutput` to an unconstrained number, (B, d).

    Attributes:
        output: what the number is: the logit of a probability, or log variances.
        reads: what of a `BackboneOutput` the head works on: "features" (and embeddings), or
            "images" alone, so that it runs without the backbone.
        extra: a scalar that a forward pass in training mode asks to add to the loss, or None.
    """

    output: Output
    extra: Tensor | None = None
    reads: ClassVar[Literal["features", "images"]] = "features"

    def starting_from(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a file's tensors under this head's names; heads may take other networks' too."""
        return tensors


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
