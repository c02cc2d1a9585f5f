"""Synthetic networks of any size, as structure only: a chain with residual branches, and one of inception-like blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from hyps.passes.weights import Model, Weight, placeholder

CHANNELS, SIDE = 64, 28
_WEIGHT, _BIAS = (CHANNELS, CHANNELS, 3, 3), (CHANNELS,)


def residual(count: int) -> Model:
    """About ``count`` operators: blocks of Conv, Relu, Conv, Add and Relu around which their input passes."""
    net = _Net()
    value = "x"
    for block in itertools.count():
        if len(net.nodes) + 5 > count:
            return net.model(value)
        branch = net.conv(net.node("Relu", [net.conv(value, f"a{block}")], f"r{block}"), f"b{block}")
        value = net.node("Relu", [net.node("Add", [branch, value], f"s{block}")], f"y{block}")
    raise AssertionError


def inception(count: int) -> Model:
    """About ``count`` operators: blocks of four branches (1, 3 and 5 convolutions with Relus, a pooling) and a sum."""
    net = _Net()
    value = "x"
    for block in itertools.count():
        if len(net.nodes) + 20 > count:
            return net.model(value)
        ends = []
        for branch, length in enumerate((1, 3, 5)):
            end = value
            for layer in range(length):
                name = f"b{block}.{branch}.{layer}"
                end = net.node("Relu", [net.conv(end, name)], f"{name}.r")
            ends.append(end)
        pooled = net.node("MaxPool", [value], f"p{block}", kernel_shape=[3, 3], pads=[1] * 4)
        value = net.node("Sum", [*ends, pooled], f"y{block}")
    raise AssertionError


class _Net:
    """Nodes whose activations all have one shape, and weights that lie nowhere."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._weights: list[str] = []

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def conv(self, source: str, name: str) -> str:
        self._weights.append(name)
        return self.node("Conv", [source, f"{name}.w", f"{name}.b"], name, pads=[1] * 4)

    def model(self, output: str) -> Model:
        zeros = np.zeros(_BIAS, np.float32)
        constants = [placeholder(f"{name}.w", TensorProto.FLOAT, _WEIGHT) for name in self._weights]
        constants += [numpy_helper.from_array(zeros, f"{name}.b") for name in self._weights]
        inner = [_typed(node.output[0]) for node in self.nodes if node.output[0] != output]
        graph = helper.make_graph(self.nodes, "net", [_typed("x")], [_typed(output)], constants, value_info=inner)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        nbytes = 4 * int(np.prod(_WEIGHT))
        return Model(
            proto=proto, weights={f"{name}.w": Weight(path="nowhere", offset=0, row_bytes=nbytes) for name in self._weights}
        )


def _typed(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])
