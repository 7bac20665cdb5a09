"""Whole photos in, aligned faces out: decoding, sources, detectors, alignment."""
