"""The folder of a run: its log, its metrics and the record of how it was made."""

from __future__ import annotations

import itertools
import json
import logging
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from utils.config import TrainConfig, to_json
from utils.files import DAMAGE, read_json, visible, write_bytes, write_text

if TYPE_CHECKING:
    import torch

LOGGER = logging.getLogger("faceuq")
_PACKAGES = (
    *("face-uncertainty", "torch", "numpy", "scipy"),
    *("opencv-python-headless", "simplejpeg", "matplotlib"),
)


class _LogFile(logging.FileHandler):
    """A log that cannot be written is an error of the run, with the file's name."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), "\n\t")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exception()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, self.baseFilename) from error
        super().handleError(record)

    def close(self) -> None:
        """Close the file; a line that could not be written was an error before."""
        with suppress(OSError):
            super().close()


class _BarSafeHandler(logging.Handler):
    """Print above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def start_logging(log_file: Path | None = None) -> None:
    """Send the log to the console and, once there is one, to a file."""
    stop_logging()
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(_BarSafeHandler())
    if log_file is not None:
        LOGGER.addHandler(_LogFile(log_file, encoding="utf-8", errors="backslashreplace"))


def keep_quiet() -> None:
    """Log nothing: another process of the job does."""
    LOGGER.propagate = False
    LOGGER.addHandler(logging.NullHandler())


def stop_logging() -> None:
    """Close the log file."""
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()


def new_run_folder(config: TrainConfig, model_dir: Path | None) -> Path:
    """Make the folder of a new run: `model_dir`, or the first free `<log_dir>/<name>[-2, -3, ...]`.

    Raises:
        ValueError: `model_dir` already holds a run.
    """
    if model_dir is not None:
        if (model_dir / "last.pt").exists():
            raise ValueError(
                f"{model_dir} already holds a run: python network.py --resume {model_dir} resumes "
                "it; or choose another --model_dir"
            )
        model_dir.mkdir(parents=True, exist_ok=True)
        return model_dir
    parent = Path(config.log_dir)
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = parent / (config.name if number == 1 else f"{config.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")


def record_run(folder: Path, config: TrainConfig, config_file: Path | None, **facts: Any) -> None:
    """Write the config as given and as JSON, and the environment of each start of the run."""
    if config_file is not None:
        write_bytes(folder / "config.py", config_file.read_bytes())
    write_text(folder / "config.json", to_json(config) + "\n")
    path = folder / "environment.json"
    starts = [*_earlier_starts(path), {**environment(), **facts}]
    write_text(path, json.dumps(starts, indent=2) + "\n")


def _earlier_starts(path: Path) -> list[Any]:
    if not path.exists():
        return []
    with suppress(ValueError, OSError):
        starts = read_json(path)
        if isinstance(starts, list):
            return starts
    LOGGER.warning("%s is damaged: the record of this run's starts begins anew", path)
    return []


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Return versions, platform, code revision and command line."""
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "revision": _revision(),
        "command": sys.argv,
    }
    if device is not None:
        from utils.device import describe_device  # torch

        record["device"] = describe_device(device)
    return record


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, in the order of the steps."""

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        """Open for appending.

        Lines of steps after `resume_at` are dropped, since they come again, and so are damaged
        ones.
        """
        if path.exists():
            lines = path.read_bytes().splitlines()
            sound = [line + b"\n" for line in lines if _step_of(line) <= resume_at]
            write_bytes(path, b"".join(sound))
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        """Append one line and hand it to the system at once."""
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Have what was written on the disk, where a loss of power does not take it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.sync()
        self._file.close()


def _step_of(line: bytes) -> float:
    with suppress(ValueError, *DAMAGE):
        return float(json.loads(line)["global_step"])
    return float("inf")  # cut short by a crash, or damaged


def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()
    return None
