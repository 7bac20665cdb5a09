"""The commands run, what they printed and wrote as lines, and these compared with a golden file."""

import csv
import json
import math
import os
import re
import sys
from difflib import SequenceMatcher

import numpy as np
import pytest

from tests.helpers import GOLDEN, ROOT, python

WRITE = bool(os.environ.get("FACEUQ_WRITE_GOLDEN"))

# not the digits of names such as fmr100, SHA-256 and iso29794
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
HASH = re.compile(r"\b[0-9a-f]{12,64}\b")
TOLERANCE = 2e-3  # relative and absolute, of what a network computed
STORED = 1e-5  # of what was computed from stored numbers, in files that hold all digits
SEED_LINES = ("---", "sigma_sq ", "reject_factor ", "AUERC", "AUC")


def command(cwd, script, *arguments):
    """Run a command as a user does, on the CPU; what it prints."""
    done = python(ROOT / script, *arguments, cwd=cwd, CUDA_VISIBLE_DEVICES="", PYTHONPATH="")
    assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ------------------------------------------------------------------------------------ description


def block(text):
    """Return the original's lines word by word; of the others the numbers."""
    text = re.sub(r"\[[^\]|]*\]", lambda found: " ".join(found[0].split()), text)  # NumPy wraps
    return [
        line if line.startswith(SEED_LINES) else f"# {values}"
        for line in text.splitlines()
        if (values := numbers(line)) or line.startswith(SEED_LINES)
    ]


def numbers(line):
    """Return the numbers of a line; none of lines that name a file or are prose with numbers."""
    if line.startswith(("wrote ", "protocol ")) or "larger = less reliable" in line:
        return ""
    return " ".join(NUMBER.findall(HASH.sub("", line)))


def text_lines(text):
    return [values for line in text.splitlines() if (values := numbers(line))]


def log_lines(text):
    text = re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"mem [\d.]+ G", "mem MEM G", text)
    text = re.sub(r"\[[^\]|]*\]", lambda found: " ".join(found[0].split()), text)
    return [line for line in text.splitlines() if "run folder:" not in line]


def value(found):
    """Return one value of a file; of sentences only that there are some."""
    if isinstance(found, float):
        return f"{found:.7g}" if math.isfinite(found) else str(found)
    if isinstance(found, str):
        found = HASH.sub("HASH", found.replace(str(ROOT), "ROOT"))
        return "(words)" if " " in found else repr(found)
    return json.dumps(found)


def flat(found, path="", masked=()):
    """Return one line for each value in JSON, by key; long lists by length, ends and mean."""
    name = path.rsplit(".", 1)[-1]
    if name in masked:
        inside = ", ".join(sorted(found)) if isinstance(found, dict) else ""
        return [f"{path}: (masked) {inside}".rstrip()]
    if isinstance(found, dict) and found:
        return [line for key in sorted(found) for line in flat(found[key], f"{path}.{key}", masked)]
    if isinstance(found, list) and len(found) > 8 and isinstance(found[0], int | float):
        kept = [entry for entry in found if entry is not None]
        ends = [found[0], found[1], found[-1], float(np.mean(kept))]
        return [f"{path}: {len(found)} numbers: {' '.join(map(value, ends))}"]
    if isinstance(found, list) and any(isinstance(entry, dict | list) for entry in found):
        lines = [f"{path}: {len(found)} entries"]
        for row, entry in enumerate(found[:2]):
            lines += flat(entry, f"{path}[{row}]", masked)
        return lines
    if isinstance(found, list):
        return [f"{path}: [{', '.join(map(value, found))}]"]
    return [f"{path}: {value(found)}"]


def keys(found, path=""):
    """Return the paths of all keys in JSON, whatever the values."""
    if isinstance(found, dict):
        inner = {key: str(key).replace(str(ROOT), "ROOT") for key in found}  # files are keys
        return {path} | {name for key in found for name in keys(found[key], f"{path}.{inner[key]}")}
    if isinstance(found, list):
        return {path} | {name for entry in found for name in keys(entry, f"{path}[]")}
    return {path}


def columns(path, words=()):
    """Return one line for each column of a CSV file; quality may be off by one."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    found = [f"{len(rows)} rows"]
    for name in rows[0]:
        shown = [row[name] for row in rows[:12]]
        if name in words:
            shown = ["(words)" if entry else "" for entry in shown]
        slack = " (off by 1)" if name == "quality" else ""
        found.append(f"{name}{slack}: {' | '.join(map(rounded, shown))}".rstrip())
    return found


def rounded(entry):
    return f"{float(entry):.7g}" if re.fullmatch(r"-?\d+\.\d{8,}", entry) else entry


def arrays(folder_or_npz):
    """Return name, type, shape and some values of all arrays of a file or folder."""
    if folder_or_npz.is_dir():
        found = {path.name: np.load(path) for path in sorted(folder_or_npz.glob("*.npy"))}
    else:
        with np.load(folder_or_npz) as file:
            found = {name: file[name] for name in sorted(file)}
    lines = []
    for name, array in found.items():
        numeric = array.dtype.kind != "U"
        shown = [str(entry) for entry in array.reshape(-1)[:4]]
        if numeric:
            shown.append(f"sum of sizes {np.abs(array.astype(np.float64)).sum():.6g}")
        lines.append(f"{name}: {array.dtype} {array.shape}: {' '.join(shown)}")
    return lines


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def parquet_columns(path):
    schema = pytest.importorskip("pyarrow.parquet").read_schema(path)
    names = sorted(key.decode() for key in schema.metadata or {})
    return [*(f"{field.name}: {field.type}" for field in schema), f"metadata: {names}"]


# ------------------------------------------------------------------------------------- comparison


def check(name, *, stored=False, **parts):
    """Compare the parts with the golden file, which WRITE writes.

    Args:
        name: The golden file.
        stored: No network was involved: printed lines are equal to the last digit.
        parts: Lists of lines.
    """
    path = GOLDEN / "commands" / f"{name}.txt"
    found = [line for part, lines in parts.items() for line in (f"=== {part}", *lines)]
    if WRITE:
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
    wanted = path.read_text(encoding="utf-8").splitlines()
    wrong, exact = [], False
    skeletons = [[NUMBER.sub("#", line) for line in lines] for lines in (wanted, found)]
    # lines that came or went are told as such, and not as a difference of all that follow
    aligned = SequenceMatcher(None, *skeletons, autojunk=False).get_opcodes()
    for _, start, stop, first, last in aligned:
        old, new = wanted[start:stop], found[first:last]
        if len(old) != len(new):
            wrong.append(f"{path.name}:{start + 1}\n  golden {old}\n  now    {new}")
            continue
        for line, (a, b) in enumerate(zip(old, new, strict=True), start + 1):
            if a.startswith("==="):
                exact = stored and a.startswith("=== printed")
            if a != b if exact else not close(a, b, STORED if stored else TOLERANCE):
                wrong.append(f"{path.name}:{line}\n  golden {a}\n  now    {b}")
    assert not wrong, "\n".join(wrong[:20])


def close(old, new, tolerance):
    """Whether words and whole numbers are the same and other numbers close."""
    if old == new:
        return True
    words = ["".join(NUMBER.sub("#", line).split()) for line in (old, new)]
    pairs = list(zip(NUMBER.findall(old), NUMBER.findall(new), strict=False))
    if words[0] != words[1]:
        return False
    # how many digits are printed is the original's format (NumPy's in an array)
    fixed = old.startswith(("TIME", *SEED_LINES)) and not old.startswith("sigma_sq ")
    for a, b in pairs:
        if fixed and len(a.partition(".")[2]) != len(b.partition(".")[2]):
            return False
        whole = "(off by 1)" not in old and re.fullmatch(r"[-+]?\d+", a + b.lstrip("+-"))
        least = 1 if "(off by 1)" in old else tolerance
        if a != b and (
            whole or not math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=least)
        ):
            return False
    return True


@pytest.fixture(scope="session")
def golden():
    """Return this file, for its functions."""
    return sys.modules[__name__]
