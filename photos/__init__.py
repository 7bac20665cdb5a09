"""Whole photos to aligned faces: decoding, sources, detectors, alignment.

Imports data, models and utils; estimators and everything above may import it.
"""
