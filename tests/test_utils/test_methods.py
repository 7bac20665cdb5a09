import sys

import pytest

from utils.config import Method
from utils.methods import available, build, check_options, find


@pytest.mark.parametrize("package", ["losses", "models.heads", "models.backbones"])
def test_every_method_file_exports_exactly_one_class(package):
    names = available(package)
    assert names
    assert not [name for name in names if name.startswith("_") or name == "base"]
    for name in names:
        assert isinstance(find(package, name), type)


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        ("losses", "idp", r"unknown name 'idp' in losses; did you mean 'idq'\?"),
        ("losses", "zzz", "known: cr_fiqa, distill, dul, fast_mls, idq, mls, pcnet, scf, sdd_fiqa"),
        ("models.backbones", "r50", r"did you mean 'iresnet:depth=50'\?"),
        ("models.backbones", "iresnet100", r"did you mean 'iresnet:depth=100'\?"),
        ("nowhere", "idq", "'nowhere' is not a package of methods"),
    ],
)
def test_an_unknown_name_lists_the_known_ones_and_the_closest(package, name, message):
    with pytest.raises(ValueError, match=message):
        find(package, name)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes a package with one method file, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "foreign_methods"
    folder.mkdir()
    (folder / "__init__.py").write_text("CONTRACT = 'Base'")
    (folder / "base.py").write_text(BASE)

    def write(text):
        (folder / "mine.py").write_text(text)
        return folder.name

    yield write
    for name in [name for name in sys.modules if name.startswith("foreign_methods")]:
        del sys.modules[name]


BASE = """
from abc import ABC, abstractmethod
class Base(ABC):
    name: str
    size = 3
    @abstractmethod
    def stats(self): ...
"""
DERIVED = "from foreign_methods.base import Base\n__all__ = ['Mine']\nclass Mine(Base):"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine: ...", r"__all__ is missing or empty; it must name the file's one class"),
        ("__all__ = ['A', 'B']", "__all__ names A, B; it must name the file's one class"),
        ("__all__ = ['Mine']", "__all__ names 'Mine', which is not a class of the file"),
        ("import nothing_of_the_kind", "cannot be imported: No module named 'nothing_of"),
        ("class :", r"cannot be imported: invalid syntax \(mine.py, line 1\)"),
        ("__all__ = ['Mine']\nclass Mine: ...", "class Mine is not a subclass of Base"),
        (f"{DERIVED} name = 'mine'", "class Mine lacks stats"),
        (f"{DERIVED}\n    def stats(self): ...", "class Mine lacks name"),
    ],
)
def test_a_file_that_is_not_a_method_says_what_is_missing(package, text, message):
    with pytest.raises(ValueError, match=f"foreign_methods/mine.py:? {message}"):
        build(package(text), Method("mine"))


def test_build_passes_options_and_only_the_runtime_objects_that_are_named():
    loss = build("losses", Method("idq", scale=8.0), embedding_size=512)
    assert loss.scale == 8.0


def test_options_that_do_not_fit_are_refused(package):
    with pytest.raises(ValueError, match=r"losses\.idq: no option 's'; it takes \(.*scale"):
        check_options("losses", Method("idq", s=16))
    head = Method("fc2", output="probability", features_shape=(1, 1, 1))
    with pytest.raises(ValueError, match=r"'features_shape' is set by the program"):
        build("models.heads", head, features_shape=(512, 7, 7), embedding_size=512)
    name = package(f"{DERIVED}\n    def stats(self): ...\n    def __init__(self, *, path): ...")
    with pytest.raises(ValueError, match=r"foreign_methods\.mine needs path: give mine:path="):
        build(name, Method("mine"))
