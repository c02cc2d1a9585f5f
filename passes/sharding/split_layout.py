"""Find the layout by which an operator is split, or the reason why it cannot be.

Every attribute and every form of a bias is handled or refused: transposed and batched factors, constant left factors,
groups, dilation, auto_pad, 8-bit operators with their scales and zero points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.mlas import WIDTH_STEP
from hyps.passes.onnx_ops import (
    CHANNEL_VECTORS,
    CONVOLUTIONS,
    INTEGER_OPERATORS,
    PRODUCTS,
    STANDARD_DOMAINS,
    WEIGHT_POSITION,
    Shape,
    attributes_of,
)
from hyps.passes.receptive_field import row_window
from hyps.passes.sharding.layouts import ConstantValues, Method, SplitLayout, method_phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    """A product or convolution to be split, with the positions of its factors."""

    node: NodeProto
    attributes: Mapping[str, Any]
    weight: int
    source: int
    values: ConstantValues

    def shape(self, position: int) -> Shape:
        """Return the shape of an operand."""
        return self.values.shapes[self.node.input[position]]

    @property
    def result_shape(self) -> Shape:
        """The shape of the result."""
        return self.values.shapes[self.node.output[0]]

    @property
    def groups(self) -> int:
        """The number of groups of a convolution."""
        return int(self.attributes.get("group", 1))


def split_layout(node: NodeProto, method: Method, values: ConstantValues) -> SplitLayout:
    """Return the layout of ``node`` split by ``method``; raise `UnsupportedModel`, with the reason, if there is none."""
    kind = node.op_type
    if node.domain not in STANDARD_DOMAINS or kind not in PRODUCTS | CONVOLUTIONS:
        raise UnsupportedModel(
            f"{kind} {node.name!r} cannot be split: only Gemm, MatMul, convolutions and their 8-bit forms can be"
        )
    if method == "spatial":
        return _spatial(node, values)
    weight, source = _factors(node, method, values)
    operator = _Operator(node=node, attributes=attributes_of(node), weight=weight, source=source, values=values)
    layout = _LAYOUTS[method, kind in PRODUCTS](operator)
    for position, axis in layout.axes.items():
        name = node.input[position] if position < len(node.input) else ""
        shape = values.shapes[name] if name else ()
        if position != source and name not in values.constants and shape and shape[axis] != 1:
            what = "scale" if kind in INTEGER_OPERATORS else "bias"
            raise _refusal(node, method, f"its {what} is computed, not constant")
    return layout


def _factors(node: NodeProto, method: Method, values: ConstantValues) -> tuple[int, int]:
    """Return the positions of the constant factor and of the other one."""
    second = WEIGHT_POSITION.get(node.op_type, 1)
    left = node.op_type == "MatMul" and node.input[1] not in values.constants and node.input[0] in values.constants
    weight, source = (0, 1) if left else (second, 0)
    if node.input[weight] not in values.constants:
        raise _refusal(node, method, f"its {'third' if second == 3 else 'second'} input is no constant weight")
    constant = values.constants[node.input[weight]]
    if constant.nbytes < math.prod(constant.shape):
        raise _refusal(node, method, "its weight is packed, several elements a byte")
    return weight, source


def _refusal(node: NodeProto, method: Method, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"{node.op_type} {node.name!r} cannot be split {method_phrase(node, method)}: {why}")


def _product_by_output(operator: _Operator) -> SplitLayout:
    """Return the layout by columns of the result; of a constant left factor, by its rows."""
    weight, source, node = operator.weight, operator.source, operator.node
    shape, rank = operator.shape(weight), len(operator.result_shape)
    if len(shape) < 2:
        raise _refusal(node, "output", "its weight is a vector")
    if weight < source:
        axes = {weight: -2}
        axis = rank - 1 - (len(operator.shape(source)) > 1)
    else:
        axes = {weight: 0 if operator.attributes.get("transB") else -1}
        axes |= dict.fromkeys(CHANNEL_VECTORS.get(node.op_type, ()), -1)
        axis = rank - 1
    return SplitLayout(
        method="output",
        axes=axes,
        axis=axis,
        width=shape[axes[weight]],
        source=source,
        weight=weight,
        attributes=operator.attributes,
    )


def _product_by_input(operator: _Operator) -> SplitLayout:
    """Return the layout by the products that are added up: columns of the left factor, rows of the right one."""
    weight, source, node = operator.weight, operator.source, operator.node
    if node.op_type in INTEGER_OPERATORS:
        raise _refusal(node, "input", "8-bit products are split by output alone")
    if weight < source:
        axes = {weight: -1, source: -2 if len(operator.shape(source)) > 1 else -1}
    elif node.op_type == "Gemm":
        attributes = operator.attributes
        axes = {weight: 1 if attributes.get("transB") else 0, source: 0 if attributes.get("transA") else 1}
    else:
        axes = {weight: -2 if len(operator.shape(weight)) > 1 else -1, source: -1}
    return SplitLayout(
        method="input",
        axes=axes,
        axis=None,
        width=operator.shape(weight)[axes[weight]],
        source=source,
        weight=weight,
        attributes=operator.attributes,
    )


def _convolution_by_channel(operator: _Operator) -> SplitLayout:
    """Return the layout by output channels; a shard of a grouped convolution has whole groups, also of the input."""
    weight, source, groups = operator.weight, operator.source, operator.groups
    width = operator.result_shape[1]
    transposed = operator.node.op_type == "ConvTranspose"
    axes = {weight: 1 if transposed and groups == 1 else 0}
    axes |= dict.fromkeys(CHANNEL_VECTORS[operator.node.op_type], 0)
    step = WIDTH_STEP
    if groups > 1:
        group_width = width // groups
        axes[source] = 1
        step = -(-WIDTH_STEP // group_width) * group_width
    return SplitLayout(
        method="output",
        axes=axes,
        axis=1,
        width=width,
        step=step,
        source=source,
        weight=weight,
        groups=groups,
        attributes=operator.attributes,
    )


def _convolution_by_filter(operator: _Operator) -> SplitLayout:
    """Return the layout by input channels."""
    weight, node = operator.weight, operator.node
    if node.op_type != "Conv":
        raise _refusal(node, "input", "only Conv, Gemm and MatMul can be")
    if operator.groups != 1:
        raise _refusal(node, "input", "it has groups; split it by channel")
    return SplitLayout(
        method="input",
        axes={weight: 1, operator.source: 1},
        axis=None,
        width=operator.shape(weight)[1],
        attributes=operator.attributes,
    )


_LAYOUTS: Mapping[tuple[Method, bool], Callable[[_Operator], SplitLayout]] = {
    ("output", True): _product_by_output,
    ("output", False): _convolution_by_channel,
    ("input", True): _product_by_input,
    ("input", False): _convolution_by_filter,
}


def _spatial(node: NodeProto, values: ConstantValues) -> SplitLayout:
    """Return the layout by rows of the result of a Conv."""
    if node.op_type != "Conv":
        raise _refusal(node, "spatial", "only Conv can be")
    attributes = attributes_of(node)
    window = row_window(attributes, values.shapes[node.input[1]][2:], values.shapes[node.input[0]][2:])
    if max(window.pads) >= window.extent:
        raise _refusal(node, "spatial", "its pads are as long as its kernel")
    return SplitLayout(
        method="spatial",
        axes={0: 2},
        axis=2,
        width=values.shapes[node.output[0]][2],
        step=1,
        groups=attributes.get("group", 1),
        attributes=attributes,
    )
