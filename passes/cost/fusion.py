"""Which operators onnxruntime computes as one: a cut between them would change its arithmetic, or its speed.

onnxruntime's basic and extended levels fuse Conv, Gemm and MatMul with what follows (ConvBNFusion, ConvAddActivationFusion,
ConvActivationFusion, GemmActivationFusion, GemmSumFusion, MatMulAddFusion, MatMulBNFusion), x * Sigmoid(x)
(QuickGeluFusion) and x * (1 + Erf(x / c)) / 2 (GeluFusion). When both sides of a residual Add are convolutions, it picks
one of them; the group here holds both, so that the pick cannot differ between the whole model and a partition. Other
fusions that only transformers have (LayerNormalization in pieces, SkipLayerNormalization) are not known here yet.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

from hyps.passes.graph import Graph, Operator

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "HardSwish"}
    | {"Selu", "Softplus", "Softsign", "ThresholdedRelu"}
)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
#: What pads by itself takes in a Pad before it (PadFusion); a MaxPool then sees no zeros, but nothing, there.
PADDED = frozenset({"Conv", "MaxPool", "AveragePool"})
#: By one number, they become a product's factor.
_SCALES = frozenset({"Mul", "Div"})
#: What becomes the third operand, or the weights, of a product before it.
_JOINS = {"MatMul": frozenset({"Add", "BatchNormalization"}), "Gemm": frozenset({"Sum"})}


def fusion_groups(graph: Graph) -> tuple[tuple[int, ...], ...]:
    """The indices of operators that onnxruntime may compute as one, a tuple a group of two or more, each sorted."""
    readers = Counter(name for operator in graph.operators for name in operator.inputs)
    readers.update(graph.outputs)
    writer = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    groups = {index: [index] for index in range(len(graph.operators))}
    head: dict[int, str] = {}
    for index, operator in enumerate(graph.operators):
        head[index] = operator.op_type
        for name in operator.inputs:
            before = writer.get(name)
            if before is None:
                continue
            if _is_inseparable(graph, graph.operators[before], operator):
                _join(groups, before, index)
            if readers[name] != 1 or not _follows(operator, head[before], graph.operators[before]):
                continue
            _join(groups, before, index)
            head[index] = _joined_head(operator, head[before])
    return tuple(tuple(sorted(group)) for first, group in groups.items() if len(group) > 1 and first == min(group))


def _join(groups: dict[int, list[int]], one: int, other: int) -> None:
    """Make the groups of two operators one; the smaller is added to the larger."""
    small, large = sorted((groups[one], groups[other]), key=len)
    if small is not large:
        large += small
        groups |= dict.fromkeys(small, large)


def sealed_positions(graph: Graph) -> frozenset[int]:
    """The cut positions that would separate fused operators: all those inside a group's span of the order."""
    spans = ((group[0], group[-1]) for group in fusion_groups(graph))
    return frozenset(itertools.chain.from_iterable(range(first + 1, last + 1) for first, last in spans))


def _is_inseparable(graph: Graph, before: Operator, reader: Operator) -> bool:
    """Whether onnxruntime computes ``before`` with each operator that reads it.

    It folds constants, fuses DequantizeLinear, and lets a product transpose and scale what it reads (MatmulTransposeFusion,
    GemmTransposeFusion, MatMulScaleFusion); Gelu has a number times its input on one side, that divided by one on the other.
    """
    if not before.inputs or before.op_type == "DequantizeLinear":
        return True
    if before.op_type == "Transpose":
        return reader.op_type in PRODUCTS
    if before.op_type == "Pad":
        return reader.op_type in PADDED
    scales = before.op_type in _SCALES and all(math.prod(graph.weights[name].shape) == 1 for name in before.weights)
    read_by = {"MatMul", "Transpose", "Erf"} if reader.weights else {"MatMul", "Transpose", "Erf", "Mul"}
    return scales and bool(before.weights) and reader.op_type in read_by


def _follows(operator: Operator, head: str, before: Operator) -> bool:
    """Whether ``operator`` is computed with its producer ``before``, whose fused chain so far is called ``head``."""
    kind = operator.op_type
    if kind == "QuantizeLinear":  # what is computed between DequantizeLinear and this becomes one 8-bit operator
        return True
    if kind == "Mul" and before.op_type == "Sigmoid":
        return before.inputs[0] in operator.inputs
    if head == "Erf":
        return kind in {"Add", "Mul"}
    if head in _CONVOLUTIONS:
        return kind in ACTIVATIONS or kind in {"BatchNormalization", "Add"} or (kind == "Mul" and bool(operator.weights))
    if head == "Conv+Add":
        return kind in ACTIVATIONS
    if head in PRODUCTS:
        scales = kind in _SCALES and before.op_type == "MatMul" and bool(operator.weights)
        return kind in ACTIVATIONS or kind in _JOINS.get(before.op_type, ()) or scales
    return False


def _joined_head(operator: Operator, head: str) -> str:
    if operator.op_type in ACTIVATIONS:
        return "done"
    if head in PRODUCTS:
        return "Gemm"
    if head == "Erf":
        return head
    if operator.op_type == "Add":
        return "Conv" if operator.weights else "Conv+Add"
    return head
