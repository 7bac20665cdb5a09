"""One file per loss; the file name is the name a config gives. `base.py` is the contract.

Imports utils; training may import it.
"""

CONTRACT = "Loss"  # of base.py: what every method here is
