"""Networks and their weights: backbones, heads, loading, freezing, the packed file.

Imports utils; everything above it may import it.
"""
