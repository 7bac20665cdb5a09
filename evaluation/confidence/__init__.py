"""Intervals, certified risk, calibration: pure functions of arrays, NumPy and SciPy alone."""
