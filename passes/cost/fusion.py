"""Find the operators that onnxruntime computes as one: a cut between them would change the arithmetic, or the speed.

onnxruntime's basic and extended levels fuse Conv, Gemm and MatMul with what follows (ConvBNFusion, ConvAddActivationFusion,
ConvActivationFusion, GemmActivationFusion, GemmSumFusion, MatMulAddFusion, MatMulBNFusion), x * Sigmoid(x)
(QuickGeluFusion) and x * (1 + Erf(x / c)) / 2 (GeluFusion). When both sides of a residual Add are convolutions, it picks
one of them. The fusion group here holds both, so that the pick cannot differ between the whole model and a partition. Other
fusions that only transformers have (LayerNormalization in pieces, SkipLayerNormalization) are not covered yet.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping

import networkx as nx

from hyps.passes.cost.folding import unfolded_operators
from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import ACTIVATIONS, FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS

#: Activations that onnxruntime fuses into a Conv (ConvActivationFusion) and into a Gemm (GemmActivationFusion) before them.
FUSED_ACTIVATIONS: Mapping[str, frozenset[str]] = {
    "Conv": frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"}),
    "Gemm": frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "HardSigmoid", "Softplus", "Softsign"}),
}
#: Kinds into which onnxruntime fuses the addition of a second operand (ConvAddActivationFusion, MatMulAddFusion).
FUSES_ADD = frozenset({"Conv", "MatMul"})
#: Kinds with padding of their own, into which a Pad before them is fused (PadFusion). A MaxPool then ignores
#: the padding, where it would have seen zeros.
_FUSES_PAD = frozenset({"Conv", "MaxPool", "AveragePool"})
#: Kinds that become the factor of a product, where they multiply or divide by one number.
_SCALES = frozenset({"Mul", "Div"})
#: Kinds that become the third operand, or the weights, of a product before them.
_FUSED_INTO_PRODUCT = {"MatMul": frozenset({"Add", "BatchNormalization"}), "Gemm": frozenset({"Sum"})}


def fusion_groups(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """Return the groups of two or more operators that onnxruntime may compute as one, each as sorted indices.

    A group grows along the execution order from its first operator, whose kind (*head*) decides what else can join.
    """
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    unfolded = unfolded_operators(graph)  # their results are the same wherever a cut is
    writer = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    fused = nx.Graph()
    head: dict[int, str] = {}
    for index, operator in enumerate(graph.operators):
        head[index] = operator.op_type
        for name in operator.inputs:
            before = writer.get(name)
            if before is None or graph.operators[before].name in unfolded:
                continue
            if _is_inseparable(graph, graph.operators[before], operator):
                fused.add_edge(before, index)
            if readers[name] == 1 and _is_fused(operator, head[before], graph.operators[before]):
                fused.add_edge(before, index)
                head[index] = _head_after(operator, head[before])
    return tuple(sorted(tuple(sorted(group)) for group in nx.connected_components(fused)))


def fused_positions(graph: Graph) -> frozenset[int]:
    """Return the cut positions that would separate fused operators: all those inside a group's span of the order."""
    spans = ((group[0], group[-1]) for group in fusion_groups(graph))
    return frozenset(itertools.chain.from_iterable(range(first + 1, last + 1) for first, last in spans))


def _is_inseparable(graph: Graph, before: Operator, reader: Operator) -> bool:
    """Return whether onnxruntime computes ``before`` together with each operator that reads it.

    It folds constants, fuses DequantizeLinear, and lets a product transpose and scale its factors (MatmulTransposeFusion,
    GemmTransposeFusion, MatMulScaleFusion). Gelu multiplies its input by a number on one side, and divides it on the other.
    """
    if not before.inputs or before.op_type == "DequantizeLinear":
        return True
    if before.op_type == "Transpose":
        return reader.op_type in FLOAT_PRODUCTS
    if before.op_type == "Pad":
        return reader.op_type in _FUSES_PAD
    scales = before.op_type in _SCALES and all(math.prod(graph.weights[name].shape) == 1 for name in before.weights)
    scaled = {"MatMul", "Transpose", "Erf"} if reader.weights else {"MatMul", "Transpose", "Erf", "Mul"}
    return scales and bool(before.weights) and reader.op_type in scaled


def _is_fused(operator: Operator, head: str, before: Operator) -> bool:
    """Return whether ``operator`` is computed with ``before``, the end of a fused chain whose first is a ``head``."""
    kind = operator.op_type
    if kind == "QuantizeLinear":  # the operators from DequantizeLinear to this one become one 8-bit operator
        return True
    if kind == "Mul" and before.op_type == "Sigmoid":
        return before.inputs[0] in operator.inputs
    if head == "Erf":
        return kind in {"Add", "Mul"}
    if head in FLOAT_CONVOLUTIONS:
        return kind in ACTIVATIONS or kind in {"BatchNormalization", "Add"} or (kind == "Mul" and bool(operator.weights))
    if head == "Conv+Add":
        return kind in ACTIVATIONS
    if head in FLOAT_PRODUCTS:
        scales = kind in _SCALES and before.op_type == "MatMul" and bool(operator.weights)
        return kind in ACTIVATIONS or kind in _FUSED_INTO_PRODUCT.get(before.op_type, ()) or scales
    return False


def _head_after(operator: Operator, head: str) -> str:
    """Return the head of a chain that ``operator`` has joined."""
    if operator.op_type in ACTIVATIONS:
        return "done"
    if head in FLOAT_PRODUCTS:
        return "Gemm"
    if head == "Erf":
        return head
    if operator.op_type == "Add":
        return "Conv" if operator.weights else "Conv+Add"
    return head
