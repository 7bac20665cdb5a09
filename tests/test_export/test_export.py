"""The export: the file gives the product's numbers, is refused where not, and carries its facts."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from data.images import encode_png
from estimators.base import Batch, Estimate
from estimators.onnx import INPUT, OUTPUTS, OnnxModel, metadata
from estimators.trained_head import TrainedHead
from evaluation.confidence.calibration import NOT_COMPUTED, Calibration
from evaluation.open_model import LoadedModel, open_model
from export import onnx_export
from export.export import main
from export.graph import ExportedModel, PiecewiseLinear, _ChannelPReLU, images_alone, write_onnx
from export.onnx_export import FP32, INT8, Bounds, Difference, difference
from models.heads.base import Head
from models.heads.multi_layer import MultiLayerHead
from models.heads.student import StudentHead
from models.run import open_backbone
from scoring.scorer import load_scorer
from tests.helpers import TINY
from tests.test_docs.test_docs import examples, execute, section
from utils.config import Method
from utils.files import file_sha256
from utils.onnx_runtime import is_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CHECK = ["--check", "synthetic:pairs=20,seed=5", "--faces", "33", "--runs", "0"]


@pytest.fixture(scope="module")
def demo():
    return open_model("demo", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def exported(demo, tmp_path_factory):
    """The demo model's file and the report of its export."""
    out = tmp_path_factory.mktemp("export") / "deep" / "demo.onnx"
    said = []
    wanted = onnx_export.ExportOptions(model="demo", out=out, check=CHECK[1], faces=33, runs=1)
    onnx_export.export(wanted, said.append)
    return out, "".join(said)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_file_gives_what_the_product_gives(demo, exported, faces, size):
    found = OnnxModel(exported[0]).everything(faces[:size])
    mu, sigma_sq = demo.estimator(Batch(faces[:size]))
    np.testing.assert_allclose(found["embedding"], mu, atol=1e-5)
    np.testing.assert_allclose(found["uncertainty"], sigma_sq[:, 0], rtol=1e-5)
    own, calibration = found["uncertainty"], demo.calibration
    expected = {
        "quality": calibration.iso_quality(own),
        "percentile": calibration.percentile(own).astype(np.float32),
        "p_false_non_match": calibration.probability(own).astype(np.float32),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert [*found] == ["embedding", "uncertainty", *expected]
    kinds = [value.dtype.name for value in found.values()]
    assert kinds == ["float32", "float32", "uint8", "float32", "float32"]


def test_the_report_shows_parity_time_and_size(exported):
    out, said = exported
    assert said.startswith("model demo (SHA-256 ")
    assert (
        "ONNX Runtime against PyTorch, 33 faces of synthetic:pairs=20,seed=5, in batches of 1, 3, "
        "32:\n  embedding    cosine 1.0000000 or more, 1.0000000 in the mean\n"
    ) in said
    assert "rank correlation 1.000000\n" in said
    assert "  PyTorch " in said
    assert " in a batch of 32\n" in said
    assert said.endswith(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB\n")
    assert [path.name for path in out.parent.iterdir()] == ["demo.onnx"]


def test_the_file_alone_makes_a_scorer(demo, exported, faces):
    model = open_model(exported[0])
    assert model.calibration.to_dict() == demo.calibration.to_dict()
    assert model.decision == demo.decision
    assert model.provenance.to_dict() == {
        **demo.provenance.to_dict(),
        "name": "demo",
        "model": str(exported[0]),
        "sha256": file_sha256(exported[0]),
        "exported_from": demo.provenance.sha256,
        "head_sha256": demo.weights_sha256["head"],
    }
    assert "DEMO" in model.header()
    ours, theirs = load_scorer(exported[0])(faces), load_scorer("demo", device="cpu")(faces)
    np.testing.assert_allclose(ours.uncertainty, theirs.uncertainty, rtol=1e-5)
    np.testing.assert_array_equal(ours.quality, theirs.quality)
    assert [row.verdict for row in ours] == [row.verdict for row in theirs]


def test_nothing_of_the_maker_is_in_the_file(exported):
    proto = onnx.load(exported[0])
    content = proto.SerializeToString()
    for word in (b".py", b"/tmp", b"site-packages", b"torch.nn"):
        assert word not in content, word
    assert proto.doc_string.startswith("demo; DEMO")
    assert "larger = less reliable" in proto.doc_string
    assert {one.domain for one in proto.opset_import} <= {"", "ai.onnx"}


class Corner(Head):
    """A head that reads images and gives their first value, scaled to what overflows."""

    reads = "images"
    output = "variance"

    def forward(self, output):
        return output.images[:, 0, 0, :1].float() - 10


def test_what_is_not_finite_has_no_quality(demo, tmp_path):
    path = tmp_path / "corner.onnx"
    write_onnx(path, ExportedModel(None, Corner(), demo.calibration), metadata({}, None, None), "")
    images = np.zeros((4, 112, 112, 3), np.uint8)
    images[:, 0, 0, 0] = (0, 8, 30, 255)
    found = OnnxModel(path).everything(images)
    assert found["uncertainty"][3] == np.inf
    quality = demo.calibration.iso_quality(found["uncertainty"])
    np.testing.assert_array_equal(found["quality"], quality)
    assert found["quality"][3] == NOT_COMPUTED
    assert found["percentile"][3] == np.float32(demo.calibration.percentiles[-1])
    network = ExportedModel(None, Corner(), demo.calibration)
    nan = network._calibrated(torch.tensor([torch.nan], dtype=torch.float64))
    assert nan[0].item() == NOT_COMPUTED
    assert nan[1].isnan().all()
    assert nan[2].isnan().all()


def test_a_small_probability_keeps_its_digits(tmp_path):
    head, path = Corner(), tmp_path / "corner.onnx"
    head.output = "probability"
    write_onnx(path, ExportedModel(None, head, None), metadata({}, None, None), "")
    images = np.arange(30, dtype=np.uint8)[:, None, None, None] + np.zeros((112, 112, 3), np.uint8)
    logits = np.arange(30) - 10.0
    found = OnnxModel(path).everything(images)["uncertainty"]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-6)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9, unique=True),
    st.lists(st.floats(0, 1), min_size=9, max_size=9),
    st.lists(st.floats(-2e6, 2e6), max_size=9),
)
def test_maps_are_numpys_to_the_last_bit(knots, heights, values):
    at, height = np.sort(knots), np.sort(heights[: len(knots)])
    values = np.concatenate([values, at])
    with np.errstate(over="ignore"):
        assume(np.isfinite(np.diff(height) / np.diff(at)).all())  # not so for knots a hair apart
    found = PiecewiseLinear(at, height)(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(found, np.interp(values, at, height))


def test_prelus_are_replaced_by_their_equal():
    torch.manual_seed(1)
    prelu = nn.PReLU(5)
    slopes = torch.tensor([-0.5, 0.0, 0.25, 1.0, 3.0])
    prelu.weight.data = slopes
    maps = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(_ChannelPReLU(slopes)(maps), prelu(maps))


def test_a_file_of_other_numbers_is_refused(tmp_path, monkeypatch, capsys):
    honest = onnx_export.exported_network

    def changed(*arguments):
        network = honest(*arguments)
        with torch.no_grad():
            network.head.layer.weight.mul_(0.5)
        return network

    monkeypatch.setattr(onnx_export, "exported_network", changed)
    out = tmp_path / "model.onnx"
    out.write_bytes(b"an older one")
    assert main(["--model", "demo", "--out", str(out), *CHECK]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {out} is not written, its numbers differ too much: relative ")
    assert "(must be at most 0.001)" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.read_bytes() == b"an older one"


class Light(Corner):
    """A head that reads images: the logit of how bright they are."""

    output = "probability"

    def forward(self, output):
        return output.images.float().mean((1, 2, 3))[:, None] / 50 - 2


def test_a_head_that_reads_images_goes_alone(demo, tmp_path, faces, monkeypatch, capsys):
    frozen = demo.estimator.frozen
    model = LoadedModel(name="light", estimator=TrainedHead(frozen=frozen, head=Light()))
    monkeypatch.setattr(onnx_export, "open_model", lambda *_, **__: model)
    out = tmp_path / "small.onnx"
    assert main(["--model", "light.pt", "--out", str(out), "--quality_only", *CHECK]) == 0
    said = capsys.readouterr().out
    assert "no calibration, so no quality, percentile and p_false_non_match in the file\n" in said
    assert "no license is stated" in said
    assert "embedding" not in said
    assert out.stat().st_size < 10_000
    exported = OnnxModel(out)
    assert exported.outputs == ("uncertainty",)
    mu, sigma_sq = exported(Batch(faces))
    assert mu.shape == (7, 0)
    logits = faces.mean((1, 2, 3)) / 50 - 2
    np.testing.assert_allclose(sigma_sq[:, 0], 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_the_student_goes_alone(tmp_path, faces):
    torch.manual_seed(0)
    head = StudentHead(output="probability").eval()
    with torch.no_grad():
        head.layer.weight.mul_(1000)  # faces differ
    path = tmp_path / "student.onnx"
    write_onnx(path, ExportedModel(None, head, None), metadata({}, None, None), "")
    with torch.no_grad():
        wanted = head(images_alone(torch.from_numpy(faces))).sigmoid().numpy()
    _, sigma_sq = OnnxModel(path)(Batch(faces))
    np.testing.assert_allclose(sigma_sq, wanted, rtol=1e-4)
    assert len(np.unique(sigma_sq)) == 7


@pytest.mark.parametrize("weights", ["tiny_weights", "tiny_onnx"])
def test_a_head_that_reads_stages_goes_with_the_backbone(weights, tmp_path, faces, request):
    torch.manual_seed(0)
    path = request.getfixturevalue(weights)
    method = Method("onnx") if is_onnx(path) else TINY
    frozen = open_backbone(method, path, "cpu", "fp32")
    sizes = {"features_shape": (8, 7, 7), "stages_size": sum(frozen.give_stages())}
    head = MultiLayerHead(output="variance", hidden=8, **sizes).eval()
    with torch.no_grad():
        head.layers[1].weight[:, frozen.features_size :].mul_(100)
    path = tmp_path / "stages.onnx"
    write_onnx(path, ExportedModel(frozen.backbone, head, None), metadata({}, None, None), "")
    wanted, found = (
        each(Batch(faces)) for each in (TrainedHead(frozen=frozen, head=head), OnnxModel(path))
    )
    np.testing.assert_allclose(found.mu, wanted.mu, atol=1e-5)
    np.testing.assert_allclose(found.sigma_sq, wanted.sigma_sq, rtol=1e-4)
    assert len(np.unique(found.sigma_sq)) == 7


def test_8_bits(exported, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    ranges = ["--int8", "--calibration_faces", "synthetic:identities=8,images=4,seed=3"]
    assert main(["--model", "demo", "--out", str(out), *ranges, *CHECK]) == 0
    said = capsys.readouterr().out
    assert "8 bits against float32, the same faces:\n" in said
    assert "  float32  FNMR " in said
    assert "  8 bits   FNMR " in said
    whole, small = onnx.load(exported[0]), onnx.load(out)
    assert out.stat().st_size < exported[0].stat().st_size / 3
    assert small.doc_string == f"{whole.doc_string}; 8-bit backbone"
    facts = [{one.key: one.value for one in proto.metadata_props} for proto in (whole, small)]
    assert facts[0] == facts[1]
    kept = {one.name: one.data_type for one in small.graph.initializer}
    head = [name for name in kept if name.startswith("head.") and name.endswith("weight")]
    assert head
    assert all(kept[name] == onnx.TensorProto.FLOAT for name in head)
    quantised = [one for one in small.graph.initializer if one.name.endswith("weight_quantized")]
    assert "backbone.fc.weight_quantized" in kept
    for weights in quantised:  # 255 x 64 + 255 x 64 fits into 16 bits, on a CPU without VNNI too
        assert weights.data_type == onnx.TensorProto.INT8
        assert abs(onnx.numpy_helper.to_array(weights).astype(int)).max() <= 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "model.pt"], "--out model.pt: must end in .onnx"),
        (["--int8"], "--int8 and --calibration_faces SOURCE go together"),
        (["--faces", "8"], "--faces 8: must be at least 32"),
        (["--quality_only"], "reads the backbone's features; only a head that reads images"),
        (["--quality_only", "--int8", "--calibration_faces", "x"], "--int8 is for the backbone"),
    ],
)
def test_mistakes_are_one_line(flags, message, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    refused(main(["--model", "demo", "--out", "model.onnx", *flags]), message, alone=True)
    assert list(tmp_path.iterdir()) == []


def test_exported_files_and_scores_without_training_are_not_exported(exported, tmp_path, refused):
    code = main(["--model", str(exported[0]), "--out", str(tmp_path / "again.onnx")])
    refused(code, "it cannot be exported")


class Fake:
    """Stands in for an opened file: embeddings and uncertainties by the first pixel."""

    name = "fake"
    outputs = ("embedding", "uncertainty")

    def __init__(self, mu, uncertainty):
        self.mu, self.uncertainty = np.float32(mu), np.float32(uncertainty)
        self.sizes = []

    def everything(self, images):
        self.sizes.append(len(images))
        rows = images[:, 0, 0, 0]
        return {"embedding": self.mu[rows], "uncertainty": self.uncertainty[rows]}

    def __call__(self, batch):
        found = self.everything(batch.images)
        return Estimate(found["embedding"], found["uncertainty"][:, None])


def test_differences_are_the_largest_ones():
    images = np.zeros((40, 112, 112, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(40)
    mu = np.tile([3.0, 4.0], (40, 1))
    uncertainty = np.linspace(0.1, 0.9, 40)
    other_mu, other = mu.copy(), uncertainty.copy()
    other_mu[39] = (4.0, 3.0)  # seen in batches of 32 alone
    other[1] += 0.05
    file = Fake(other_mu, other)
    found = difference(Fake(mu, uncertainty), file, images, None)
    assert found.faces == 40
    assert found.cosine == pytest.approx(24 / 25)
    assert found.mean_cosine == pytest.approx(1 - (1 / 25) / (10 + 30 + 40))
    assert found.embedding == pytest.approx(1)
    assert found.uncertainty == pytest.approx(0.05)
    assert found.relative == pytest.approx(0.05 / uncertainty[1], rel=1e-5)
    assert found.rank_correlation == pytest.approx(spearmanr(uncertainty, other).statistic)
    assert found.equal_quality is found.maps is None
    assert file.sizes == [1] * 10 + [3] * 10 + [32, 8]


def test_bounds_name_what_they_do_not_allow():
    found = Difference(
        faces=40,
        cosine=0.5,
        mean_cosine=0.9,
        embedding=2.0,
        uncertainty=0.1,
        relative=0.2,
        rank_correlation=float("nan"),
        equal_quality=None,
        maps=None,
    )
    bounds = Bounds(mean_cosine=0.95, relative=0.1, rank_correlation=0.9, equal_quality=0.98)
    assert bounds.broken(found) == [
        "mean cosine 0.9 (must be at least 0.95)",
        "relative 0.2 (must be at most 0.1)",
        "rank correlation nan (must be at least 0.9)",
    ]
    whole = dataclasses.replace(found, mean_cosine=0.95, relative=0.1, rank_correlation=0.9)
    assert bounds.broken(whole) == []


def test_engines_are_timed_in_turn_without_the_first_round(monkeypatch):
    watch = SimpleNamespace(now=0.0)
    monkeypatch.setattr(onnx_export, "time", SimpleNamespace(perf_counter=lambda: watch.now))
    calls = []

    def engine(name, seconds):
        waits = iter(seconds)

        def run(batch):
            calls.append((name, len(batch)))
            watch.now += next(waits) * len(batch)

        return run

    sides = {"a": engine("a", [9, 1, 3, 2] * 2), "b": engine("b", [9, 5, 4, 6] * 2)}
    images = np.zeros((32, 112, 112, 3), np.uint8)
    found = onnx_export.latency(sides, images, runs=3)
    assert calls == [("a", 1), ("b", 1)] * 4 + [("a", 32), ("b", 32)] * 4
    assert found["a"] == pytest.approx({1: 2000, 32: 2000})
    assert found["b"] == pytest.approx({1: 5000, 32: 5000})


def test_a_calibrations_quality_is_compared(demo):
    """A file whose quality is one off for one face in 40 is seen."""
    images = np.zeros((40, 112, 112, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(40)
    uncertainty = np.linspace(0.01, 0.9, 40)
    calibration: Calibration = demo.calibration

    class Whole(Fake):
        outputs = ("embedding", "uncertainty", "quality", "percentile", "p_false_non_match")

        def everything(self, images):
            found = super().everything(images)
            own = found["uncertainty"]
            quality = calibration.iso_quality(own)
            quality[own == self.uncertainty[39]] += 1
            return {
                **found,
                "quality": quality,
                "percentile": calibration.percentile(own),
                "p_false_non_match": calibration.probability(own),
            }

    file = Whole(np.ones((40, 2)), uncertainty)
    found = difference(Fake(np.ones((40, 2)), uncertainty), file, images, calibration)
    assert found.equal_quality == 79 / 80
    assert found.maps == 1


def test_the_page_names_every_output_and_bound():
    page = section("ship.md", "Export a model")
    for name in (INPUT, *OUTPUTS):
        assert f"| `{name}`" in page, name
    for bound in (
        FP32.mean_cosine,
        FP32.relative,
        FP32.rank_correlation,
    ):
        assert f"{bound:g} " in page, bound
    assert f"| at least {INT8.mean_cosine} |" in page
    assert f"| at least {INT8.rank_correlation} |" in page
    assert f"at least {FP32.equal_quality:.0%}".replace("%", " %") in page


def test_the_pages_reader_runs(exported, faces, tmp_path, monkeypatch):
    (program,) = examples(section("ship.md", "Export a model"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(exported[0], "model.onnx")
    (tmp_path / "face.png").write_bytes(encode_png(faces[0]))
    names = execute(program)
    uncertainty, quality = names["found"]
    wanted = OnnxModel(exported[0]).everything(faces[:1])
    assert uncertainty == wanted["uncertainty"]
    assert quality == wanted["quality"]
    assert set(names["facts"]) == {"kind", "version", "about", "calibration", "decision"}
