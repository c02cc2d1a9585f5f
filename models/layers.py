"""A small vocabulary of layers from which the networks are put together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper

from hyps.models.moments import STANDARD, Moments
from hyps.models.weights import Weight

OPSET = 17
IR_VERSION = 8
JITTER = 0.05
"""Deviation of biases and of normalisation's values, relative where these are not about 0.

Without it a rewrite that drops a bias or a running mean would change no result, and no test would see it.
"""
DEPTHWISE_AVERAGE = 0.7
"""What a depthwise filter sums to: near 1 activations grow from block to block, below 0.5 all images look alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor of the graph under construction: [1, channels, side, side], or [1, channels] where ``side`` is 0."""

    name: str
    channels: int
    side: int
    moments: Moments = STANDARD


class Layers:
    """Collects the nodes and weights of one network; each method adds one node and returns its output.

    A node, its output and the prefix of its weights share one name, unless ``output`` renames the output.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[Weight] = []
        self.constants: dict[str, TensorProto] = {}

    def conv(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        bias: bool = True,
        gain: float = 1.0,
    ) -> Value:
        """A square convolution over all channels; its output has mean 0 and deviation ``gain``."""
        weights = [self._filters(x, name, (channels, x.channels, kernel, kernel), gain)]
        if bias:
            weights.append(self._vector(f"{name}.bias", channels))
        side = (x.side + 2 * pad - kernel) // stride + 1
        out = Value(name=name, channels=channels, side=side, moments=Moments(mean=0.0, variance=gain**2))
        return self._node("Conv", [x.name, *weights], out, **_window(kernel, stride, pad))

    def depthwise_conv(self, x: Value, name: str, kernel: int, *, stride: int = 1, pad: int = 0) -> Value:
        """A square convolution of each channel by itself, without bias.

        Each filter is an average plus random detail that sums to zero. So all channels have the same mean, which the
        next convolution removes; plain random filters would give each channel its own, the same for every image.
        """
        taps = kernel**2
        shape = (x.channels, 1, kernel, kernel)
        weight = Weight(
            name=f"{name}.weight", shape=shape, mean=DEPTHWISE_AVERAGE / taps, deviation=taps**-0.5, zero_sum=True
        )
        self.weights.append(weight)
        moments = replace(x.moments, mean=DEPTHWISE_AVERAGE * x.moments.mean)
        out = replace(x, name=name, side=(x.side + 2 * pad - kernel) // stride + 1, moments=moments)
        return self._node("Conv", [x.name, weight.name], out, **_window(kernel, stride, pad), group=x.channels)

    def gemm(self, x: Value, name: str, features: int, *, gain: float = 1.0, output: str | None = None) -> Value:
        """A fully connected layer on [1, in], weight [features, in] (transB = 1); moments as of ``conv``."""
        weights = [self._filters(x, name, (features, x.channels), gain), self._vector(f"{name}.bias", features)]
        moments = Moments(mean=0.0, variance=gain**2)
        out = Value(name=output or name, channels=features, side=0, moments=moments)
        return self._node("Gemm", [x.name, *weights], out, name=name, transB=1)

    def batch_norm(self, x: Value, name: str, *, epsilon: float = 1e-5) -> Value:
        """An inference-time normalisation whose statistics are about the expected ones; its output is standardised."""
        weights = [
            self._vector(f"{name}.weight", x.channels, mean=1.0),
            self._vector(f"{name}.bias", x.channels),
            self._vector(f"{name}.running_mean", x.channels, mean=x.moments.mean),
            self._vector(f"{name}.running_var", x.channels, mean=x.moments.variance),
        ]
        out = replace(x, name=name, moments=STANDARD)
        return self._node("BatchNormalization", [x.name, *weights], out, epsilon=epsilon)

    def relu(self, x: Value, name: str) -> Value:
        """max(x, 0)."""
        return self._node("Relu", [x.name], replace(x, name=name, moments=x.moments.rectified()))

    def relu6(self, x: Value, name: str) -> Value:
        """min(max(x, 0), 6), as a Clip; so few values exceed 6 that the moments are ReLU's."""
        bounds = [self._scalar("relu6.min", 0.0), self._scalar("relu6.max", 6.0)]
        return self._node("Clip", [x.name, *bounds], replace(x, name=name, moments=x.moments.rectified()))

    def max_pool(self, x: Value, name: str, kernel: int, stride: int, *, pad: int = 0, ceil: bool = False) -> Value:
        """A square max-pool; ``ceil`` keeps a last, partial window. It raises the moments a little: neglected."""
        span = x.side + 2 * pad - kernel
        side = (math.ceil(span / stride) if ceil else span // stride) + 1
        window = _window(kernel, stride, pad)
        return self._node("MaxPool", [x.name], replace(x, name=name, side=side), **window, ceil_mode=int(ceil))

    def global_average_pool(self, x: Value, name: str) -> Value:
        """The mean over all positions, [1, channels, 1, 1]."""
        return self._node("GlobalAveragePool", [x.name], replace(x, name=name, side=1))

    def flatten(self, x: Value, name: str) -> Value:
        """[1, channels, side, side] to [1, channels * side * side]."""
        out = replace(x, name=name, channels=x.channels * x.side**2, side=0)
        return self._node("Flatten", [x.name], out, axis=1)

    def add(self, x: Value, y: Value, name: str) -> Value:
        """The sum of two tensors of one shape."""
        return self._node("Add", [x.name, y.name], replace(x, name=name, moments=x.moments + y.moments))

    def concat(self, values: list[Value], name: str) -> Value:
        """The channels of all values, which must have one side and the same moments, one after the other."""
        out = replace(values[0], name=name, channels=sum(value.channels for value in values))
        return self._node("Concat", [value.name for value in values], out, axis=1)

    def softmax(self, x: Value, name: str) -> Value:
        """Probabilities over the last axis of [1, channels]."""
        return self._node("Softmax", [x.name], replace(x, name=name), axis=1)

    def model(self, name: str, image: Value, output: Value) -> ModelProto:
        """The network without its weights, which the nodes name and ``self.weights`` describes."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(image.name, TensorProto.FLOAT, [1, image.channels, image.side, image.side])],
            [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [1, output.channels])],
            list(self.constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="hyps.models")

    def _node(self, op_type: str, inputs: list[str], out: Value, *, name: str | None = None, **attributes: Any) -> Value:
        self.nodes.append(helper.make_node(op_type, inputs, [out.name], name or out.name, **attributes))
        return out

    def _filters(self, x: Value, name: str, shape: tuple[int, ...], gain: float) -> str:
        """Weights that bring ``x`` to variance gain^2, and remove its mean, which is positive if rectified."""
        deviation = gain / math.sqrt(math.prod(shape[1:]) * x.moments.variance)
        weight = Weight(name=f"{name}.weight", shape=shape, deviation=deviation, zero_sum=x.moments.mean > 0)
        self.weights.append(weight)
        return weight.name

    def _vector(self, name: str, channels: int, *, mean: float = 0.0) -> str:
        self.weights.append(Weight(name=name, shape=(channels,), mean=mean, deviation=JITTER * (mean or 1.0)))
        return name

    def _scalar(self, name: str, value: float) -> str:
        self.constants[name] = helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        return name


def _window(kernel: int, stride: int, pad: int) -> dict[str, Any]:
    """The attributes of a square window, padded alike on all four sides."""
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}


Compose = Callable[[Layers, Value], Value]
"""A network: adds its layers behind the image, [1, channels, side, side], and returns its output, [1, classes]."""
