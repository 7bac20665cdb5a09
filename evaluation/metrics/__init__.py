"""Statistics of scored comparisons: pure functions of arrays, NumPy and SciPy alone."""
