"""For all tests: one thread per process, and no time limits that a busy machine would break."""

import os

# `pytest -n 2` on two cores is faster than four threads that wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")
