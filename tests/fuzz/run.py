"""Feed damaged files to every reader for as long as wanted; prints the counts and what went wrong.

python -m tests.fuzz.run --inputs 2000000 --out /tmp/fuzz        # all readers in turn
python -m tests.fuzz.run --only "bin sets" --seconds 60 --out /tmp/fuzz
python -m tests.fuzz.run --again --out /tmp/fuzz                 # what went wrong, once more
python -m tests.fuzz.run --atheris "bin sets" --out /tmp/fuzz    # pip install atheris==3.0.0

Each process has limits: 5 s of CPU time and 1 GB for one input, beside what the process itself has.
An input follows from its reader, the seed and its number. The same command goes on where it was.
"""

import argparse
import faulthandler
import json
import logging
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.helpers import ROOT

SECONDS, GIB = 5, 1 << 30  # of one input
TURNS = {0.5: 1.0, 1e9: 0.25}  # seconds of CPU time until the next reader's turn, by its cost
RESTART = 300 << 20  # bytes by which a process may grow before it is replaced
STUCK = 120  # seconds without a new input, by the clock
_STATE = struct.Struct("<qq")  # reader and number of the input that is being read


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of counts and findings")
    parser.add_argument("--inputs", type=int, default=1 << 62, help="of all readers together")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", action="append", default=[], help="name of a reader; repeatable")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--again", action="store_true", help="what went wrong, once more")
    parser.add_argument("--atheris", metavar="READER")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args, further = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.atheris:
        return guided(args.atheris, args.out, further)
    if args.again:
        return again(args.out)
    return child(args) if args.child else parent(args)


def parent(args: argparse.Namespace) -> int:
    """Keep a process at work until all inputs were read, and note what ends it."""
    counts: Counter[str] = Counter(_stored(args.out / "counts.json"))
    (args.out / "state").write_bytes(_STATE.pack(-1, 0))
    end = time.monotonic() + args.seconds
    while counts.total() < args.inputs and time.monotonic() < end:
        left = ("--inputs", str(args.inputs), "--seconds", str(end - time.monotonic()))
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", *sys.argv[1:], *left]
        with (args.out / "stderr.txt").open("w") as errors:
            process = subprocess.Popen(command, cwd=ROOT, stderr=errors)
            code = _wait(process, args.out / "state")
        counts = Counter(_stored(args.out / "counts.json"))
        if code not in (0, 3):
            said = (args.out / "stderr.txt").read_text(errors="replace")[-3000:]
            place, number = _STATE.unpack((args.out / "state").read_bytes())
            if place < 0:
                sys.exit(said)
            target = _targets(args.only)[place]
            what = "hang" if code in (-signal.SIGPROF, -signal.SIGKILL) else f"ended with {code}"
            with TemporaryDirectory() as folder:
                drawn = _folder(folder, target).input(f"{args.seed}:{target.name}:{number}")
            _note(args.out, target.name, number, f"{what}: {said}", drawn)
            counts[target.name] = number + 1
            (args.out / "counts.json").write_text(json.dumps(counts))
    width = max(map(len, counts))
    print("\n".join(f"{name:<{width}} {count:>10,}" for name, count in counts.items()))
    print(f"{'all':<{width}} {counts.total():>10,}")
    findings = sorted((args.out / "findings").glob("*.txt"))
    print(*(path.read_text() for path in findings), sep="\n")
    return 1 if findings else 0


def _wait(process: subprocess.Popen, state: Path) -> int:
    before, since = b"", time.monotonic()
    while True:
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            now = state.read_bytes()
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK:
                process.kill()


def child(args: argparse.Namespace) -> int:
    """Read inputs, a slice of time for each reader in turn."""
    logging.disable()
    sys.dont_write_bytecode = True
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    counts: Counter[str] = Counter(_stored(args.out / "counts.json"))
    file = os.open(args.out / "state", os.O_RDWR)
    state = mmap.mmap(file, _STATE.size)
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(dir=memory) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        targets = _targets(args.only)
        folders = [_folder(f"{folder}/{place}", target) for place, target in enumerate(targets)]
        for each in folders:  # whatever is imported late is there before the limits
            for number, files in enumerate(each.corpus):
                name = next(iter(files))
                for content in (files[name], files[name][:50]):
                    each.problem(number, name, content)
        size, start = _memory()
        resource.setrlimit(resource.RLIMIT_AS, (size + 3 * GIB, resource.RLIM_INFINITY))
        end = time.monotonic() + args.seconds
        place = _STATE.unpack(state[:])[0] + 1  # after the reader that the last process ended with
        for turn in count(place):
            index = turn % len(targets)
            target, each = targets[index], folders[index]
            length = next(seconds for most, seconds in TURNS.items() if target.cost < most)
            stop = time.process_time() + length
            while time.process_time() < stop and counts.total() < args.inputs:
                number = counts[target.name]
                state[:] = _STATE.pack(index, number)
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                drawn = each.input(f"{args.seed}:{target.name}:{number}")
                answer = each.problem(*drawn)
                signal.setitimer(signal.ITIMER_PROF, 0)
                counts[target.name] += 1
                peak = _peak()
                if peak > start + GIB + (4 << 20):
                    answer = f"memory: {(peak - start) >> 20} MiB; {answer}"
                if answer:
                    _note(args.out, target.name, number, answer, drawn)
                if peak > start + GIB:
                    break
            (args.out / "counts.json").write_text(json.dumps(counts))
            if counts.total() >= args.inputs or time.monotonic() > end:
                return 0
            if peak > start + GIB or _memory()[1] > start + RESTART:
                return 3
    raise AssertionError("turns do not end")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _memory() -> tuple[int, int]:
    """Return the bytes of address space and of memory that this process has."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[0]) * mmap.PAGESIZE, int(pages[1]) * mmap.PAGESIZE


def _note(out: Path, name: str, number: int, answer: str, drawn: tuple[int, str, bytes]) -> None:
    """Keep the first input of each kind of finding: `.txt` says what, `.bin` is the file."""
    kind = answer.removeprefix("no name of the file: ").partition(": ")[0]
    safe = "".join(letter if letter.isalnum() else "-" for letter in f"{name} {kind}")[:150]
    file = out / "findings" / f"{safe}.txt"
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        place, edited, content = drawn
        file.with_suffix(".bin").write_bytes(content)
        file.write_text(f"{name}\n{place}\n{edited}\n{number}\n{answer}\n")


def again(out: Path) -> int:
    """Read what went wrong again; what is answered now is removed."""
    signal.signal(signal.SIGPROF, _stop)
    wrong = 0
    for file in sorted((out / "findings").glob("*.txt")):
        name, place, edited, number, before = file.read_text().split("\n", 4)
        [target] = _targets([name])
        with TemporaryDirectory() as folder:
            files = _folder(folder, target)
            start = _peak()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answer = files.problem(int(place), edited, file.with_suffix(".bin").read_bytes())
            signal.setitimer(signal.ITIMER_PROF, 0)
        if _peak() > start + GIB:
            answer = f"memory: {(_peak() - start) >> 20} MiB; {answer}"
        print(f"{name}:{number} {answer or 'is answered now'}  (was: {before[:100].strip()})")
        wrong += bool(answer)
        if not answer:
            file.unlink()
            file.with_suffix(".bin").unlink()
    return 1 if wrong else 0


def _stop(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def guided(name: str, out: Path, further: list[str]) -> int:
    """Let atheris look for new paths through a reader; it ends at the first finding."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (Linux and macOS)")
    rooms = ["data", "estimators", "evaluation", "models", "photos", "utils"]
    with atheris.instrument_imports(include=rooms):
        from tests.fuzz.check import Folder
        from tests.fuzz.edits import drawn, edited
        from tests.fuzz.targets import TARGETS
    logging.disable()
    [target] = [target for target in TARGETS if target.name == name]
    corpus = out / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        files = Folder(Path(folder), target)
        names = [next(iter(each)) for each in files.corpus]
        for place, each in enumerate(files.corpus):  # the first byte says which folder
            (corpus / f"{place}").write_bytes(bytes([place]) + each[names[place]])

        def read(data: bytes) -> None:
            place = data[0] % len(names) if data else 0
            answer = files.problem(place, names[place], data[1:])
            if answer:
                raise AssertionError(answer)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            others = files.others(names[data[0] % len(names)]) if data else []
            return data[:1] + edited(data[1:], drawn(random.Random(seed)), others)[: most - 1]

        atheris.Setup([sys.argv[0], str(corpus), *further], read, custom_mutator=mutate)
        atheris.Fuzz()
    return 0


def _stored(file: Path) -> dict[str, int]:
    return json.loads(file.read_text()) if file.exists() else {}


def _targets(names: list[str]) -> list:
    from tests.fuzz.targets import TARGETS

    return [target for target in TARGETS if not names or target.name in names]


def _folder(place: str, target: object) -> Any:
    from tests.fuzz.check import Folder

    return Folder(Path(place), target)


if __name__ == "__main__":
    sys.exit(main())
