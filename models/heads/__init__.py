"""One file per head; the file name is the name a config gives. `base.py` is the contract."""

CONTRACT = "Head"  # of base.py: what every method here is
