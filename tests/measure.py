"""Size and shape of the product: prints a table, and fails where a structural limit is passed.

python tests/measure.py           # the table; `make test` runs it
python tests/measure.py --walks   # also the files that a photo and a .bin image pass

The limits are those of docs/design.md. Lines are printed and not limited, so that each later
capability knows its price.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    *("utils", "losses", "models", "data", "photos", "mc_dropout", "estimators", "evaluation"),
    *(
        "search",
        "report",
        "training",
        "scoring",
        "extraction",
        "export",
        "commands",
        "config",
        "demo",
    ),
)
MOST_PRIVATE, MOST_ANY, LARGEST_SHARE = 25, 120, 0.25
TRACER = """
import collections, json, os, runpy, sys, threading
root, out, script, *arguments = sys.argv[1:]
calls = collections.Counter()
def count(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_flags & 1 and not code.co_name.startswith("<"):
        calls[code.co_filename] += 1
sys.argv = [script, *arguments]
threading.setprofile(count)
sys.setprofile(count)
try:
    runpy.run_path(script, run_name="__main__")
finally:
    sys.setprofile(None)
    inside = {os.path.relpath(path, root): n for path, n in calls.items() if path.startswith(root)}
    open(out, "w").write(json.dumps(inside))
"""


@dataclass(frozen=True)
class Module:
    """One file of the product."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The folder at the top; "" for files that lie there."""
        return self.name.split(".")[0] if "." in self.name else ""

    @property
    def is_private(self) -> bool:
        """Whether the file's name begins with one underscore."""
        return self.path.name.startswith("_") and not self.path.name.startswith("__")


def product() -> list[Module]:
    """Read every Python file of the product; tests and benchmarks are not part of it."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    modules = []
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        modules.append(Module(name, path, ast.parse(text), len(text.splitlines())))
    return modules


def imports(module: Module, names: set[str]) -> Iterator[str]:
    """Modules of the product that a module imports, anywhere but under TYPE_CHECKING."""
    skipped = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in names:
                    yield full
                elif node.module in names:
                    yield node.module


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the first again as the last; or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])[::-1]
    return []


def foreign_privates(modules: list[Module], graph: dict[str, set[str]]) -> list[str]:
    """Imports of a private module from another folder."""
    folder = {module.name: module.path.parent for module in modules}
    private = {module.name for module in modules if module.is_private}
    return sorted(
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others & private
        if folder[name] != folder[other]
    )


def outside_layers(graph: dict[str, set[str]]) -> list[str]:
    """Modules of rooms with scripts that the contract of layers does not name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    named = {name for layer in contract["layers"] for name in re.split(r" [|:] ", layer)}
    split = {name.partition(".")[0] for name in named if "." in name}
    return sorted(
        f"{name} is in no layer of pyproject.toml"
        for name, imported in graph.items()
        if imported and name.count(".") and name.partition(".")[0] in split
        if ".".join(name.split(".")[:2]) not in named
    )


def count_any(module: Module) -> int:
    """Uses of `Any`, imports apart."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(module.tree))


def called_files(*command: str) -> dict[str, int]:
    """Calls per file of the product while a script runs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "calls.json"
        subprocess.run(
            [sys.executable, "-c", TRACER, str(ROOT), str(out), *command],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        own = {str(module.path.relative_to(ROOT)) for module in product()}
        calls = json.loads(out.read_text())  # a virtual environment may lie in the checkout too
        return {path: count for path, count in calls.items() if path in own}


def photo_walk(folder: Path) -> list[str]:
    """Files whose functions run for each further photo of `score_images`, and the script."""
    import cv2

    from data.synthetic import SyntheticFaces

    faces = SyntheticFaces(identities=4, images=1, seed=1)
    calls = []
    for count in (2, 4):
        photos = folder / f"photos{count}"
        photos.mkdir()
        for row in range(count):
            cv2.imwrite(str(photos / f"{row}.png"), faces.read(row)[..., ::-1])
        script, out = str(ROOT / "scoring" / "score_images.py"), str(folder / f"{count}.csv")
        calls.append(
            called_files(script, str(photos), "--model", "demo", "--batch_size", "1", "--out", out)
        )
    few, many = calls
    return ["scoring/score_images.py", *(path for path in many if many[path] > few.get(path, 0))]


def bin_walk(folder: Path) -> list[str]:
    """Files that run in `verification_risk_fnmr` on a `.bin` set, once the model is open."""
    from data.images import encode_png
    from data.synthetic import synthetic_verification
    from data.verification import write_bin

    pairs = synthetic_verification(20, 1)
    images = [encode_png(image) for image in pairs.decode(0, 2 * len(pairs.mated))]
    write_bin(folder / "own.bin", images, pairs.mated)
    script = str(ROOT / "evaluation" / "verification_risk_fnmr.py")
    source = ("--dataset_path", str(folder), "--target", "own")
    calls = called_files(script, "--model", "demo", *source)
    opening = folder / "opening.py"
    opening.write_text("from evaluation.open_model import open_model\nopen_model('demo')\n")
    opened = called_files(str(opening))
    return [path for path, count in calls.items() if count > opened.get(path, 0)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walks", action="store_true", help="trace a photo and a .bin image too")
    args = parser.parse_args(argv)
    modules = product()
    names = {module.name for module in modules}
    graph = {module.name: set(imports(module, names)) - {module.name} for module in modules}
    lines = sum(module.lines for module in modules)
    rooms = {room: sum(module.lines for module in modules if module.room == room) for room in ROOMS}
    largest = max(rooms, key=lambda room: rooms[room])
    private = [module.name for module in modules if module.is_private]
    loop, crossings = circle(graph), foreign_privates(modules, graph)
    uses_of_any = sum(map(count_any, modules))
    tests = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "tests").rglob("*.py")
    )
    rows = [
        ("lines of Python", f"{lines}", ""),
        *((f"  {room}/", f"{count}", f"{count / lines:.1%}") for room, count in rooms.items()),
        ("files", f"{len(modules)}", ""),
        ("private modules", f"{len(private)}", f"at most {MOST_PRIVATE}"),
        ("largest room", f"{largest} {rooms[largest] / lines:.1%}", f"at most {LARGEST_SHARE:.0%}"),
        ("import circles", "1 or more" if loop else "0", "0"),
        ("imports of a _module from another folder", f"{len(crossings)}", "0"),
        ("uses of Any", f"{uses_of_any}", f"at most {MOST_ANY}"),
        ("lines of tests", f"{tests}", ""),
        ("pages in docs/", f"{len(list((ROOT / 'docs').glob('*.md')))}", ""),
    ]
    if args.walks:
        sys.path.insert(0, str(ROOT))
        with tempfile.TemporaryDirectory() as folder:
            walks = {
                "files that a photo passes": photo_walk(Path(folder)),
                "files that a .bin image passes": bin_walk(Path(folder)),
            }
        rows += [(name, f"{len(paths)}", "") for name, paths in walks.items()]
    for name, value, limit in rows:
        sys.stdout.write(f"{name:<42}{value:>20}  {limit}\n")
    if args.walks:
        for name, paths in walks.items():
            sys.stdout.write(f"\n{name}:\n" + "".join(f"  {path}\n" for path in paths))
    problems = [f"circle: {' -> '.join(loop)}"] * bool(loop) + crossings
    problems += outside_layers(graph)
    if len(private) > MOST_PRIVATE:
        problems.append(f"{len(private)} private modules: {', '.join(private)}")
    if rooms[largest] > LARGEST_SHARE * lines:
        problems.append(f"{largest}/ has more than {LARGEST_SHARE:.0%} of all lines")
    if uses_of_any > MOST_ANY:
        problems.append(f"{uses_of_any} uses of Any")
    for problem in problems:
        sys.stderr.write(f"limit: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
