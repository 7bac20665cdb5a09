"""Embeddings and uncertainties of whole data sets, in shards."""
