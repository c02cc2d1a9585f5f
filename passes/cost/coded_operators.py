"""Leave out what onnxruntime does not make where it computes in 8 bits: the floats that a model writes between its codes.

A quantised model has DequantizeLinear before a product or a convolution, and QuantizeLinear after it. onnxruntime computes
the three as one operator on codes (``qdq_selectors.cc``), and folds no DequantizeLinear meanwhile. Weights stay codes then,
a quarter of the floats. Results on the way are counted as floats, which is more than the operator's own workspace: its sums
have 32 bits, too, and next to them it holds its input and its result once more, in another layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import ACTIVATIONS

#: Operators that onnxruntime computes on codes, where their weights are codes as well.
_CODED = frozenset({"Conv", "Gemm", "MatMul"})
_CODES = frozenset({"int8", "uint8"})
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
#: The workspace of an operator on codes beyond its 32-bit sums, as a multiple of its result.
_CODED_WORKSPACE = 2


def is_coded(graph: Graph) -> bool:
    """Return whether a model computes on codes anywhere."""
    return any(operator.op_type == _QUANTIZE for operator in graph.operators)


def coded_view(graph: Graph, threads: int) -> tuple[Graph, Mapping[str, Footprint]]:
    """Return a graph whose weights between codes have no bytes as floats, and its footprints; for stock steps alone.

    In other steps the workspace of these operators is larger: they change the layout of what they read and write.
    """
    names = _coded_weights(graph)
    tensors = {name: replace(tensor, nbytes=0) if name in names else tensor for name, tensor in graph.tensors.items()}
    found = replace(graph, tensors=tensors)
    prints = dict(footprints(found, threads))
    for operator in graph.operators:
        if operator.op_type in {_QUANTIZE, _DEQUANTIZE}:
            own = prints[operator.name]
            nbytes = _CODED_WORKSPACE * own.output_bytes if operator.op_type == _QUANTIZE else 0
            prints[operator.name] = replace(own, workspace_bytes=nbytes)
    return found, prints


def _coded_weights(graph: Graph) -> Set[str]:
    """Return the names of the dequantised weights that only operators on codes read."""
    readers: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        for name in operator.inputs:
            readers.setdefault(name, []).append(operator)
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    coded = {each.name for each in graph.operators if _computes_on_codes(graph, each, writer, readers)}
    constants = (each for each in graph.operators if each.op_type == _DEQUANTIZE and not each.inputs)
    names = {name for operator in constants for name in operator.outputs if name not in graph.outputs}
    return {name for name in names if all(reader.name in coded for reader in readers.get(name, ()))}


def _computes_on_codes(
    graph: Graph, operator: Operator, writer: Mapping[str, Operator], readers: Mapping[str, list[Operator]]
) -> bool:
    """Return whether onnxruntime computes an operator on codes: it reads codes only, and its result becomes the same type."""
    if operator.op_type not in _CODED or operator.weights or len(operator.inputs) < 2:
        return False
    before = [writer.get(name) for name in operator.inputs]
    if not all(each is not None and each.op_type == _DEQUANTIZE for each in before):
        return False
    source, kernel = (_code_type(graph, each) for each in before[:2] if each is not None)
    after = _only_reader(graph, operator, readers)
    if after is not None and after.op_type in ACTIVATIONS:
        after = _only_reader(graph, after, readers)
    if after is None or after.op_type != _QUANTIZE or not {source, kernel} <= _CODES:
        return False
    return graph.tensors[after.outputs[0]].dtype == source and (source == "uint8" or kernel == "int8")


def _code_type(graph: Graph, operator: Operator) -> str:
    """Return the type of the codes that a DequantizeLinear reads."""
    return graph.tensors[operator.inputs[0]].dtype if operator.inputs else graph.weights[operator.weights[0]].dtype


def _only_reader(graph: Graph, operator: Operator, readers: Mapping[str, list[Operator]]) -> Operator | None:
    (name, *others) = operator.outputs
    found = readers.get(name, [])
    return found[0] if len(found) == 1 and not others and name not in graph.outputs else None
