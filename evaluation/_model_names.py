"""What may be given as a model, and what was probably meant; for evaluation.open_model."""

from __future__ import annotations

from difflib import get_close_matches

from utils.methods import available

ACCEPTED = (
    "a run folder of network.py, a packed model (.pt), an exported model (.onnx), demo; or an "
    "estimator such as embedding_norm, with backbone_name and backbone_weights"
)


def hint(name: str) -> str:
    """Say what was meant by the name of a model that is not there; "" where nothing is near."""
    if get_close_matches(name, ["demo"], cutoff=0.7):
        return " (did you mean demo?)"
    if name in available("estimators"):
        return f" ({name} needs backbone_name and backbone_weights)"
    return ""
