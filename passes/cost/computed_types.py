"""View a model in the types in which onnxruntime computes it as a stock step: codes of 8 bits, and floats of 32.

A quantised model has DequantizeLinear before a product or a convolution, and QuantizeLinear after it. onnxruntime computes
the three as one operator on codes (``qdq_selectors.cc``), and folds no DequantizeLinear meanwhile. So weights stay codes, a
quarter of the floats. Method: the sources of its 8-bit convolution (``qlinearconv.cc``): sums of 32 bits for each result,
its input and its result once more in another layout, and either the columns of the input or pointers to them.

Floats of 16 bits are another matter: the processor has no operators for most of them, and onnxruntime computes in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.graph import Graph, Operator

#: Operators that onnxruntime computes on codes, where their weights are codes as well.
_CODED = frozenset({"Conv", "Gemm", "MatMul"})
_CODES = frozenset({"int8", "uint8"})
HALF_FLOATS = frozenset({"float16", "bfloat16"})
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_SUM_BYTES, _POINTER_BYTES = 4, 8


def is_coded(graph: Graph) -> bool:
    """Return whether a model computes on codes anywhere."""
    return any(operator.op_type == _QUANTIZE for operator in graph.operators)


def coded_view(graph: Graph, threads: int) -> tuple[Graph, Mapping[str, Footprint]]:
    """Return a graph whose tensors between codes have no bytes as floats, and its footprints."""
    units = _Units(graph)
    tensors = {name: replace(each, nbytes=0) if name in units.absent else each for name, each in graph.tensors.items()}
    found = replace(graph, tensors=tensors)
    prints = dict(footprints(found, threads))
    for operator in graph.operators:
        own = prints[operator.name]
        if operator.name in units.coded:
            prints[operator.name] = replace(own, workspace_bytes=_workspace_bytes(graph, operator))
        elif operator.op_type in {_QUANTIZE, _DEQUANTIZE}:  # element by element
            prints[operator.name] = replace(own, workspace_bytes=0)
    return found, prints


def widened_view(graph: Graph) -> Graph:
    """Return a graph whose floats of 16 bits take 32."""
    tensors, weights = (
        {name: replace(each, nbytes=2 * each.nbytes) if each.dtype in HALF_FLOATS else each for name, each in values.items()}
        for values in (graph.tensors, graph.weights)
    )
    return replace(graph, tensors=tensors, weights=weights)


def _workspace_bytes(graph: Graph, operator: Operator) -> int:
    """Return the workspace of an operator on codes. Its input is counted again, as it stays in memory meanwhile."""
    source, kernel, result = (graph.tensors[name].shape for name in (*operator.inputs[:2], operator.outputs[0]))
    nbytes = 2 * math.prod(source) + (2 + _SUM_BYTES) * math.prod(result)
    if operator.op_type != "Conv" or math.prod(kernel[2:]) == 1:
        return nbytes
    return nbytes + math.prod(result[2:]) * math.prod(kernel[2:]) * max(kernel[1], _POINTER_BYTES)


class _Units:
    """The operators of a graph that are computed on codes, and the floats that do not exist then, by their names."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._readers: dict[str, list[Operator]] = {}
        for operator in graph.operators:
            for name in operator.inputs:
                self._readers.setdefault(name, []).append(operator)
        self._writer = {name: operator for operator in graph.operators for name in operator.outputs}
        self.coded = {each.name for each in graph.operators if self._is_coded(each)}
        self.absent = {name for each in graph.operators for name in each.outputs if self._is_absent(each, name)}

    def _is_absent(self, operator: Operator, name: str) -> bool:
        """Return whether a tensor lies within operators on codes."""
        if operator.op_type == _DEQUANTIZE:
            readers = self._readers.get(name, [])
            return name not in self._graph.outputs and all(reader.name in self.coded for reader in readers)
        return operator.name in self.coded

    def _is_coded(self, operator: Operator) -> bool:
        """Return whether an operator is computed on codes: it reads nothing else, and its result gets the input's type.

        Not where an activation comes in between: onnxruntime removes that for some zero points alone, unknown here.
        """
        if operator.op_type not in _CODED or operator.weights or len(operator.inputs) < 2:
            return False
        before = [self._writer.get(name) for name in operator.inputs]
        if not all(each is not None and each.op_type == _DEQUANTIZE for each in before):
            return False
        source, kernel = (self._code_type(each) for each in before[:2] if each is not None)
        after = self._only_reader(operator)
        if after is None or after.op_type != _QUANTIZE or not {source, kernel} <= _CODES:
            return False
        return self._graph.tensors[after.outputs[0]].dtype == source and (source == "uint8" or kernel == "int8")

    def _code_type(self, operator: Operator) -> str:
        """Return the type of the codes that a DequantizeLinear reads."""
        graph = self._graph
        return graph.tensors[operator.inputs[0]].dtype if operator.inputs else graph.weights[operator.weights[0]].dtype

    def _only_reader(self, operator: Operator) -> Operator | None:
        (name, *others) = operator.outputs
        found = self._readers.get(name, [])
        return found[0] if len(found) == 1 and not others and name not in self._graph.outputs else None
