"""Provide the layers that the networks are built of; those on sequences are in `sequences`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyps.models.moments import STANDARD, Moments, mixed
from hyps.models.weights import SeededWeight

OPSET = 17
IR_VERSION = 8
JITTER = 0.05
"""Deviation of biases and of normalisation's values, relative where these are not about 0.

Without it a rewrite that drops a bias or a running mean would change no result, and no test would see it.
"""
DEPTHWISE_AVERAGE = 0.7
"""The sum of a depthwise filter: near 1 activations grow from block to block, below 0.5 all images look alike."""

Extent = int | tuple[int, ...]
"""One number for all spatial axes, or one for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutput:
    """A tensor under construction: [1, channels, ...spatial], [1, channels], or [1, tokens, channels] in a sequence."""

    name: str
    shape: tuple[int, ...]
    moments: Moments = STANDARD

    @property
    def channels(self) -> int:
        """The second axis of a feature map or a vector."""
        return self.shape[1]

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes after a feature map's channels."""
        return self.shape[2:]


class Layers:
    """The nodes and weights of one network under construction; each method adds one node and returns its output.

    A node, its output and the prefix of its weights share one name, unless ``output`` renames the output.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[SeededWeight] = []
        self.constants: dict[str, TensorProto] = {}

    def conv(
        self,
        x: LayerOutput,
        name: str,
        channels: int,
        kernel: Extent,
        *,
        stride: Extent = 1,
        pad: Extent = 0,
        bias: bool = True,
        gain: float = 1.0,
        output: str | None = None,
    ) -> LayerOutput:
        """Add a convolution over all channels; its output has mean 0 and deviation ``gain``."""
        window = _window(x, kernel, stride, pad)
        weights = [self.filters(x, f"{name}.weight", (channels, x.channels, *window["kernel_shape"]), gain=gain)]
        if bias:
            weights.append(self.vector(f"{name}.bias", channels))
        moments = Moments(mean=0.0, variance=gain**2)
        out = LayerOutput(name=output or name, shape=(1, channels, *_swept(x, window)), moments=moments)
        return self.node("Conv", [x.name, *weights], out, name=name, **window)

    def up_conv(self, x: LayerOutput, name: str, channels: int, factor: int) -> LayerOutput:
        """Add a transposed convolution that enlarges each side ``factor`` times; no output sees more than one position."""
        shape = (x.channels, channels, *[factor] * len(x.spatial))
        axes = tuple(range(1, len(shape)))
        weights = [self.filters(x, f"{name}.weight", shape, filter_axes=axes), self.vector(f"{name}.bias", channels)]
        out = LayerOutput(name=name, shape=(1, channels, *(factor * side for side in x.spatial)))
        return self.node("ConvTranspose", [x.name, *weights], out, **_window(x, factor, factor, 0))

    def depthwise_conv(self, x: LayerOutput, name: str, kernel: int, *, stride: int = 1, pad: int = 0) -> LayerOutput:
        """Add a depthwise convolution with a square kernel, without bias.

        Each filter is an average plus random detail that sums to zero. So all channels have the same mean, which the
        next convolution removes; plain random filters would give each channel its own, the same for every image.
        """
        taps = kernel**2
        shape = (x.channels, 1, kernel, kernel)
        weight = SeededWeight(
            name=f"{name}.weight", shape=shape, mean=DEPTHWISE_AVERAGE / taps, deviation=taps**-0.5, zero_sum=True
        )
        self.weights.append(weight)
        moments = replace(x.moments, mean=DEPTHWISE_AVERAGE * x.moments.mean)
        window = _window(x, kernel, stride, pad)
        out = LayerOutput(name=name, shape=(1, x.channels, *_swept(x, window)), moments=moments)
        return self.node("Conv", [x.name, weight.name], out, **window, group=x.channels)

    def gemm(self, x: LayerOutput, name: str, features: int, *, gain: float = 1.0, output: str | None = None) -> LayerOutput:
        """Add a fully connected layer on [1, in] with weight [features, in] (transB = 1); moments as in ``conv``."""
        weight = self.filters(x, f"{name}.weight", (features, x.channels), gain=gain)
        out = LayerOutput(name=output or name, shape=(1, features), moments=Moments(mean=0.0, variance=gain**2))
        return self.node("Gemm", [x.name, weight, self.vector(f"{name}.bias", features)], out, name=name, transB=1)

    def batch_norm(self, x: LayerOutput, name: str, *, epsilon: float = 1e-5) -> LayerOutput:
        """Add a batch normalisation whose statistics are near the expected ones; its output is standardised."""
        weights = [
            self.vector(f"{name}.weight", x.channels, mean=1.0),
            self.vector(f"{name}.bias", x.channels),
            self.vector(f"{name}.running_mean", x.channels, mean=x.moments.mean),
            self.vector(f"{name}.running_var", x.channels, mean=x.moments.variance),
        ]
        out = replace(x, name=name, moments=STANDARD)
        return self.node("BatchNormalization", [x.name, *weights], out, epsilon=epsilon)

    def relu(self, x: LayerOutput, name: str) -> LayerOutput:
        """Add max(x, 0)."""
        return self.node("Relu", [x.name], replace(x, name=name, moments=x.moments.rectified()))

    def relu6(self, x: LayerOutput, name: str) -> LayerOutput:
        """Add min(max(x, 0), 6) as a Clip; few values exceed 6, so the moments are those of a ReLU."""
        bounds = [self.constant("relu6.min", np.float32(0.0)), self.constant("relu6.max", np.float32(6.0))]
        return self.node("Clip", [x.name, *bounds], replace(x, name=name, moments=x.moments.rectified()))

    def leaky_relu(self, x: LayerOutput, name: str, slope: float) -> LayerOutput:
        """Add max(x, slope x), for a slope below 1."""
        return self.node("LeakyRelu", [x.name], replace(x, name=name, moments=x.moments.rectified(slope)), alpha=slope)

    def max_pool(
        self,
        x: LayerOutput,
        name: str,
        kernel: Extent,
        stride: Extent,
        *,
        pad: Extent = 0,
        end_pad: Extent | None = None,
        ceil: bool = False,
    ) -> LayerOutput:
        """Add a max-pool, padded equally at both ends unless ``end_pad`` differs; ``ceil`` keeps a partial window.

        It raises the moments a little, which is neglected.
        """
        window = _window(x, kernel, stride, pad, end_pad)
        out = replace(x, name=name, shape=(1, x.channels, *_swept(x, window, ceil=ceil)))
        return self.node("MaxPool", [x.name], out, **window, ceil_mode=int(ceil))

    def average_pool(self, x: LayerOutput, name: str, kernel: int, stride: int, *, pad: int = 0) -> LayerOutput:
        """Add an average-pool that counts the padding, as torch does; the smaller variance is neglected."""
        window = _window(x, kernel, stride, pad)
        out = replace(x, name=name, shape=(1, x.channels, *_swept(x, window)))
        return self.node("AveragePool", [x.name], out, **window, count_include_pad=1)

    def global_average_pool(self, x: LayerOutput, name: str) -> LayerOutput:
        """Add the mean over all positions, [1, channels, 1, 1]."""
        return self.node("GlobalAveragePool", [x.name], replace(x, name=name, shape=(1, x.channels, 1, 1)))

    def flatten(self, x: LayerOutput, name: str) -> LayerOutput:
        """Add a Flatten from [1, channels, ...spatial] to [1, channels * spatial]."""
        return self.node("Flatten", [x.name], replace(x, name=name, shape=(1, math.prod(x.shape))), axis=1)

    def crop(self, x: LayerOutput, name: str, spatial: tuple[int, ...]) -> LayerOutput:
        """Add a Slice that keeps the middle of a feature map."""
        starts = [(side - kept) // 2 for side, kept in zip(x.spatial, spatial, strict=True)]
        ends = [start + kept for start, kept in zip(starts, spatial, strict=True)]
        axes = range(2, len(x.shape))
        bounds = [
            self.constant(f"{name}.{key}", np.array(values, np.int64))
            for key, values in (("starts", starts), ("ends", ends), ("axes", axes))
        ]
        return self.node("Slice", [x.name, *bounds], replace(x, name=name, shape=(1, x.channels, *spatial)))

    def add(self, x: LayerOutput, y: LayerOutput, name: str) -> LayerOutput:
        """Add the sum of two tensors of the same shape."""
        return self.node("Add", [x.name, y.name], replace(x, name=name, moments=x.moments + y.moments))

    def concat(self, values: list[LayerOutput], name: str) -> LayerOutput:
        """Add a Concat of the channels of all values; their spatial axes must be equal."""
        shape = (1, sum(value.channels for value in values), *values[0].spatial)
        out = LayerOutput(name=name, shape=shape, moments=mixed([(value.channels, value.moments) for value in values]))
        return self.node("Concat", [value.name for value in values], out, axis=1)

    def softmax(self, x: LayerOutput, name: str) -> LayerOutput:
        """Add a softmax over the last axis."""
        return self.node("Softmax", [x.name], replace(x, name=name), axis=len(x.shape) - 1)

    def model(
        self,
        name: str,
        source: LayerOutput,
        output: LayerOutput | tuple[LayerOutput, ...],
        *,
        source_type: int = TensorProto.FLOAT,
    ) -> ModelProto:
        """Return the network without its weights: nodes name them, and ``self.weights`` describes them."""
        outputs = output if isinstance(output, tuple) else (output,)
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(source.name, source_type, source.shape)],
            [helper.make_tensor_value_info(out.name, TensorProto.FLOAT, out.shape) for out in outputs],
            list(self.constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="hyps.models")

    def node(
        self, op_type: str, inputs: list[str], out: LayerOutput, *, name: str | None = None, **attributes: Any
    ) -> LayerOutput:
        """Add any node with one output; returns ``out``."""
        self.nodes.append(helper.make_node(op_type, inputs, [out.name], name or out.name, **attributes))
        return out

    def filters(
        self, x: LayerOutput, name: str, shape: tuple[int, ...], *, gain: float = 1.0, filter_axes: tuple[int, ...] = (0,)
    ) -> str:
        """Add weights that bring ``x`` to variance gain^2, and remove its mean, which is positive if rectified."""
        taps = math.prod(size for axis, size in enumerate(shape) if axis not in filter_axes)
        deviation = gain / math.sqrt(taps * x.moments.variance)
        return self.weight(name, shape, deviation, zero_sum=x.moments.mean > 0, filter_axes=filter_axes)

    def weight(self, name: str, shape: tuple[int, ...], deviation: float, **options: Any) -> str:
        """Add a seeded weight with the fields of `SeededWeight`, and return its name."""
        self.weights.append(SeededWeight(name=name, shape=shape, deviation=deviation, **options))
        return name

    def vector(self, name: str, channels: int, *, mean: float = 0.0) -> str:
        """Add a bias, or one of a normalisation's vectors."""
        return self.weight(name, (channels,), JITTER * (mean or 1.0), mean=mean)

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a value that is no parameter; a name that comes twice is stored once."""
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _window(x: LayerOutput, kernel: Extent, stride: Extent, pad: Extent, end_pad: Extent | None = None) -> dict[str, Any]:
    """Return the attributes of a window over the spatial axes of ``x``."""
    begin, end = _each(x, pad), _each(x, pad if end_pad is None else end_pad)
    return {"kernel_shape": _each(x, kernel), "strides": _each(x, stride), "pads": begin + end}


def _each(x: LayerOutput, extent: Extent) -> list[int]:
    return [extent] * len(x.spatial) if isinstance(extent, int) else list(extent)


def _swept(x: LayerOutput, window: dict[str, Any], *, ceil: bool = False) -> tuple[int, ...]:
    """Return the spatial axes of a window's result on ``x``."""
    pads = [begin + end for begin, end in zip(*np.reshape(window["pads"], (2, -1)).tolist(), strict=True)]
    spans = [(s + p - k, t) for s, p, k, t in zip(x.spatial, pads, window["kernel_shape"], window["strides"], strict=True)]
    return tuple((-(-span // stride) if ceil else span // stride) + 1 for span, stride in spans)


Compose = Callable[[Layers, LayerOutput], LayerOutput | tuple[LayerOutput, ...]]
"""A function that adds a network's layers after its input, most often an image [1, channels, side, side].

It returns the output, or with early exits all of them in order of depth.
"""
