"""The discard curve of scored comparisons under a protocol: now in `evaluation.metrics.curve`."""

from evaluation.metrics.curve import ProtocolCurve, protocol_curve

__all__ = ["ProtocolCurve", "protocol_curve"]
