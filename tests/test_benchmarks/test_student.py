"""The benchmark of students counts what runs, and reads areas where compare.py writes them."""

import json
from pathlib import Path

import pytest
import torch

from models.heads.student import StudentHead

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def folders(tmp_path):
    """Two untrained runs on a tiny backbone: a student with a hint, and a head as teacher."""
    import network
    from models.backbones.iresnet import IResNet

    torch.manual_seed(0)
    small = {"layers": (1, 1, 1, 1), "widths": (4, 4, 8, 8)}
    torch.save(IResNet(**small).state_dict(), tmp_path / "backbone.pth")
    (tmp_path / "both.py").write_text(
        f"""
from utils.config import Branch, Method, Schedule, TrainConfig
config = TrainConfig(
    name="both", backbone=Method("iresnet", **{small!r}),
    backbone_weights={str(tmp_path / "backbone.pth")!r},
    branches=(
        Branch("teacher", head=Method("linear", output="probability"), loss=Method("idq")),
        Branch("student", head=Method("student", output="probability", size=32, hint=1.0),
               loss=Method("distill"), teacher="teacher"),
    ),
    train_images="synthetic:identities=4,images=2", classes_per_batch=2, images_per_class=2,
    schedule=Schedule(epochs=1, steps_per_epoch=1), workers=1, device="cpu",
)
"""
    )
    arguments = ["--config_file", str(tmp_path / "both.py"), "--model_dir", str(tmp_path / "run")]
    assert network.main(arguments) == 0
    return tmp_path / "run"


def test_size_speed_and_quality(folders, tmp_path, monkeypatch, capsys, refused):
    from benchmarks import student

    def compared(arguments):
        folder = Path(arguments[arguments.index("--out") + 1])
        rows = [
            {"method": name, "fmr": 1e-3, "relative": area}
            for name, area in (("student", 0.3), ("teacher", 0.2), ("other", 0.5))
        ]
        (folder / "compare.json").write_text(json.dumps({"rows": rows}))
        return 0

    monkeypatch.setattr(student.comparison, "main", compared)
    command = ["--student", str(folders / "student"), "--teacher", str(folders / "teacher")]
    command += ["--faces", "x", "--scores", "other=y.csv", "--runs", "2"]
    assert student.main([*command, "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["rows"]
    alone = found["size_and_speed"][0]
    plain = StudentHead(output="probability", size=32)
    assert alone["parameters"] == sum(one.numel() for one in plain.parameters()) < 500_000
    macs = []  # by hand: positions of each convolution's output times what each costs
    for module in plain.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda conv, _, out: macs.append(out[0, 0].numel() * conv.weight.numel())
            )
    from export.graph import images_alone

    plain.eval()(images_alone(torch.zeros(1, 112, 112, 3, dtype=torch.uint8)))
    shrinking = 3 * (32 * 112 * 112 + 32 * 112 * 32)
    assert alone["M multiply-adds"] == pytest.approx((sum(macs) + shrinking + 256) / 1e6, rel=1e-6)
    assert [row["of the teacher's"] for row in found["quality"]] == pytest.approx([1.5, 1.0, 2.5])
    assert "| student |" in capsys.readouterr().out
    swapped = ["--student", str(folders / "teacher"), "--teacher", str(folders / "student")]
    refused(student.main(swapped), "its head needs a backbone; take a student's")
