"""Where an operator can be cut: which axis of which operand goes with an axis of its result, or of its sums.

Hadidi, sections 4.2 and 4.3, tables 4.1 to 4.3. By *output* (of convolutions: by *channel*) every shard makes some columns
or channels of the result, from the weights for them. By *input* (of convolutions: by *filter*) every shard adds up some of
the products, from a part of the input and the weights for it. *Spatially* every shard makes some rows of a convolution's
result, from those rows of its input and a halo, with all weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnx import NodeProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import STANDARD_DOMAINS, Graph, Tensor
from hyps.passes.sharding.kernel_rows import Kernel

Shape = tuple[int, ...]
Method = Literal["output", "input", "spatial"]
METHODS: tuple[Method, ...] = ("output", "spatial", "input")

#: Shard widths are multiples of this, which keeps onnxruntime's result bit-exact.
WIDTH_STEP = 8
PRODUCTS = frozenset({"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})
#: Their sums are integers: exact in any order.
INTEGER = frozenset({"MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv"})
#: Where an operator's second factor stands, when it is not operand 1.
_SECOND = {"QLinearMatMul": 3, "QLinearConv": 3}
#: The operands that hold one number a column or channel of the result: biases, scales and zero points of weights.
_VECTORS = {"Gemm": (2,), "MatMulInteger": (3,), "QLinearMatMul": (4, 5), "Conv": (2,), "ConvTranspose": (2,)}
_VECTORS |= {"ConvInteger": (3,), "QLinearConv": (4, 5, 8)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantValues:
    """A graph's shapes by name, and its constants: of a weight, or what dequantises one, the weight."""

    shapes: Mapping[str, Shape]
    constants: Mapping[str, Tensor]

    @staticmethod
    def of(graph: Graph) -> ConstantValues:
        """Those of a graph."""
        shapes = {name: tensor.shape for name, tensor in itertools.chain(graph.tensors.items(), graph.weights.items())}
        constants = dict(graph.weights)
        for operator in graph.operators:
            if operator.op_type == "DequantizeLinear" and not operator.inputs:
                stored, scale = (graph.weights.get(name) for name in (*operator.weights[:2], "")[:2])
                if stored is not None and scale is not None and len(scale.shape) < 2:  # not one scale a block
                    constants[operator.outputs[0]] = stored
        return ConstantValues(shapes=shapes, constants=constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLayout:
    """How one operator is cut by one method.

    ``axes`` gives the axis along which each operand, by its position, is cut in proportion to ``width`` elements, of which a
    shard takes a multiple of ``step``; where the operand has one element there, all shards share it. ``axis`` is that of the
    result, counted from its first; None where the results are added up. ``source`` and ``weight`` are the positions of the
    two factors.
    """

    method: Method
    axes: Mapping[int, int]
    axis: int | None
    width: int
    step: int = WIDTH_STEP
    source: int = 0
    weight: int = 1
    groups: int = 1
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """The most shards."""
        return max(1, self.width // self.step)

    def largest(self, count: int) -> int:
        """The width of the widest of so many shards."""
        blocks, rest = divmod(self.width, self.step)
        share, extra = divmod(blocks, count)
        return max((share + (extra > 0)) * self.step, share * self.step + rest)

    def widths(self, count: int) -> tuple[int, ...]:
        """The widths of so many shards, as equal as multiples of the step allow; the last takes the rest."""
        return shard_widths(self.width, count, self.step)


def shard_widths(width: int, count: int, step: int = WIDTH_STEP) -> tuple[int, ...]:
    """``width`` in ``count`` shards, as equal as multiples of ``step`` allow; the last takes the rest."""
    blocks, rest = divmod(width, step)
    share, extra = divmod(blocks, count)
    widths = [(share + (index < extra)) * step for index in range(count)]
    widths[-1] += rest
    return tuple(widths)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values, text decoded."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def how(node: NodeProto, method: Method) -> str:
    """The method in Hadidi's words: of convolutions by channel or by filter, of products by output or by input."""
    if method == "spatial":
        return "spatially"
    convolves = node.op_type in CONVOLUTIONS
    return f"by {({'output': 'channel', 'input': 'filter'} if convolves else {}).get(method, method)}"


def split_layout(node: NodeProto, method: Method, values: ConstantValues) -> SplitLayout:
    """How ``node`` is cut by ``method``; raises `UnsupportedModel`, one line with the reason, when it cannot be."""
    kind = node.op_type
    if node.domain not in STANDARD_DOMAINS or kind not in PRODUCTS | CONVOLUTIONS:
        raise UnsupportedModel(
            f"{kind} {node.name!r} cannot be split: only Gemm, MatMul, convolutions and their 8-bit forms can be"
        )
    if method == "spatial":
        return _spatial(node, values)
    attributes = attributes_of(node)
    second = _SECOND.get(kind, 1)
    left = kind == "MatMul" and node.input[1] not in values.constants and node.input[0] in values.constants
    weight, source = (0, 1) if left else (second, 0)
    if node.input[weight] not in values.constants:
        raise _cannot(node, method, f"its {'third' if second == 3 else 'second'} input is no constant weight")
    constant = values.constants[node.input[weight]]
    if constant.nbytes < math.prod(constant.shape):
        raise _cannot(node, method, "its weight is packed, several elements a byte")
    find = {
        ("output", True): _products_columns,
        ("output", False): _channels,
        ("input", True): _products_depth,
        ("input", False): _filters,
    }[method, kind in PRODUCTS]
    found = find(node, attributes, weight, source, values)
    for position, axis in found.axes.items():
        name = node.input[position] if position < len(node.input) else ""
        shape = values.shapes[name] if name else ()
        if position != source and name not in values.constants and shape and shape[axis] != 1:
            what = "scale" if kind in INTEGER else "bias"
            raise _cannot(node, method, f"its {what} is computed, not constant")
    return found


def _cannot(node: NodeProto, method: Method, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split {how(node, method)}: {why}")


def _products_columns(
    node: NodeProto, attributes: Mapping[str, Any], weight: int, source: int, values: ConstantValues
) -> SplitLayout:
    shape = values.shapes[node.input[weight]]
    result = len(values.shapes[node.output[0]])
    if len(shape) < 2:
        raise _cannot(node, "output", "its weight is a vector")
    along = {weight: 0 if attributes.get("transB") else -1} | dict.fromkeys(_VECTORS.get(node.op_type, ()), -1)
    axis = result - 1
    if weight < source:  # a constant left operand: its rows are the result's
        along = {weight: -2}
        axis = result - 1 - (len(values.shapes[node.input[source]]) > 1)
    return SplitLayout(
        method="output",
        axes=along,
        axis=axis,
        width=shape[along[weight]],
        source=source,
        weight=weight,
        attributes=attributes,
    )


def _products_depth(
    node: NodeProto, attributes: Mapping[str, Any], weight: int, source: int, values: ConstantValues
) -> SplitLayout:
    if node.op_type in INTEGER:
        raise _cannot(node, "input", "8-bit products are split by output alone")
    weight_rank, source_rank = (len(values.shapes[node.input[position]]) for position in (weight, source))
    if weight < source:
        along = {weight: -1, source: -2 if source_rank > 1 else -1}
    elif node.op_type == "Gemm":
        along = {weight: 1 if attributes.get("transB") else 0, source: 0 if attributes.get("transA") else 1}
    else:
        along = {weight: -2 if weight_rank > 1 else -1, source: -1}
    width = values.shapes[node.input[weight]][along[weight]]
    return SplitLayout(
        method="input", axes=along, axis=None, width=width, source=source, weight=weight, attributes=attributes
    )


def _channels(
    node: NodeProto, attributes: Mapping[str, Any], weight: int, source: int, values: ConstantValues
) -> SplitLayout:
    """Output channels; those of several groups go with whole groups of the input's."""
    groups = attributes.get("group", 1)
    width = values.shapes[node.output[0]][1]
    transposed = node.op_type == "ConvTranspose"
    along = {weight: 1 if transposed and groups == 1 else 0} | dict.fromkeys(_VECTORS[node.op_type], 0)
    step = WIDTH_STEP
    if groups > 1:
        of_group = width // groups
        along[source] = 1
        step = -(-WIDTH_STEP // of_group) * of_group
    return SplitLayout(
        method="output",
        axes=along,
        axis=1,
        width=width,
        step=step,
        source=source,
        weight=weight,
        groups=groups,
        attributes=attributes,
    )


def _filters(
    node: NodeProto, attributes: Mapping[str, Any], weight: int, source: int, values: ConstantValues
) -> SplitLayout:
    if node.op_type != "Conv":
        raise _cannot(node, "input", "only Conv, Gemm and MatMul can be")
    if attributes.get("group", 1) != 1:
        raise _cannot(node, "input", "it has groups; split it by channel")
    width = values.shapes[node.input[weight]][1]
    return SplitLayout(method="input", axes={weight: 1, source: 1}, axis=None, width=width, attributes=attributes)


def _spatial(node: NodeProto, values: ConstantValues) -> SplitLayout:
    if node.op_type != "Conv":
        raise _cannot(node, "spatial", "only Conv can be")
    attributes = attributes_of(node)
    kernel = Kernel.of(attributes, values.shapes[node.input[1]], values.shapes[node.input[0]])
    if max(kernel.before, kernel.after) >= kernel.extent:
        raise _cannot(node, "spatial", "its pads are as long as its kernel")
    rows = values.shapes[node.output[0]][2]
    return SplitLayout(
        method="spatial", axes={0: 2}, axis=2, width=rows, step=1, groups=attributes.get("group", 1), attributes=attributes
    )
