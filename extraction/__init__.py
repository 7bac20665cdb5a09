"""Embeddings and uncertainties of whole data sets, in shards.

Imports report and what lies below; scripts may import it.
"""
