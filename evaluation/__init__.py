"""From embeddings and uncertainties to error rates, curves and reports."""
