"""The facts about ONNX operators agree with the schemas that the onnx package has for each opset."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, shape_inference

from hyps.passes.onnx_ops import (
    CHANNEL_VECTORS,
    CONVOLUTIONS,
    PAD_INPUTS_OPSET,
    PRODUCTS,
    SLICE_INPUTS_OPSET,
    SOFTMAX_LAST_AXIS_OPSET,
    WEIGHT_POSITION,
    softmax_axis,
    spatial_pads,
)


@pytest.mark.parametrize(
    ("kind", "attribute", "opset"), [("Slice", "starts", SLICE_INPUTS_OPSET), ("Pad", "pads", PAD_INPUTS_OPSET)]
)
def test_attributes_became_inputs(kind: str, attribute: str, opset: int) -> None:
    assert attribute in onnx.defs.get_schema(kind, opset - 1, "").attributes
    assert attribute in [each.name for each in onnx.defs.get_schema(kind, opset, "").inputs]


@pytest.mark.parametrize("opset", [7, SOFTMAX_LAST_AXIS_OPSET - 1, SOFTMAX_LAST_AXIS_OPSET, 22])
def test_softmax_axis(opset: int) -> None:
    default = onnx.defs.get_schema("Softmax", opset, "").attributes["axis"].default_value.i
    assert softmax_axis({}, opset, 4) == default % 4
    assert softmax_axis({"axis": -2}, opset, 4) == 2


def test_operands() -> None:
    """Weights are called w, b or B; channel vectors are the bias, or scales and zero points of the weight."""
    for kind in PRODUCTS | CONVOLUTIONS:
        names = [each.name for each in onnx.defs.get_schema(kind, 22, "").inputs]
        assert names[WEIGHT_POSITION.get(kind, 1)] in {"W", "w", "B", "b"}
        vectors = {names[position].lower() for position in CHANNEL_VECTORS.get(kind, ())}
        assert vectors <= {"b", "c", "b_scale", "b_zero_point", "w_scale", "w_zero_point"}


@given(st.data(), st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
def test_pads_give_the_inferred_shape(data: st.DataObject, auto_pad: str) -> None:
    kernel, strides, dilations = (data.draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (4, 3, 2))
    source = data.draw(st.tuples(*[st.integers(8, 20)] * 2))
    attributes: dict[str, Any] = {"auto_pad": auto_pad, "strides": list(strides), "dilations": list(dilations)}
    if auto_pad == "NOTSET":
        attributes["pads"] = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    pads = spatial_pads(attributes, kernel, source)
    sizes = zip(source, kernel, strides, dilations, pads[:2], pads[2:], strict=True)
    positions = [
        (size + before + after - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation, before, after in sizes
    ]
    assert positions == inferred(attributes, kernel, source)
    if auto_pad.startswith("SAME"):
        odd = [after - before for before, after in zip(pads[:2], pads[2:], strict=True)]
        assert all(extra in (0, 1 if auto_pad == "SAME_UPPER" else -1) for extra in odd)


def inferred(attributes: dict[str, Any], kernel: tuple[int, ...], source: tuple[int, ...]) -> list[int]:
    """Return the output's spatial shape as onnx infers it for a Conv."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, *sizes])
        for name, sizes in (("x", source), ("w", kernel))
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph([node], "conv", inputs, outputs))
    (y,) = shape_inference.infer_shapes(model, strict_mode=True).graph.output
    return [dimension.dim_value for dimension in y.type.tensor_type.shape.dim[2:]]
