"""Statistics of scored comparisons: pure functions of arrays."""
