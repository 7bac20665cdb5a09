"""Moved to scoring/score_images.py; this path still works."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stderr.write("evaluation/score_images.py is now scoring/score_images.py\n")
    runpy.run_path(
        str(Path(__file__).parents[1] / "scoring" / "score_images.py"), run_name="__main__"
    )
