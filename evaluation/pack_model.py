"""Moved to export/pack_model.py; this path still works."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stderr.write("evaluation/pack_model.py is now export/pack_model.py\n")
    runpy.run_path(str(Path(__file__).parents[1] / "export" / "pack_model.py"), run_name="__main__")
