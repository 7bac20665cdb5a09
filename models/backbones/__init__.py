"""One file per backbone; the file name is the name a config gives. `base.py` is the contract."""

import re

CONTRACT = "Backbone"  # of base.py: what every method here is
WAYS_IN = (
    "a known name with its weights (.pth, .pt, .safetensors); onnx with any recogniser's .onnx "
    "file; a network of your own as a Python file in models/backbones (docs/adding_a_method.md)"
)


def suggest(name: str) -> list[str]:
    """Return what somebody may mean by `r50`, `ir_50` or `iresnet50`."""
    depth = re.fullmatch(r"(?:i?r|i?resnet|ir_?se)[-_]?(\d+)", name.lower())
    return [f"iresnet:depth={depth[1]}"] if depth else []
