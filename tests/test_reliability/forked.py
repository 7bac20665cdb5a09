"""Runs commands in forks of one Python that has imported them, so that a try takes no start.

It has the library of faults.c preloaded, reads an order a line as JSON, and answers with one. What
a command imports is imported here after its first run.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

FAULTS = ctypes.CDLL(os.environ["LD_PRELOAD"])
TEXTS = ("fault", "lost", "stash", "log")


def child(order, files):
    """Run the command and end, here or where its orders say."""
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(files / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    sys.argv = [order["script"], *order["arguments"]]
    command = importlib.import_module(order["script"].removesuffix(".py").replace("/", "."))
    for name, value in order["constants"].items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, value)
    fault, lost, stash, log = (order[name].encode() for name in TEXTS)
    folder, at = order["folder"].encode(), ctypes.c_long(order["at"])
    FAULTS.faults_arm(folder, at, fault, order["once"], lost, stash, log)
    code = 1
    try:
        code = command.main(order["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with suppress(OSError):
        sys.stdout.flush()
    FAULTS.faults_arm(b"", ctypes.c_long(0), b"", 0, b"", b"", b"")
    (files / "modules").write_text("\n".join(list(sys.modules)))
    os._exit(code or 0)


def wait(pid, seconds, limit):
    """Wait for a process, killed after so many seconds; its exit code, or less a signal."""
    begun = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        past = time.monotonic() - begun
        if past > min(limit, limit if seconds is None else seconds):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL if past < limit else "hangs"
        time.sleep(0.001)


def main():
    """Do what the orders say."""
    files, known = Path(sys.argv[1]), set()
    for line in sys.stdin:
        order = json.loads(line)
        (files / "modules").unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            child(order, files)
        code = wait(pid, order["seconds"], order["limit"])
        if order["script"] not in known and (files / "modules").exists():
            known.add(order["script"])
            for name in (files / "modules").read_text().split("\n"):
                with suppress(Exception):
                    importlib.import_module(name)
        sys.stdout.write(json.dumps(code) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
