"""TAR at fixed FAR: now in `evaluation.metrics.thresholds`."""

from evaluation.metrics.thresholds import FARS, TarAtFar, tar_at_far

__all__ = ["FARS", "TarAtFar", "tar_at_far"]
