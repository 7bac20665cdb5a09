"""Configs, files, tables, parts of long jobs, command lines, devices, processes.

Imports no other room; every room may import it.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def _is_script() -> bool:
    """Whether this process runs a script of this checkout."""
    root, main = (
        Path(__file__).resolve().parents[1],
        getattr(sys.modules["__main__"], "__file__", None),
    )
    script = Path(main or "/").resolve()
    is_ours = script == root / "network.py" or script.parent.parent == root
    return is_ours and (root / "pyproject.toml").exists()


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


# Ctrl-C while a script's first imports run, before `cli.run_command` takes over
if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_script():
    signal.signal(signal.SIGINT, _stop_at_once)
