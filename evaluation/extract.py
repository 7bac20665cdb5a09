"""Moved to extraction/extract.py; this path still works."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stderr.write("evaluation/extract.py is now extraction/extract.py\n")
    runpy.run_path(
        str(Path(__file__).parents[1] / "extraction" / "extract.py"), run_name="__main__"
    )
