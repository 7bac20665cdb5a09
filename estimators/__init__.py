"""One file per score of a face; the file name is the estimator's name. `base.py` is the contract.

Imports mc_dropout, photos, data, models and utils; evaluation and everything above may import it.
"""

CONTRACT = "Estimator"  # of base.py: what every method here is
