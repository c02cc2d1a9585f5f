"""Facts about ONNX operators by the ONNX operator specification: kinds, operands, attributes, axes and opset differences.

Every pass reads these facts here. `hyps.passes.mlas` has those about onnxruntime's kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto, NodeProto, helper

Shape = tuple[int, ...]

#: Domains under which the standard operators are written.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
#: The domain of the operators of classical machine learning, whose outputs' shapes follow from the shapes of their inputs.
CLASSICAL_DOMAIN = "ai.onnx.ml"

#: The opset from which Slice takes its starts, ends and axes as inputs and not as attributes.
SLICE_INPUTS_OPSET = 10
#: The opset from which Pad takes its amounts as an input and not as an attribute.
PAD_INPUTS_OPSET = 11
#: The opset from which Softmax works along one axis, by default the last. Before, it flattens all axes from ``axis`` (1) on.
SOFTMAX_LAST_AXIS_OPSET = 13

FLOAT_PRODUCTS = frozenset({"Gemm", "MatMul"})
#: 8-bit products; they add up integers.
INTEGER_PRODUCTS = frozenset({"MatMulInteger", "QLinearMatMul"})
PRODUCTS = FLOAT_PRODUCTS | INTEGER_PRODUCTS
FLOAT_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
#: 8-bit convolutions; they add up integers.
INTEGER_CONVOLUTIONS = frozenset({"ConvInteger", "QLinearConv"})
CONVOLUTIONS = FLOAT_CONVOLUTIONS | INTEGER_CONVOLUTIONS
INTEGER_OPERATORS = INTEGER_PRODUCTS | INTEGER_CONVOLUTIONS
#: The position of the weight among the operands, where it is not 1.
WEIGHT_POSITION = {"QLinearMatMul": 3, "QLinearConv": 3}
#: The positions of the operands with one number per column or channel of the result: biases, scales and zero points.
CHANNEL_VECTORS = {
    "Gemm": (2,),
    "MatMulInteger": (3,),
    "QLinearMatMul": (4, 5),
    "Conv": (2,),
    "ConvTranspose": (2,),
    "ConvInteger": (3,),
    "QLinearConv": (4, 5, 8),
}
POOLINGS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"})
#: Activation functions: element by element, of one tensor; bounds and slopes are constants or attributes.
ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "HardSwish"}
    | {"Selu", "Softplus", "Softsign", "ThresholdedRelu"}
)
#: Operators that return the elements of their first input unchanged and in order; only the shape may differ.
RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})

#: Operators past which onnxruntime moves QuantizeLinear and DequantizeLinear (QDQPropagationTransformer).
CODE_MOVES = frozenset({"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def standard_opset(proto: ModelProto) -> int:
    """Return the version of the standard operators that a model uses; 0 where it names none."""
    return max((entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, text decoded."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def softmax_axis(attributes: Mapping[str, Any], opset: int, rank: int) -> int:
    """Return the axis, not negative, of a Softmax of ``rank`` axes; before opset 13 it is the first of those flattened."""
    return int(attributes.get("axis", -1 if opset >= SOFTMAX_LAST_AXIS_OPSET else 1)) % rank


def transpose_order(attributes: Mapping[str, Any], rank: int) -> list[int]:
    """Return, for every axis of a Transpose's output, the axis of its input; by default the axes are reversed."""
    return list(attributes.get("perm", range(rank)[::-1]))


def is_auto_padded(attributes: Mapping[str, Any]) -> bool:
    """Return whether a convolution's or pooling's padding follows from its shapes (SAME_UPPER or SAME_LOWER)."""
    return attributes.get("auto_pad") in {"SAME_UPPER", "SAME_LOWER"}


def spatial_strides(attributes: Mapping[str, Any], axes: int) -> Shape:
    """Return a convolution's or pooling's stride along each of its spatial ``axes``."""
    return tuple(attributes.get("strides") or [1] * axes)


def spatial_dilations(attributes: Mapping[str, Any], axes: int) -> Shape:
    """Return a convolution's or pooling's dilation along each of its spatial ``axes``."""
    return tuple(attributes.get("dilations") or [1] * axes)


def spatial_pads(attributes: Mapping[str, Any], kernel: Sequence[int], source: Sequence[int]) -> Shape:
    """Return the padding of a Conv or a pooling: the amounts before every spatial axis, then those after every one.

    ``kernel`` and ``source`` are the sizes of the kernel and of the input along the spatial axes. SAME_UPPER and SAME_LOWER
    pad until the output has ceil(input / stride) positions; an odd amount has its extra row at the end or at the start.
    """
    axes = len(kernel)
    if attributes.get("auto_pad") == "VALID":
        return (0,) * 2 * axes
    if not is_auto_padded(attributes):
        return tuple(attributes.get("pads") or [0] * 2 * axes)
    strides, dilations = spatial_strides(attributes, axes), spatial_dilations(attributes, axes)
    extents = [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    sizes = zip(source, strides, extents, strict=True)
    totals = [max((-(-size // stride) - 1) * stride + extent - size, 0) for size, stride, extent in sizes]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (*small, *large) if attributes["auto_pad"] == "SAME_UPPER" else (*large, *small)
