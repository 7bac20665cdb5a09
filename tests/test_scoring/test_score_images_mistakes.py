"""score_images with the real model: what is wrong is told at once, in one line."""

import numpy as np
import pytest

from data.images import encode_png
from scoring import score_images


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model", "dmeo"], "no model dmeo (did you mean demo?): give a run folder"),
        (
            ["--model", "embedding_norm"],
            "(embedding_norm needs backbone_name and backbone_weights)",
        ),
        (["--model", "demo", "--detector", "mtcn"], "did you mean 'mtcnn'?"),
        (["--model", "demo", "--report", "{file}/sheet.html"], "sheet.html: cannot be written"),
        (["--model", "demo", "--out", "{file}/rows.csv"], "rows.csv: cannot be written there"),
    ],
)
def test_mistakes_are_told_before_any_photo_is_scored(flags, told, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode_png(np.zeros((112, 112, 3), np.uint8)))
    filled = [flag.format(file=photo) for flag in flags]
    assert score_images.main([str(photo), *filled]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.out == ""
    assert printed.err.count("\n") == 1
