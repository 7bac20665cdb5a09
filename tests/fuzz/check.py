"""What counts as a finding: anything but a clean answer, and any sign that a file was run."""

import os
import random
import sys
import typing
import warnings
from pathlib import Path

from tests.fuzz.edits import drawn, edited
from tests.fuzz.targets import Files, Target
from tests.helpers import ROOT

FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen"),
    *("pickle.find_class", "ctypes.dlopen", "socket.connect", "socket.getaddrinfo", "os.putenv"),
    *("os.chmod", "os.chown", "os.link", "os.symlink", "os.startfile", "webbrowser.open"),
)
FOLDER = "fuzzed"  # name of the folder that holds a target's files
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_watched: list[Path] = []  # folders that are being read from; nothing is watched without one
_seen: list[str] = []


def _imports() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(event: str, arguments: tuple) -> None:
    if not _watched:
        return
    if event == "open":
        path, _, flags = arguments
        if not flags & WRITES or not isinstance(path, str) or path == os.devnull:
            return
        if path.startswith(str(_watched[-1])):
            return
    elif event == "exec":
        caller = sys._getframe(1).f_code.co_filename
        if Path(arguments[0].co_filename).is_absolute() or caller == typing.__file__:
            return  # a module, or an annotation
    elif event not in FORBIDDEN:
        return
    if not _imports():
        _seen.append(f"{event} {str(arguments)[:200]}")
        raise PermissionError(f"{event} while a file is read")


sys.addaudithook(_watch)


def problem(target: Target, path: Path) -> str:
    """Say what is wrong with how a target reads a file; "" where nothing is."""
    _seen.clear()
    _watched.append(path.parents[len(path.parts) - 1 - path.parts.index(FOLDER)])
    answer = ""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            target.read(path)
        own = [str(one.message) for one in said if _is_own(one)]
        answer = f"warning: {own[0]}" if own else ""
    except (ValueError, OSError) as error:
        is_named = any(each.stem in str(error) for each in path.parent.iterdir())
        if target.names_file and not is_named:
            answer = f"no name of the file: {_described(error)}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        answer = _described(error)
    finally:
        _watched.pop()
    return f"executed {_seen[0]}" if _seen else answer


def _is_own(warning: warnings.WarningMessage) -> bool:
    return warning.category is RuntimeWarning and warning.filename.startswith(str(ROOT))


def _described(error: BaseException) -> str:
    """Type, message, and the last line of the product that it passed."""
    where, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(str(ROOT)) and f"{os.sep}fuzz{os.sep}" not in file.removeprefix(
            str(ROOT)
        ):
            where = f"{Path(file).relative_to(ROOT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {where}: {str(error)[:200]}"


class Folder:
    """A target's files on disk, of which one is replaced by an edited one at a time."""

    def __init__(self, place: Path, target: Target) -> None:
        self.target = target
        self.corpus = target.corpus()
        self.paths = [place / str(number) / FOLDER for number in range(len(self.corpus))]
        for path, files in zip(self.paths, self.corpus, strict=True):
            write(path, files)
        self.editable = [
            [name for name in files if not name.endswith(target.fixed)]
            if target.fixed
            else list(files)
            for files in self.corpus
        ]

    def problem(self, number: int, name: str, content: bytes) -> str:
        """Say what is wrong where a file of one folder has this content."""
        folder, files = self.paths[number], self.corpus[number]
        (folder / name).write_bytes(content)
        answer = problem(self.target, folder / next(iter(files)))
        (folder / name).write_bytes(files[name])
        return answer

    def input(self, seed: str) -> tuple[int, str, bytes]:
        """Draw which file to replace, and its content; the same for equal seeds."""
        rng = random.Random(seed)
        number = rng.randrange(len(self.corpus))
        names = self.editable[number]
        name = names[0] if rng.random() < 0.5 else rng.choice(names)
        return number, name, edited(self.corpus[number][name], drawn(rng), self.others(name))

    def others(self, name: str) -> list[bytes]:
        """Return the files of this name."""
        return [files[name] for files in self.corpus if name in files]


def write(folder: Path, files: Files) -> None:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
