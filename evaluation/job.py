"""The body of an evaluation script: in one process, or on every rank of a torchrun job.

All ranks embed; the main one computes, prints and writes. An error is printed once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from evaluation import cli
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


def guarded(args: argparse.Namespace, body: Callable[[World], int]) -> int:
    """Run a script's body as `cli.guarded` does, as one of the ranks where torchrun started any.

    Args:
        args: flags with `device`, which becomes this rank's own, and `features`: stored files need
            no device.
        body: gets this process's place among the ranks. All of them make the same calls of
            `World.gather`, and those that are not main print and write nothing.

    Returns:
        The exit code; 2 on every rank when one of them meets a user's mistake, or is lost.
    """
    return cli.guarded(lambda: _as_a_rank(args, body) if in_job() else body(ALONE))


def _as_a_rank(args: argparse.Namespace, body: Callable[[World], int]) -> int:
    try:
        world, device = start("cpu" if args.features else args.device)
    except (ValueError, RankLost) as error:
        if is_main_process():
            cli.say_error(str(error))
        return 2
    args.device = str(device)
    before = signal.signal(signal.SIGTERM, partial(_ended, world))
    try:
        return _to_the_end(world, body)
    except RankLost as error:
        _say_once(world, str(error))
        stop(world, failed=True)
        return 2
    except BaseException:
        stop(world, failed=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(world: World, *_: Any) -> NoReturn:
    _say_once(
        world,
        "ended by SIGTERM, which torchrun sends when another process has died (its summary "
        "names it); with --parts FOLDER the same command goes on where it was",
    )
    raise SystemExit(2)


def _say_once(world: World, problem: str) -> None:
    """Let the main rank say why the job ends; torchrun's SIGTERM adds nothing to that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if world.is_main:
        cli.say_error(problem)
        sys.stdout.flush()


def _to_the_end(world: World, body: Callable[[World], int]) -> int:
    try:
        code = body(world)
        stop(world)
        return code
    except BrokenPipeError:
        raise
    except PeerFailed as error:
        problem = str(error)
    except (ValueError, OSError) as error:
        problem = str(error)
        world.fail(problem)
    _say_once(world, problem)
    stop(world)
    return 2
