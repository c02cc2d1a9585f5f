"""Draw random graphs of real operators with hypothesis, which can shrink them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from tests.compiler.graphs import ints
from tests.compiler.onnxes import model, node, value, weight

Shape = tuple[int, ...]

_ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSwish")


class Drawing:
    """A graph under construction: each operator reads existing tensors whose shapes suit it."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.shapes: dict[str, Shape] = {}
        self.read: set[str] = set()

    def one(self, values: Sequence[Any]) -> Any:
        """Draw one of some values; hypothesis shrinks to the first."""
        return self.draw(st.sampled_from(values))

    def node(self, kind: str, reads: str, *shapes: Shape, **attributes: Any) -> None:
        """Add an operator whose outputs have these shapes."""
        names = [f"t{len(self.shapes) + index}" for index in range(len(shapes))]
        self.nodes.append(node(kind, reads, " ".join(names), **attributes))
        self.read |= {*reads.split()}
        self.shapes |= dict(zip(names, shapes, strict=True))

    def constant(self, *shape: int) -> str:
        """Draw an existing weight of this shape, or a new one."""
        floats = [tensor for tensor in self.weights if tensor.data_type == TensorProto.FLOAT]
        alike = [tensor.name for tensor in floats if tuple(tensor.dims) == shape]
        if alike and self.one([True, False]):
            return str(self.one(alike))
        return self.keep(weight(f"w{len(self.weights)}", *shape, seed=len(self.weights)))

    def keep(self, tensor: TensorProto) -> str:
        """Add a constant of given values."""
        self.weights.append(tensor)
        return tensor.name

    def grow(self) -> None:
        """Add one more operator, on an existing tensor."""
        name = self.one([*self.shapes][::-1])
        if len(self.shapes[name]) == 2:
            self.one([self._gemm, self._matmul, self._activation, self._sum])(name)
            return
        _, _, height, width = self.shapes[name]
        kinds: list[Callable[[str], None]] = [self._conv, self._activation, self._norm, self._sum, self._concat, self._split]
        kinds += [self._pool] if min(height, width) >= 4 else []
        kinds += [self._transpose, self._pad, self._softmax]
        kinds += [self._flatten] if math.prod(self.shapes[name]) <= 4096 else [self._mean]
        self.one(kinds)(name)

    def _conv(self, name: str) -> None:
        _, channels, height, width = self.shapes[name]
        taps, stride = self.one([3, 1]), self.one([1, 2])
        filters, group = self.one([8, 3, 32, 72]), 1
        if self.one([False, True]):
            filters = group = channels
        pad = taps // 2
        bias = f" {self.constant(filters)}" if self.one([False, True]) else ""
        reads = f"{name} {self.constant(filters, channels // group, taps, taps)}{bias}"
        after = [(size + 2 * pad - taps) // stride + 1 for size in (height, width)]
        window = {"kernel_shape": [taps] * 2, "pads": [pad] * 4, "strides": [stride] * 2}
        self.node("Conv", reads, (1, filters, *after), group=group, **window)

    def _activation(self, name: str) -> None:
        self.node(self.one(_ACTIVATIONS), name, self.shapes[name])

    def _norm(self, name: str) -> None:
        channels = self.shapes[name][1]
        statistics = " ".join(self.keep(weight(f"w{len(self.weights)}", channels, seed=9)) for _ in range(3))
        ones = self.keep(numpy_helper.from_array(np.ones(channels, np.float32), f"w{len(self.weights)}"))
        self.node("BatchNormalization", f"{name} {statistics} {ones}", self.shapes[name])

    def _sum(self, name: str) -> None:
        alike = [other for other, shape in self.shapes.items() if shape == self.shapes[name]]
        self.node(self.one(["Add", "Mul", "Sub", "Max"]), f"{name} {self.one(alike)}", self.shapes[name])

    def _concat(self, name: str) -> None:
        _, channels, *size = self.shapes[name]
        alike = [other for other, shape in self.shapes.items() if len(shape) == 4 and [*shape[2:]] == size]
        other = self.one(alike)
        self.node("Concat", f"{name} {other}", (1, channels + self.shapes[other][1], *size), axis=1)

    def _split(self, name: str) -> None:
        _, channels, *size = self.shapes[name]
        if channels < 2:
            return
        parts = (channels // 2, channels - channels // 2)
        sizes = self.keep(ints(f"w{len(self.weights)}", *parts))
        self.node("Split", f"{name} {sizes}", *((1, part, *size) for part in parts), axis=1)

    def _pool(self, name: str) -> None:
        _, channels, height, width = self.shapes[name]
        kind = self.one(["MaxPool", "AveragePool"])
        self.node(kind, name, (1, channels, height // 2, width // 2), kernel_shape=[2, 2], strides=[2, 2])

    def _transpose(self, name: str) -> None:
        _, channels, height, width = self.shapes[name]
        self.node("Transpose", name, (1, channels, width, height), perm=[0, 1, 3, 2])

    def _pad(self, name: str) -> None:
        _, channels, height, width = self.shapes[name]
        pads = self.keep(ints(f"w{len(self.weights)}", 0, 0, 1, 0, 0, 0, 1, 1))
        self.node("Pad", f"{name} {pads}", (1, channels, height + 2, width + 1))

    def _softmax(self, name: str) -> None:
        self.node("Softmax", name, self.shapes[name], axis=self.one([1, -1]))

    def _mean(self, name: str) -> None:
        self.node("GlobalAveragePool", name, (*self.shapes[name][:2], 1, 1))

    def _flatten(self, name: str) -> None:
        self.node("Flatten", name, (1, math.prod(self.shapes[name])))

    def _gemm(self, name: str) -> None:
        width = self.shapes[name][1]
        features, turned = self.one([16, 10, 160]), self.one([False, True])
        shape = (features, width) if turned else (width, features)
        alpha = self.one([1.0, 0.5])
        reads = f"{name} {self.constant(*shape)} {self.constant(features)}"
        self.node("Gemm", reads, (1, features), transB=int(turned), alpha=alpha, beta=self.one([1.0, 2.0]))

    def _matmul(self, name: str) -> None:
        width, features = self.shapes[name][1], self.one([16, 10, 160])
        self.node("MatMul", f"{name} {self.constant(width, features)}", (1, features))


@st.composite
def random_models(draw: st.DrawFn) -> ModelProto:
    """Draw a model of 3 to 14 operators and one or two inputs; its outputs are the unread tensors, perhaps one more."""
    drawing = Drawing(draw)
    side = draw(st.sampled_from([16, 9, 40]))
    inputs = {f"x{index}": (1, draw(st.sampled_from([3, 8])), side, side) for index in range(draw(st.integers(1, 2)))}
    drawing.shapes |= inputs
    for _ in range(draw(st.integers(3, 14))):
        drawing.grow()
    made = [name for name in drawing.shapes if name not in inputs]
    outputs = [name for name in made if name not in drawing.read]
    outputs += [name for name in made[:1] if name not in outputs and draw(st.booleans())]
    return model(
        drawing.nodes,
        [value(name, *shape) for name, shape in inputs.items()],
        [value(name, *drawing.shapes[name]) for name in outputs],
        drawing.weights,
    )
