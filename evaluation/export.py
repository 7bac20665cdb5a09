"""Moved to export/export.py; this path still works."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stderr.write("evaluation/export.py is now export/export.py\n")
    runpy.run_path(str(Path(__file__).parents[1] / "export" / "export.py"), run_name="__main__")
