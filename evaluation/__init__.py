"""Sets, metrics, confidence, opening a model; scripts that evaluate, compare and calibrate.

Imports estimators and what lies below; report and everything above may import it. Scripts may
import anything.
"""
