"""One thread per test process: `pytest -n 2` on two cores is faster than four threads that spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
