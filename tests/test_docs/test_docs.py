"""The pages of docs/ and the README: links, commands and names are those of this code."""

import ast
import importlib
import inspect
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from evaluation.metrics.protocols import PROTOCOLS, SWITCHES
from tests.measure import ROOMS
from training.branch import TrainedBranch
from training.checkpoints import RunFiles
from utils.config import TrainConfig, load_config, override, parse_method
from utils.methods import available, check_options, find

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("README.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*")
# names of the original, which docs/migrating.md sets against ours
THEIRS = {"verification_risk_acc.py"}


def text_of(page):
    return page.read_text(encoding="utf-8")


def section(page, heading):
    """The part of a page of docs/ below a heading."""
    text = text_of(ROOT / "docs" / page)
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def blocks(text):
    """(language, file to write or "", content) of each fenced block."""
    return FENCE.findall(text)


def examples(text, language="python"):
    """What the fenced blocks of a language hold that are no files to write."""
    return [content for found, title, content in blocks(text) if found == language and not title]


def titled(text):
    """(file to write, its content) of a text with one such block."""
    ((_, title, content),) = [block for block in blocks(text) if block[1]]
    return title, content


def execute(example, names=None):
    """The names that an example defines, beside those given."""
    names = {"__name__": "example"} if names is None else names
    exec(compile(example, "example", "exec"), names)
    return names


def written_by_pages():
    return {title for page in PAGES for _, title, _ in blocks(text_of(page)) if title}


def commands(page):
    """Every command `python FILE ...` of a page, in blocks and in the text, as lists of words."""
    fenced = [content for language, _, content in blocks(text_of(page)) if language != "python"]
    prose = FENCE.sub("", text_of(page))
    indented = re.findall(r"^ {4,}(python .*(?:\\\n.*)*)", prose, re.MULTILINE)
    lines = [line for content in fenced for line in content.replace("\\\n", " ").splitlines()]
    lines += [line.replace("\\\n", " ") for line in indented]
    lines += re.findall(r"`(python [^`]*)`", prose)
    for line in lines:
        if re.match(r"(\S*/)?python3? \S+\.py\b", line.strip()):
            yield shlex.split(line, comments=True)[1:]


COMMANDS = [
    pytest.param(page, words, id=f"{page.stem}: {' '.join(words)[:70]}")
    for page in PAGES
    for words in commands(page)
]


def slug(heading):
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def test_there_are_pages_and_commands():
    index = text_of(ROOT / "docs" / "index.md")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    prose = FENCE.sub("", text_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(there)), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    prose = FENCE.sub("", text_of(page))
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|md|txt)|\w+\.py)`", prose)
    known = written_by_pages() | THEIRS
    beside = {path.name for package in ROOMS for path in (ROOT / package).rglob("*.py")}
    for name in named:
        exists = (ROOT / name).exists() or ("/" not in name and name in beside)
        assert exists or name in known | {"config.py"}, f"{page.name} names {name}"


@pytest.fixture(scope="module")
def help_of():
    """Text of a script's --help, without starting a process for each."""
    found = {}

    def read(script, capsys):
        if script not in found:
            module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
            with pytest.raises(SystemExit):
                module.main(["--help"])
            found[script] = capsys.readouterr().out
        return found[script]

    return read


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_commands_exist_with_their_flags(page, words, help_of, capsys):
    script, *arguments = words
    assert (ROOT / script).is_file(), f"{page.name}: no {script}"
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    known = set(FLAG.findall(help_of(script, capsys)))
    assert flags <= known, f"{page.name}: {script} has no {flags - known}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    targets = re.findall(r"^(\w+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    named = re.findall(r"(?:`|^)make (\w+)", text_of(page), re.MULTILINE)
    assert set(named) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_named_in_the_text_exist(page, help_of, capsys):
    scripts = {param.values[1][0] for param in COMMANDS}
    known = {flag for script in scripts for flag in FLAG.findall(help_of(script, capsys))}
    named = {
        flag
        for span in re.findall(r"`((?:--|python \S+\.py)[^`\n]*)`", FENCE.sub("", text_of(page)))
        for flag in FLAG.findall(span)
    }
    assert named <= known, f"{page.name} names {named - known}"


@pytest.mark.parametrize(
    ("page", "words"), [param for param in COMMANDS if "--config_file" in param.values[1]]
)
def test_config_files_and_overrides_of_commands_are_valid(page, words):
    name = words[words.index("--config_file") + 1] if words[-1] != "--config_file" else ""
    if not name.endswith(".py") or name in written_by_pages():
        return
    config = load_config(ROOT / name)
    if "--set" in words:
        rest = words[words.index("--set") + 1 :]
        override(config, [word for word in rest if "=" in word and not word.startswith("--")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_methods_written_in_the_text_can_be_built(page):
    found = re.findall(r'(backbone|head|loss)?=?Method\((["\w][^`\n]*?)\)`', text_of(page))
    packages = {"backbone": "models.backbones", "head": "models.heads", "loss": "losses"}
    for field, inside in found:
        name, _, options = inside.partition(",")
        method = parse_method(f"{name.strip(chr(34))}:{options}")
        check_options(packages.get(field) or "models.backbones", method)


def test_methods_page_has_every_method_with_its_options():
    page = text_of(ROOT / "docs" / "methods.md")
    for package in ("losses", "models.heads"):
        for name in available(package):
            assert f"`{name}`" in page, f"docs/methods.md does not mention {package}.{name}"
    for name in available("losses"):
        for option, parameter in inspect.signature(find("losses", name)).parameters.items():
            if parameter.kind is not parameter.KEYWORD_ONLY:  # no constructor of its own
                continue
            default = json.dumps(parameter.default).removesuffix(".0")
            row = re.search(rf"`{option}`[^\n]*{re.escape(default)}", page)
            assert row, f"docs/methods.md: losses.{name} has {option} = {default}"
    for name in available("models.heads"):
        options = set(inspect.signature(find("models.heads", name)).parameters)
        for option in options - {"output", "features_shape", "embedding_size", "stages_size"}:
            assert f"`{option}`" in page, f"docs/methods.md: models.heads.{name} has {option}"


FITTED = {"ensemble", "laplace", "typicality", "froq"}
TRAINED_OR_STORED = {"onnx", "trained_head", "from_file", "fusion", "mc_dropout"}  # on other pages


@pytest.mark.parametrize("name", sorted(set(available("estimators")) - TRAINED_OR_STORED))
def test_methods_page_has_every_score_without_a_head_of_its_own_with_its_options(name):
    title = "Model uncertainty and typicality" if name in FITTED else "Training-free scores"
    page = section("methods.md", title)
    assert re.search(rf"^(#+ |\| )`{name}`", page, re.MULTILINE)
    options = dict(inspect.signature(find("estimators", name)).parameters)
    for option, parameter in options.items():
        if option in ("frozen", "head", "backbone_sha256"):  # the program sets them
            continue
        if parameter.default is parameter.empty:
            assert f"`{option}`" in page, option
            continue
        default = str(parameter.default).removeprefix("0").removesuffix(".0") or "0"
        assert re.search(rf"`{option}`[\s(`\"]+{re.escape(default)}\b", page), (option, default)


def test_protocols_page_has_every_protocol_and_switch():
    page = text_of(ROOT / "docs" / "evaluate.md")
    for name, protocol in PROTOCOLS.items():
        row = re.search(rf"^\| `{name}`.*", page, re.MULTILINE)
        assert row, f"docs/evaluate.md has no protocol {name}"
        for switch in ("threshold", "rule", "read_at", "discard_over", "fuse", "ties", "grid"):
            assert f"`{getattr(protocol, switch)}`" in row[0], f"{name}: {switch}"
        for switch in ("area", "area_ends", "subtract", "divide"):
            assert f"`{getattr(protocol, switch)}`" in page, f"{name}: {switch}"
    for switch, values in SWITCHES.items():
        for value in values:
            assert re.search(rf"^\| `{switch}` .*`{value}`", page, re.MULTILINE), (
                f"{switch} {value}"
            )


def test_migrating_page_names_only_fields_that_exist_and_all_required_ones():
    page = text_of(ROOT / "docs" / "migrating.md")
    for field in fields(TrainConfig):
        if field.name != "verification" and field.name != "device":
            assert re.search(rf"\b{field.name}\b", page), f"docs/migrating.md lacks {field.name}"


def test_formats_page_has_every_key_of_a_checkpoint():
    page = text_of(ROOT / "docs" / "formats.md")
    trees = [ast.parse(inspect.getsource(kind)) for kind in (RunFiles, TrainedBranch)]
    dicts = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    keys = [key.value for node in dicts for key in node.keys if isinstance(key, ast.Constant)]
    keys.remove("param_groups")  # inside the optimizer's
    assert {"config", "head", "step", "branches"} <= set(keys)
    for key in keys:
        assert f"`{key}`" in page, f"docs/formats.md does not mention the checkpoint's {key}"


def test_titled_blocks_are_methods_of_their_own():
    for title in written_by_pages():
        assert not (ROOT / title).exists(), f"the example {title} hides a file of ours"
