"""Opening an exported model: facts are read, and files of others are refused with a reason."""

import re

import numpy as np
import pytest

from estimators.base import DIRECTION, Batch
from estimators.onnx import KIND, OnnxModel, metadata
from utils.onnx_runtime import needed

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FACTS = metadata({"model": "m.pt", "license": "MIT"}, {"version": 1}, {"rule": "r"})


def write(path, facts, *, source="images", size=112, output="uncertainty", domain="", batch="N"):
    """Write a network that takes the mean of an image."""
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = [batch, size, size, 3]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [source], ["float"], to=kinds.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], [output], keepdims=0, domain=domain),
        ],
        "mean",
        [helper.make_tensor_value_info(source, kinds.UINT8, shape)],
        [helper.make_tensor_value_info(output, kinds.FLOAT, [batch])],
        [helper.make_tensor("axes", kinds.INT64, [3], [1, 2, 3])],
    )
    opsets = [helper.make_opsetid("", 20)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, facts)
    onnx.save(model, path)
    return path


def test_facts_and_numbers_come_out(tmp_path):
    estimator = OnnxModel(write(tmp_path / "m.onnx", FACTS), 1)
    assert estimator.calibration == {"version": 1}
    assert estimator.decision == {"rule": "r"}
    assert estimator.about == {"model": "m.pt", "license": "MIT", "direction": DIRECTION}
    assert estimator.embedding_size == 0
    assert (estimator.name, estimator.outputs) == ("m.onnx", ("uncertainty",))
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    mu, sigma_sq = estimator(Batch(images[:, ::-1]))  # not contiguous
    assert mu.shape == (5, 0)
    assert mu.dtype == np.float32
    np.testing.assert_allclose(sigma_sq, images.mean((1, 2, 3))[:, None], rtol=1e-5)


def test_calibration_and_decision_may_be_missing(tmp_path):
    path = write(tmp_path / "m.onnx", metadata({}, None, None))
    model = OnnxModel(path)
    assert (model.calibration, model.decision) == (None, None)
    assert model.about == {"direction": DIRECTION}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"facts": {}}, "is an ONNX file of another tool (its metadata has kind None, not "),
        ({"facts": {**FACTS, "version": "2"}}, "version '2' of an exported model is not known (k"),
        ({"facts": {**FACTS, "about": "{"}}, "its metadata is damaged: Expecting"),
        ({"facts": {**FACTS, "decision": "[]"}}, "its metadata is damaged: a fact is not a JSON"),
        ({"facts": {"kind": KIND, "version": "1"}}, f"direction None must be {DIRECTION!r}"),
        ({"facts": {**FACTS, "about": '{"direction": "quality"}'}}, "direction 'quality' must be"),
        ({"source": "input"}, "expected images, uint8 (N, 112, 112, 3), N free"),
        ({"size": 96}, "expected images, uint8 (N, 112, 112, 3), N free"),
        ({"batch": 2}, "expected images, uint8 (N, 112, 112, 3), N free"),
        ({"output": "score"}, "outputs score: expected uncertainty and others of embedding"),
        ({"domain": "org.example"}, "cannot be opened as an ONNX model"),
    ],
)
def test_files_of_others_are_refused(changed, message, tmp_path):
    path = write(tmp_path / "m.onnx", **{"facts": FACTS, **changed})
    with pytest.raises(ValueError, match=rf"m\.onnx.*{re.escape(message)}"):
        OnnxModel(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"no file .*m\.onnx: export/export\.py writes one"):
        OnnxModel(path)
    path.write_bytes(b"no network at all")
    with pytest.raises(ValueError, match=r"m\.onnx cannot be opened as an ONNX model: "):
        OnnxModel(path)


@pytest.mark.parametrize("shape", [(1, 3, 112, 112), (1, 96, 96, 3)])
def test_other_images_are_refused(shape, tmp_path):
    estimator = OnnxModel(write(tmp_path / "m.onnx", FACTS))
    with pytest.raises(ValueError, match=r"expected uint8 \(B, 112, 112, 3\)"):
        estimator(Batch(np.zeros(shape, np.uint8)))
    with pytest.raises(ValueError, match="and type float32: expected uint8"):
        estimator(Batch(np.zeros((1, 112, 112, 3), np.float32)))


def test_a_missing_package_is_named():
    with pytest.raises(ValueError, match="nowhere_to_be_found is missing .*: pip install onnx "):
        needed("nowhere_to_be_found.part")
