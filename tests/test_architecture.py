"""Who may import whom, checked on the source: docs/design.md draws the same picture."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "utils": {"utils"},
    "losses": {"losses", "utils"},
    "models": {"models", "utils"},
    "data": {"data", "utils"},
    "evaluation": {"evaluation", "data", "models", "utils"},
    "mc_dropout": {"mc_dropout", "evaluation", "data", "models", "utils"},
    "training": {"training", "evaluation", "data", "models", "losses", "utils"},
    "demo": {"demo", "data", "models", "utils", "losses"},
}
OURS = set(MAY_IMPORT) | {"network", "config", "tests", "benchmarks"}
INSIDE_EVALUATION = {
    "metrics": {"metrics"},
    "confidence": {"confidence", "metrics"},
    "sets": {"sets", "metrics"},
}
SCRIPTS = {
    path.stem
    for path in (ROOT / "evaluation").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = set(imports(path)) & OURS - MAY_IMPORT[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("folder", INSIDE_EVALUATION)
def test_evaluation_has_layers(folder):
    for path in (ROOT / "evaluation" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = (getattr(node, "module", None) or "").split(".")
            if isinstance(node, ast.ImportFrom) and parts[0] == "evaluation":
                assert parts[1] in INSIDE_EVALUATION[folder], f"{path}: {node.module}"


def test_no_part_of_the_evaluation_imports_what_lies_above_it():
    """Parts do not import scripts, and the scorer is known to scripts and the export alone."""
    for path in (ROOT / "evaluation").glob("*/**/*.py"):
        part = path.relative_to(ROOT / "evaluation").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "module", None) or ""
            if not isinstance(node, ast.ImportFrom) or not name.startswith("evaluation."):
                continue
            assert name.split(".")[1] not in SCRIPTS, f"{path}: {name}"
            if name.startswith("evaluation.scoring") and part not in ("scoring", "exporting"):
                assert (part, name) == ("report", "evaluation.scoring.rows"), f"{path}: {name}"


@pytest.mark.parametrize("folder", ["metrics", "confidence"])
def test_statistics_need_numpy_and_scipy_alone(folder):
    allowed = set(sys.stdlib_module_names) | {"numpy", "scipy", "evaluation"}
    for path in (ROOT / "evaluation" / folder).glob("*.py"):
        assert set(imports(path)) <= allowed, path


def test_matplotlib_is_imported_by_reports_alone():
    users = {
        path.parent.relative_to(ROOT).as_posix()
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        if "matplotlib" in set(imports(path))
    }
    assert users == {"evaluation/report"}


def test_no_module_beside_a_script_hides_a_standard_one():
    folders = [ROOT, *(ROOT / package for package in MAY_IMPORT)]
    modules = {path.stem for folder in folders for path in folder.glob("*.py")} - {"__init__"}
    assert not modules & set(sys.stdlib_module_names)


def test_nothing_the_product_imports_is_torchvision_or_mxnet():
    for package in [*MAY_IMPORT, "config"]:
        for path in (ROOT / package).rglob("*.py"):
            assert not set(imports(path)) & {"torchvision", "mxnet"}, path


def test_configs_import_only_the_config_types():
    for path in (ROOT / "config").glob("*.py"):
        assert set(imports(path)) & OURS <= {"utils"}
