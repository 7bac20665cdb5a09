"""A rewritten PRelu gives what the standard says, also before a pooling."""

import numpy as np
import pytest

from utils.onnx_prelu import rewrite_prelu

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
runtime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("channels", [1, 10, 16, 33])
@pytest.mark.parametrize("falling", [0, 3, 1000])
@pytest.mark.parametrize("pooled", [False, True])
def test_outputs_are_those_of_the_network_before(channels, falling, pooled):
    random = np.random.default_rng(channels)
    slopes = random.uniform(0, 1.5, channels)
    slopes[:falling] *= -1
    constants = {
        "first": random.normal(size=(channels, 3, 3, 3)),
        "bias": random.normal(size=channels),
        "slopes": slopes.reshape(1, -1, 1, 1),
        "second": random.normal(size=(5, channels, 3, 3)),
        "last": random.normal(size=5),  # of one axis: not of channels, and left alone
    }
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "first", "bias"], ["a"]),
        node("PRelu", ["a", "slopes"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Conv", ["c" if pooled else "b", "second"], ["d"], strides=[2, 2]),
        node("Transpose", ["d"], ["e"], perm=[0, 2, 3, 1]),
        node("PRelu", ["e", "last"], ["y"]),
    ]
    if not pooled:
        del nodes[2]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [tensor("x", 1, [1, 3, "h", "w"])],
        [tensor("y", 1, [1, "a", "b", 5])],
        [onnx.numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()],
    )
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    network.ir_version = 8
    picture = {"x": random.normal(size=(1, 3, 17, 22)).astype(np.float32)}
    (expected,) = reference.ReferenceEvaluator(network).run(None, picture)
    rewrite_prelu(network)
    left = [each.input[1] for each in network.graph.node if each.op_type == "PRelu"]
    assert left == ["last"]
    session = runtime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (ours,) = session.run(None, picture)
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
