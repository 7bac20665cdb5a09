"""Labelled, aligned faces: sources, `.bin` sets, pairs, sampler, loader.

Imports utils; everything above it may import it.
"""
