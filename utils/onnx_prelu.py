"""Rewrite PRelu for ONNX Runtime, which has no kernel for it in its convolutions' blocked layout.

Each one between convolutions costs two changes of the layout. Written as convolutions of one weight
per channel it stays in the blocks, and small networks are two to three times as fast. Results
differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.onnx_runtime import Proto, needed

Weights = NDArray[np.float32]
_BLOCK = 16  # channels, the largest block of any CPU; numbers of channels that are no multiple cost


def rewrite_prelu(network: Proto) -> None:
    """Replace each PRelu that has a slope per channel, in place.

    With slope a, PRelu(x) = a x + (1 - a) max(x, 0). Where it stands between a convolution and a
    pooling of maxima, the pooling comes first, so that there are fewer values to work on: where
    a >= 0 the order does not matter. Where a < 0, PRelu(x) = max(x, a x): the convolution gives a x
    as a further channel, and of both maxima p and q, max(p, q) = q + max(p - q, 0).
    """
    tools, graph = needed("onnx"), network.graph
    nodes, written = list(graph.node), list[Proto]()
    values: dict[str, Weights] = {
        each.name: tools.numpy_helper.to_array(each) for each in graph.initializer
    }
    convolutions = {node.output[0]: node for node in nodes if node.op_type == "Conv"}
    results = {each.name for each in graph.output}
    pooled: set[str] = set()  # outputs of poolings that came first

    def constant(weights: Weights) -> str:
        name = f"rewritten_{len(graph.initializer)}"
        values[name] = np.ascontiguousarray(weights)
        graph.initializer.append(tools.numpy_helper.from_array(values[name], name))
        return name

    def add(operator: str, inputs: Sequence[str], output: str = "", **options: int) -> str:
        name = output or f"rewritten_value_{len(written)}"
        written.append(tools.helper.make_node(operator, inputs, [name], **options))
        return name

    def mixed(source: str, weights: Weights) -> str:
        return add("Conv", [source, constant(weights[..., None, None])])

    def scaled(source: str, factors: Weights) -> str:
        return add("Conv", [source, constant(factors[:, None, None, None])], group=len(factors))

    def readers(name: str) -> list[Proto]:
        return [node for node in nodes if name in node.input]

    def padded(weights: Weights, axis: int) -> str:
        missing = [(0, -size % _BLOCK * (at == axis)) for at, size in enumerate(weights.shape)]
        return constant(np.pad(weights, missing))

    for node in nodes:
        slopes = values.get(node.input[1]) if node.op_type == "PRelu" else None
        if slopes is None or slopes.ndim < 3 or slopes.size != slopes.shape[-3]:
            if node.output[0] not in pooled:
                written.append(node)
            continue
        slopes, source, output = slopes.reshape(-1), node.input[0], node.output[0]
        conv, pools = convolutions.get(source), readers(output)
        falling, rising = np.flatnonzero(slopes < 0), slopes.clip(min=0)
        channels = len(slopes) + -len(slopes) % _BLOCK
        if not (
            conv
            and len(slopes) + len(falling) <= channels
            and len(readers(source)) == 1
            and [pool.op_type for pool in pools] == ["MaxPool"]
            and {each.op_type for each in readers(pools[0].output[0])} == {"Conv"}
            and not results & {source, output, pools[0].output[0]}
        ):
            line, bend = scaled(source, slopes), scaled(add("Relu", [source]), 1 - slopes)
            add("Add", [line, bend], output)
            continue
        for place in range(1, len(conv.input)):  # weights and bias
            own = values[conv.input[place]]
            further = own[falling] * slopes[falling].reshape(-1, *[1] * (own.ndim - 1))
            conv.input[place] = padded(np.concatenate([own, further]), 0)
        (pool,) = pools
        output = pool.output[0]
        for reader in readers(output):
            reader.input[1] = padded(values[reader.input[1]], 1)
        pool.input[0], pool.output[0] = source, f"{output}_lines"
        pooled.add(pool.output[0])
        written.append(pool)
        before, lines = np.zeros((2, channels, channels), np.float32)
        each, other = np.arange(len(slopes)), len(slopes) + np.arange(len(falling))
        before[each, each], before[falling, other] = 1, -1
        lines[each, each], lines[falling, other] = rising, 1
        bend = add("Relu", [mixed(pool.output[0], before)])
        bend = scaled(bend, 1 - np.pad(rising, (0, channels - len(slopes))))
        add("Add", [mixed(pool.output[0], lines), bend], output)
    del graph.node[:]
    graph.node.extend(written)
