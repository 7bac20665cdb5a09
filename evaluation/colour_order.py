"""Moved to export/colour_order.py; this path still works."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stderr.write("evaluation/colour_order.py is now export/colour_order.py\n")
    runpy.run_path(
        str(Path(__file__).parents[1] / "export" / "colour_order.py"), run_name="__main__"
    )
