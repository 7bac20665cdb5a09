"""How every script reads its flags and ends: one parser, one policy for errors and signals.

A mistake of the user is one line on stderr and exit code 2; Ctrl-C, SIGTERM and SIGHUP are 130; a
reader that has seen enough (`| head`) is 141. Under torchrun the main rank says what went wrong,
once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import math
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn, TextIO, cast

from utils.distributed import (
    ALONE,
    PeerFailed,
    RankLost,
    World,
    in_job,
    is_main_process,
    start,
    stop,
)
from utils.files import stay_within, visible

END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_MOMENT = 0.05  # seconds
_AGAIN = "and give the command again (a training: --resume its folder)"
_WAYS_OUT = {
    **dict.fromkeys(
        (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)),
        f"free space there, or name another folder, {_AGAIN}",
    ),
    errno.EROFS: "nothing can be written there: name another folder",
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"allow it, or name another place, {_AGAIN}"),
    errno.EIO: f"the disk or the network fails: see to it, {_AGAIN}",
}
PARTS_HINT = "with --parts FOLDER the same command resumes where it stopped"


class _Formatter(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.strip().splitlines()
        return "\n".join(textwrap.fill(line, width, initial_indent=indent) for line in lines)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations and answers a mistake with one line.

    Line breaks of description and epilog are kept, so that both can show commands.
    """

    def __init__(self, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            None, None, description, epilog, allow_abbrev=False, formatter_class=_Formatter
        )
        self.add_argument(
            "--within", metavar="FOLDER", help="refuse paths in lists, and links, that lead out"
        )

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and remember for `error` what was given."""
        self._given = sys.argv[1:] if args is None else list(args)
        options, unknown = super().parse_known_args(self._given, namespace)
        try:
            stay_within(options.within)
        except ValueError as error:
            self.error(str(error))
        del options.within
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Write the line, with the closest flag, and leave with exit code 2."""
        known = {flag for action in self._actions for flag in action.option_strings} - {"--help"}
        if "required" in message:  # what argparse says first where a required flag is misspelt
            flags = [text.partition("=")[0] for text in self._given if text.startswith("--")]
            unknown = [flag for flag in flags if flag not in known]
            message = f"unrecognized arguments: {unknown[0]}" if unknown else message
        wrong = message.partition("unrecognized arguments: ")[2].split()[:1]
        close = difflib.get_close_matches(wrong[0].partition("=")[0], known, n=1) if wrong else []
        hint = f"; did you mean {close[0]}?" if close else ""
        if not is_main_process():
            self.exit(2)
        self.exit(2, f"error: {visible(message)}{hint} (--help lists the flags)\n")


class _Terminal:
    """A stream of which names of files and words in them cannot move the cursor, or hide text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves_up = not text.strip("\x1b[A")  # as tqdm does below another bar
        return self._stream.write(text if moves_up else visible(text, "\n\r\t"))

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say_error(message: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"error: {visible(' '.join(message.split()))}\n")


def run_command(body: Callable[[], int], *, resume_hint: str = "") -> int:
    """Run a script's body and return its exit code.

    Args:
        body: ValueError and OSError are mistakes of the user, and so is a package that is not
            installed; other exceptions are bugs, and pass.
        resume_hint: after Ctrl-C, how to continue: "the same command resumes where it stopped".
    """
    with ExitStack() as streams, _interrupting() as received:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if isinstance(stream, io.TextIOWrapper):  # file names may hold what no console can show
                stream.reconfigure(errors="backslashreplace")
            if stream is None:  # it was closed before the start, as by `>&-`
                stream = streams.enter_context(Path(os.devnull).open("w"))
            streams.enter_context(redirect(cast(TextIO, _Terminal(stream))))
        try:
            return body()
        except Exception as error:
            if received:  # libraries turn a KeyboardInterrupt into exceptions of their own
                return _stopped(resume_hint)
            return _explained(error)
        except KeyboardInterrupt:
            return _stopped(resume_hint)


def _stopped(resume_hint: str) -> int:
    sys.stderr.write(f"stopped{'; ' if resume_hint else ''}{resume_hint}\n")
    return 130


def _explained(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, ModuleNotFoundError):
        say_error(
            f"{sys.executable} lacks the package {error.name}: activate the environment that "
            "`make setup` made, or pip install -r requirements.txt"
        )
        return 2
    if isinstance(error, MemoryError):
        say_error(f"not enough memory: {error}")
        return 2
    if not isinstance(error, ValueError | OSError):
        raise error
    if is_main_process():
        say_error(explain(error))
    return 2


def explain(error: Exception) -> str:
    """Return a mistake in words: of the system's errors what they are about, and the way out."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename if error.filename2 is None else error.filename2
    place = "" if name is None else f"{os.fsdecode(name)}: "
    way_out = _WAYS_OUT.get(error.errno or 0, "")
    return f"{place}{error.strerror}{way_out and '; '}{way_out}"


@contextmanager
def _interrupting() -> Iterator[list[int]]:
    """Have `END_SIGNALS` interrupt the work, but no import, which an exception may leave half done.

    Yields the signals that came. One that is ignored from the start stays so.
    """
    received: list[int] = []
    timer = threading.Timer(0, lambda: None)
    main_thread = threading.main_thread()
    again = signal.raise_signal  # Windows
    if hasattr(signal, "pthread_kill"):  # which also wakes a thread that waits
        again = partial(signal.pthread_kill, main_thread.ident or 0)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal timer
        received.append(number)
        while frame is not None and frame.f_code is not run_command.__code__:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                timer = threading.Timer(_MOMENT, again, [number])
                timer.start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    is_main_thread = threading.current_thread() is main_thread
    handlers = {number: signal.getsignal(number) for number in END_SIGNALS if is_main_thread}
    handlers = {n: before for n, before in handlers.items() if before not in (signal.SIG_IGN, None)}
    for number in handlers:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        timer.cancel()
        for number, before in handlers.items():
            signal.signal(number, before)


def run_on_ranks(device: str, body: Callable[[World, str], int], *, resume_hint: str = "") -> int:
    """Run a script's body as `run_command` does, as one of the ranks where torchrun started any.

    Args:
        device: as the flag has it; "cpu" for work on stored files.
        body: gets this process's place among the ranks, and its device. All ranks make the same
            calls of `World.gather`; those that are not main print and write nothing.
        resume_hint: see `run_command`.

    The exit code is 2 on every rank when one of them meets a user's mistake, or is lost.
    """
    if in_job():
        return run_command(lambda: _as_rank(device, body, resume_hint), resume_hint=resume_hint)
    return run_command(lambda: body(ALONE, device), resume_hint=resume_hint)


def _as_rank(device: str, body: Callable[[World, str], int], resume_hint: str) -> int:
    try:
        world, own = start(device)
    except RankLost as error:
        if is_main_process():
            say_error(explain(error))
        return 2
    before = signal.signal(signal.SIGTERM, partial(_terminated, world, resume_hint))
    try:
        return _to_the_end(world, partial(body, world, str(own)))
    except RankLost as error:
        say_last(world, explain(error))
        stop(world, failed=True)
        return 2
    except BaseException:
        stop(world, failed=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _to_the_end(world: World, body: Callable[[], int]) -> int:
    try:
        code = body()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `stop` notices by itself who is lost
        stop(world)
        return code
    except BrokenPipeError:
        raise
    except (PeerFailed, ValueError, OSError) as error:
        problem = explain(error)
        if not isinstance(error, PeerFailed):
            world.fail(problem)
    say_last(world, problem)
    stop(world)
    return 2


def _terminated(world: World, resume_hint: str, _: int, __: FrameType | None) -> NoReturn:
    hint = f"; {resume_hint}" if resume_hint else ""
    say_last(
        world,
        "ended by SIGTERM, which torchrun sends when another process has died (its summary "
        f"names it){hint}",
    )
    raise SystemExit(2)


def say_last(world: World, problem: str) -> None:
    """Let the main rank say why the job ends; torchrun's SIGTERM adds nothing to that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if world.is_main:
        say_error(problem)
        sys.stdout.flush()


def count(text: str) -> int:
    """Read a count of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a count of 0 or more")
    return int(text)


def positive(text: str) -> int:
    """Read a count above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def count_or_all(text: str) -> int | Literal["all"]:
    """Read a count above 0, or `all`."""
    if text == "all":
        return "all"
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a count above 0 nor all")
    return int(text)


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1, such as 0.001")
    return value
