"""Nothing in the tree runs what a file holds, or lets it write HTML; packages are pinned."""

import ast
import builtins
import re
from pathlib import Path

import pytest

from tests.measure import ROOMS

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "evaluates": r"(builtins\.)?(eval|exec|compile|__import__)|(runpy|code)\..*",
    "imports": r"importlib\.(import_module|util|machinery).*",
    "pickles": r"(_?pickle|dill|cloudpickle|joblib|marshal|shelve|copyreg)(\..*)?|.*read_pickle",
    "starts": r"(subprocess|pty)(\..*)?|os\.(system|popen|exec|spawn|posix_spawn|startfile).*",
    "loads": r"torch\.(jit\.load|hub|package|utils\.cpp_extension).*|(ctypes|cffi)(\..*)?"
    r"|.*\.(register_custom_ops_library|load_library)",
    "parses": r"(yaml|xml|lxml)(\..*)?",
    "unpacks": r".*\.(extractall|unpack_archive)|tarfile(\..*)?",
    "maps": r"mmap(\..*)?|numpy\.(memmap|.*open_memmap)",  # a file that is cut ends the process
    "guesses": r"tempfile\.mktemp",
    "connects": r"(socket|ssl|http|urllib\.request|ftplib|smtplib|requests|httpx|aiohttp)(\..*)?",
    "unescaped": r"jinja2\.(.*\.)?(Template|SandboxedEnvironment)",
}
TAG = r"</?(html|body|div|span|p|a|t[dhr]|table|h\d|script|style|img|svg|li|br|b|i)\b[^<]*>"
SAFE = {"weights_only": True, "autoescape": True, "allow_pickle": False, "shell": False}
SAFE |= {"mmap_mode": None, "memory_map": False, "mmap": False}
NEEDED = {"torch.load": "weights_only", "jinja2.Environment": "autoescape"}
REASONS = {
    "benchmarks/": {
        "starts": "measure our own commands",
        "maps": "a gallery larger than memory, in a file that the script wrote itself",
    },
    "data/safe_pickle.py": {"pickles": "is the unpickler that imports and calls nothing of a file"},
    "data/verification.py": {"pickles": "writes .bin sets, which are pickles"},
    "demo/train_model.py": {"starts": "runs our own commands"},
    "face_uncertainty.py": {"imports": "names of a table in this file"},
    "data/images.py": {"imports": "Pillow's plugins, by a list in this file"},
    "report/figures.py": {
        "Markup": "an SVG by matplotlib, which escapes every text",
        "html": "the SVG's first line, with an escaped title",
    },
    "report/page.py": {"Markup": "a script of this checkout, which the page knows by its hash"},
    "scoring/ray_engine.py": {
        "pickles": "what the job sends to its own workers, never a file",
        "connects": "asks whether the cluster of --ray_address is there",
    },
    "utils/config.py": {"evaluates": "a config file is Python of its user (SECURITY.md)"},
    "utils/device.py": {"loads": "the C library of this process, no file"},
    "utils/methods.py": {"imports": "files of our own folders, listed before"},
    "utils/onnx_runtime.py": {"imports": "optional packages, by names in our code"},
    "utils/run.py": {"starts": "git rev-parse, fixed words"},
}


def faults(text):
    """(line, rule) of everything in a file that a rule is against."""
    tree = ast.parse(text)
    known = {name: name for name in dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                top = name.name.partition(".")[0]
                known[name.asname or top] = name.name if name.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            known |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}

    def dotted(node):
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return known.get(node.id, "") if isinstance(node, ast.Name) else ""

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    fixed = {id(call.func) for call in calls if isinstance([*call.args, None][0], ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            rules = [rule for rule in NAMES if re.fullmatch(NAMES[rule], dotted(node))]
            rules = [rule for rule in rules if rule != "imports" or id(node) not in fixed]
            yield from ((node.lineno, rule) for rule in rules)
        elif isinstance(node, ast.Constant) and re.search(TAG, str(node.value)):
            yield node.lineno, "html"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            words = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            rules = [word for word in SAFE if word in words and words[word] is not SAFE[word]]
            rules += [NEEDED[name]] if name in NEEDED and NEEDED[name] not in words else []
            rules += ["Markup"] if name.endswith(".Markup") else []
            yield from ((node.lineno, rule) for rule in rules)


def test_nothing_runs_what_a_file_holds():
    folders = [ROOT / name for name in (*ROOMS, "benchmarks")]
    paths = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    unused = {(place, rule) for place, rules in REASONS.items() for rule in rules}
    wrong = []
    for path in paths:
        name, lines = path.relative_to(ROOT).as_posix(), path.read_text("utf-8").splitlines()
        for line, rule in faults("\n".join(lines)):
            excuses = {(place, rule) for place in REASONS if name.startswith(place)}
            excuses &= {(place, rule) for place in REASONS if rule in REASONS[place]}
            unused -= excuses
            if not excuses:
                wrong.append(f"{name}:{line}: {rule}: {lines[line - 1].strip()}")
    assert not wrong
    assert not unused
    assert len(paths) > 150


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("evaluates", "eval(x)"),
        ("evaluates", "import builtins as b\nb.exec(x)"),
        ("evaluates", "map(eval, x)"),
        ("imports", "from importlib import import_module as load\nload(x)"),
        ("pickles", "from pickle import loads as read\nread(x)"),
        ("pickles", "import pandas as pd\npd.read_pickle(x)"),
        ("starts", "import os\nos.system(x)"),
        ("loads", "import torch\ntorch.jit.load(x)"),
        ("parses", "import yaml\nyaml.load(x)"),
        ("unpacks", "import zipfile\nzipfile.ZipFile(x).extractall(y)"),
        ("maps", "from mmap import mmap as view\nview(x, 0)"),
        ("mmap_mode", "import numpy as np\nnp.load(x, mmap_mode='r')"),
        ("connects", "from urllib import request\nrequest.urlopen(x)"),
        ("shell", "run(x, shell=True)"),
        ("allow_pickle", "import numpy as np\nnp.load(x, allow_pickle=flag)"),
        ("weights_only", "import torch as t\nt.load(x)"),
        ("weights_only", "from torch import load\nload(x, weights_only=False)"),
        ("autoescape", "from jinja2 import Environment\nEnvironment()"),
        ("unescaped", "import jinja2\njinja2.Template(x)"),
        ("html", "page = f'<td class={x}>{y}</td>'"),
        ("Markup", "from markupsafe import Markup\nMarkup(x)"),
    ],
)
def test_the_search_finds(rule, text):
    assert rule in {name for _, name in faults(text)}


def test_templates_escape_everything():
    templates = [*(ROOT / "report" / "templates").glob("*.html")]
    assert templates
    for path in templates:
        unescaped = re.findall(r"\|\s*safe\b|autoescape|Markup", path.read_text("utf-8"))
        assert not unescaped, path.name


@pytest.mark.parametrize(
    ("lock", "sources"),
    [
        ("requirements.lock", ("requirements.txt", "requirements-ray.txt")),
        ("requirements-interop.lock", ("requirements-interop.txt",)),
    ],
)
def test_every_pin_but_pytorch_is_locked_by_hash(lock, sources):
    text = (ROOT / lock).read_text("utf-8")
    hashes = r"(?: \\\n +--hash=sha256:\w{64})+\n"
    locked = dict(re.findall(rf"^([\w-]+)==(\S+)[^\n\\]*{hashes}", text, re.MULTILINE))
    rest = re.sub(rf"^ *#.*\n|^\S+==[^\n\\]*{hashes}", "", text, flags=re.MULTILINE)
    assert not rest.strip(), "something else than pins with hashes"
    wanted = "\n".join((ROOT / name).read_text("utf-8") for name in sources).lower()
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", wanted, re.MULTILINE))
    pins.pop("torch", None)
    assert len(pins) > 3
    assert pins.items() <= locked.items(), "make lock"
    assert not [name for name in locked if re.match("torch|nvidia|cuda|triton", name)]


def test_actions_are_pinned_by_digest_and_may_only_read():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text("utf-8")
        uses = re.findall(r"uses: (.*)", text)
        assert uses
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", use) for use in uses), path.name
        assert re.search(r"^permissions:(\n  contents: read| \{\})$", text, re.MULTILINE), path.name
