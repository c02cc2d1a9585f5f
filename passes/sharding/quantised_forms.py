"""Find convolutions and products that onnxruntime computes in 8 bits: between DequantizeLinear and QuantizeLinear.

onnxruntime's extended level replaces such an operator, with what dequantises its operands and quantises its result, by a
QLinear operator (QDQSelectorActionTransformer). The 32-bit bias is then added as it is stored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from hyps.passes.onnx_ops import STANDARD_DOMAINS

_FORMS = {"Conv": "QLinearConv", "MatMul": "QLinearMatMul"}
_BYTES = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedForm:
    """The QLinear operator that onnxruntime makes of an operator, and the names of the others that it replaces.

    ``node`` has the operator's name and the output of ``quantises``. ``dequantises`` write its operands.
    """

    node: NodeProto
    quantises: str
    dequantises: tuple[str, ...]


class QuantisedForms:
    """The quantised forms of one model's operators."""

    def __init__(self, proto: ModelProto) -> None:
        graph = proto.graph
        self._writers = {name: node for node in graph.node for name in node.output}
        self._counts = Counter(name for node in graph.node for name in node.input)
        self._counts.update(value.name for value in graph.output)
        self._readers = {name: node for node in graph.node for name in node.input}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def of(self, node: NodeProto) -> QuantisedForm | None:
        """Return the form of a node; None where onnxruntime does not compute it in 8 bits."""
        if node.op_type not in _FORMS or node.domain not in STANDARD_DOMAINS or self._counts[node.output[0]] != 1:
            return None
        quantise = self._readers.get(node.output[0])
        operands = [self._writers.get(name) for name in node.input if name]
        if quantise is None or quantise.op_type != "QuantizeLinear" or not self._has_constants(quantise):
            return None
        dequantised = [each for each in operands if each is not None and self._has_constants(each)]
        if len(dequantised) < len(operands) or any(each.op_type != "DequantizeLinear" for each in dequantised):
            return None
        source, weight, *bias = dequantised
        along = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 1)
        rank = len(self._constants[weight.input[0]].dims) if weight.input[0] in self._constants else 0
        is_per_channel = bool(self._constants[weight.input[1]].dims)
        if not rank or (is_per_channel and along % rank != (0 if node.op_type == "Conv" else rank - 1)):
            return None
        kinds = [self._constants[each.input[2]].data_type for each in (source, weight, quantise)]
        mixed = kinds[0] != kinds[2] or (kinds[0] == TensorProto.INT8 and kinds[1] != TensorProto.INT8)
        stored = [self._constants.get(each.input[0]) for each in bias]
        if (
            mixed
            or any(kind not in _BYTES for kind in kinds)
            or any(each is None or each.data_type != TensorProto.INT32 for each in stored)
        ):
            return None
        names = [*source.input[:3], *weight.input[:3], *quantise.input[1:3], *(each.input[0] for each in bias)]
        made = helper.make_node(_FORMS[node.op_type], names, list(quantise.output), node.name)
        made.attribute.extend(node.attribute)
        return QuantisedForm(
            node=made, quantises=quantise.name, dequantises=tuple(dict.fromkeys(each.name for each in dequantised))
        )

    def _has_constants(self, node: NodeProto) -> bool:
        """Return whether an operator has a constant scale and zero point; biases need no zero point."""
        given = [name for name in node.input[1:] if name]
        is_bias = node.input[0] in self._constants and self._constants[node.input[0]].data_type == TensorProto.INT32
        return len(given) >= (1 if is_bias else 2) and all(name in self._constants for name in given)
