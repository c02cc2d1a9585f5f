"""Let an 8-bit operator emit its sums of products as 32-bit integers, and round them to 8 bits in an operator of their own.

Codes need that: sums are linear in the weights, what is rounded is not. A QLinearConv becomes a ConvInteger, a
QLinearMatMul becomes a MatMulInteger, and so do a Conv and a MatMul of which onnxruntime makes these
(`hyps.passes.sharding.quantised_forms`).

onnxruntime's QLinear operators convert a sum and its bias to float32, multiply by a float32 number (input's scale x weight's
scale / result's scale), round to the nearest whole number, halves to even ones, and add the zero point
(MlasRequantizeOutput). Cast, Mul and a QuantizeLinear with the scale 1 do the same, so that no bit changes
(tests/passes/sharding/test_integer_codes.py).

Inputs and weights become unsigned: 128 is added to signed ones and to their zero points. Products of unsigned by signed
numbers saturate on x86 processors without VNNI, and sums would then not be linear in the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto, TensorProto, numpy_helper

from hyps.passes.edit import GraphEditor
from hyps.passes.graph import type_name
from hyps.passes.onnx_ops import INTEGER_CONVOLUTIONS, INTEGER_OPERATORS, WEIGHT_POSITION
from hyps.passes.shapes import infer_shapes
from hyps.passes.sharding.integer_codes import Numbers, Rounding, integer_operands
from hyps.passes.sharding.quantised_forms import QuantisedForms
from hyps.passes.weights import Model, byte_plane, combined, placeholder


def with_accumulators(model: Model, operators: Sequence[str]) -> Model:
    """Return the model with the 8-bit ones of ``operators`` as integer operators of the same names.

    Raises `UnsupportedModel` for one that `hyps.passes.sharding.coded` refuses.
    """
    if not operators:
        return model
    forms = QuantisedForms(model.proto)
    nodes = {node.name: node for node in model.proto.graph.node}
    found = [(nodes[name], forms.of(nodes[name])) for name in operators]
    chosen = [(node, form) for node, form in found if form or node.op_type in INTEGER_OPERATORS]
    if not chosen:
        return model
    editor = GraphEditor(model)
    graph = model.proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    for node, form in chosen:
        replaced = [node.name, *([form.quantises] if form else [])]
        _replace(editor, form.node if form else node, replaced, types)
        for name in form.dequantises if form else ():
            editor.remove_if_unread(editor.operator(name))
    return infer_shapes(editor.finish())


def _replace(editor: GraphEditor, node: NodeProto, replaced: Sequence[str], types: Mapping[str, int]) -> None:
    """Put an integer operator, and what rounds its sums, in the place of ``replaced``, for which ``node`` stands."""
    source, source_type = editor.tensor(node.input[0]), type_name(types[node.input[0]])
    weight = editor.tensor(node.input[WEIGHT_POSITION.get(node.op_type, 1)])
    weight_type = type_name(editor.constants[weight.name].data_type)
    operands = integer_operands(node, weight_type, lambda name: constant_values(editor, name))
    nodes: list[gs.Node] = []
    result = editor.tensor(node.output[0])
    is_convolution = node.op_type in INTEGER_CONVOLUTIONS
    given = [
        _unsigned(editor, node.name, source, nodes) if source_type == "int8" else source,
        _unsigned_weight(editor, node.name, weight) if weight_type == "int8" else weight,
        _zero(editor, f"{node.name}/input zero", operands.source_zero, is_signed=source_type == "int8"),
        _zero(editor, f"{node.name}/weight zero", operands.weight_zero, is_signed=weight_type == "int8"),
    ]
    rounding = operands.rounding
    kind = "ConvInteger" if is_convolution else "MatMulInteger"
    sums = gs.Variable(f"{result.name}/sums") if rounding else result
    nodes.append(editor.node(kind, node.name, given, sums, **editor.operator(node.name).attrs))
    if rounding:
        nodes += _rounded(editor, node.name, sums, rounding, result, 1 if is_convolution else -1)
    editor.replace([editor.operator(name) for name in replaced], nodes)


def constant_values(editor: GraphEditor, name: str) -> Numbers | None:
    """Return the values of a small constant; None for anything else."""
    held = editor.constants.get(name)
    return None if held is None or name in editor.weights else numpy_helper.to_array(held)


def _unsigned(editor: GraphEditor, name: str, source: gs.Tensor, nodes: list[gs.Node]) -> gs.Tensor:
    """Return an int8 tensor plus 128, computed by ``nodes`` that are added."""
    shift = editor.constant(numpy_helper.from_array(np.array(128, np.int32), f"{name}/128"))
    wide = editor.node("Cast", f"{name}/wide", [source], f"{name}/wide", to=TensorProto.INT32)
    shifted = editor.node("Add", f"{name}/shifted", [*wide.outputs, shift], f"{name}/shifted")
    unsigned = editor.node("Cast", f"{name}/unsigned", shifted.outputs, f"{name}/unsigned", to=TensorProto.UINT8)
    nodes += [wide, shifted, unsigned]
    return unsigned.outputs[0]


def _unsigned_weight(editor: GraphEditor, name: str, weight: gs.Constant) -> gs.Constant:
    """Return an int8 constant plus 128: its low plane, as its high one is empty."""
    whole, stored = editor.constants[weight.name], editor.weights.get(weight.name)
    made = f"{name}/unsigned weight"
    if stored is None:
        return editor.constant(numpy_helper.from_array(byte_plane(numpy_helper.to_array(whole), "low"), made))
    held = placeholder(made, TensorProto.UINT8, tuple(whole.dims))
    return editor.constant(held, combined("int8", [stored], [1.0], plane="low"))


def _zero(editor: GraphEditor, name: str, zero: Numbers, *, is_signed: bool) -> gs.Constant:
    return editor.constant(numpy_helper.from_array(np.array(int(zero) + 128 * is_signed, np.uint8), name))


def _rounded(
    editor: GraphEditor, name: str, sums: gs.Tensor, rounding: Rounding, result: gs.Tensor, axis: int
) -> list[gs.Node]:
    """Return the operators that add the bias to ``sums`` and round them to 8 bits; channels lie along ``axis``."""
    nodes: list[gs.Node] = []

    def by_channel(values: Numbers, what: str) -> gs.Constant:
        shape = (-1, *[1] * (len(result.shape) - 2)) if axis == 1 and values.ndim else values.shape
        return editor.constant(numpy_helper.from_array(values.reshape(shape), f"{name}/{what}"))

    def add(op_type: str, what: str, inputs: Sequence[gs.Tensor], output: gs.Tensor | str, **attributes: Any) -> gs.Tensor:
        nodes.append(editor.node(op_type, f"{name}/{what}", inputs, output, **attributes))
        return nodes[-1].outputs[0]

    value = sums
    if rounding.bias:
        bias = constant_values(editor, rounding.bias)
        assert bias is not None
        value = add("Add", "biased", [value, by_channel(bias, "bias")], f"{result.name}/biased")
    value = add("Cast", "float", [value], f"{result.name}/float", to=TensorProto.FLOAT)
    value = add("Mul", "scaled", [value, by_channel(rounding.scale, "scale")], f"{result.name}/scaled")
    one = editor.constant(numpy_helper.from_array(np.array(1, np.float32), f"{name}/one"))
    zero = editor.constant(numpy_helper.from_array(np.asarray(rounding.zero), f"{name}/zero"))
    add("QuantizeLinear", "rounded", [value, one, zero], result)
    return nodes
