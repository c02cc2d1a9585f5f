"""Find the operators that onnxruntime computes as one: a cut between them would change the arithmetic, or the speed.

onnxruntime's basic and extended levels fuse Conv, Gemm and MatMul with what follows (ConvBNFusion, ConvAddActivationFusion,
ConvActivationFusion, GemmActivationFusion, GemmSumFusion, MatMulAddFusion, MatMulBNFusion), x * Sigmoid(x)
(QuickGeluFusion) and x * (1 + Erf(x / c)) / 2 (GeluFusion). It moves QuantizeLinear and DequantizeLinear past what only
moves elements (QDQPropagationTransformer), and then computes in 8 bits what is between them. First it removes operators that
do nothing, such as Identity.

When both sides of a residual Add are convolutions, it picks one of them. The fusion group here holds both, so that the pick
cannot differ between the whole model and a partition. docs/guide/exactness.md lists all its graph transformers, and what is
done about each.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping

import networkx as nx

from hyps.passes.cost.folding import unfolded_operators
from hyps.passes.graph import Graph, Operator
from hyps.passes.onnx_ops import ACTIVATIONS, CODE_MOVES, FLOAT_CONVOLUTIONS, FLOAT_PRODUCTS

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
    """Return the groups of two or more operators that onnxruntime may compute as one, each as sorted indices."""
    return tuple(sorted(tuple(sorted(group)) for group in nx.connected_components(_Fusions(graph).joined())))


class _Fusions:
    """The fusions of one graph; operators are known by their index.

    A group grows along the execution order from its first operator, whose kind (*head*) decides what else can join.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._fused = nx.Graph()
        self._writer = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
        self._removed = {index for index, operator in enumerate(graph.operators) if _is_removed(graph, operator)}
        #: Every tensor that an operator to be removed writes, by the tensor that it copies.
        self._copied: dict[str, str] = {}
        for index in sorted(self._removed):
            (name,) = graph.operators[index].outputs
            self._copied[name] = self._source(graph.operators[index].inputs[0])
        kept = (operator for index, operator in enumerate(graph.operators) if index not in self._removed)
        self._readers = Counter(self._source(name) for operator in kept for name in operator.inputs)
        self._readers.update(map(self._source, graph.outputs))
        self._unfolded = unfolded_operators(graph)  # their results are the same wherever a cut is

    def joined(self) -> nx.Graph:
        """Return the operators with an edge between those that belong together."""
        operators = self._graph.operators
        head: dict[int, str] = {}
        codes: set[str] = set()
        for index, operator in enumerate(operators):
            head[index] = operator.op_type
            for name in operator.inputs if index not in self._removed else ():
                source = self._source(name)
                before = self._writer.get(source)
                if before is None or operators[before].name in self._unfolded:
                    continue
                follows = self._readers[source] == 1 and self._follows(operator, head[before], operators[before])
                if follows or source in codes or _is_inseparable(self._graph, operators[before], operator):
                    self._join(name, index)
                if follows:
                    head[index] = _head_after(operator, head[before])
            if self._is_coded(index, codes):
                codes.update(operator.outputs)
        return self._fused

    def _follows(self, operator: Operator, head: str, before: Operator) -> bool:
        """Return whether ``operator`` is computed with ``before``, which it alone reads."""
        if operator.op_type == "Mul" and before.op_type == "Sigmoid":
            return self._source(before.inputs[0]) in map(self._source, operator.inputs)
        return _is_fused(operator, head, before)

    def _source(self, name: str) -> str:
        """Return the tensor that ``name`` is once onnxruntime has removed what does nothing."""
        return self._copied.get(name, name)

    def _join(self, name: str, reader: int) -> None:
        """Join an operator with the one that computes the tensor ``name``, and with those between that are removed."""
        while (before := self._writer.get(name)) is not None and not self._fused.has_edge(before, reader):
            self._fused.add_edge(before, reader)
            if before not in self._removed:
                return
            name, reader = self._graph.operators[before].inputs[0], before

    def _is_coded(self, index: int, codes: Collection[str]) -> bool:
        """Return whether no reader may be cut from an operator: it moves ``codes``, or is from DequantizeLinear itself."""
        operator = self._graph.operators[index]
        if operator.op_type == "QuantizeLinear":
            return self._join_moves(index)
        moves = self._is_moved(index) and self._source(operator.inputs[0]) in codes
        return moves or operator.op_type == "DequantizeLinear"

    def _is_moved(self, index: int) -> bool:
        """Return whether onnxruntime moves QuantizeLinear and DequantizeLinear past an operator."""
        return self._graph.operators[index].op_type in CODE_MOVES and bool(self._graph.operators[index].inputs)

    def _join_moves(self, index: int) -> bool:
        """Join a QuantizeLinear with the operators past which it moves, and with the one before them.

        Return whether it follows another pair with another scale: then the two pairs may be merged.
        """
        operators, moves, last = self._graph.operators, [], index
        while operators[last].inputs and (before := self._writer.get(self._source(operators[last].inputs[0]))) is not None:
            moves.append(last)
            last = before
            if not self._is_moved(before):
                break
        for reader in moves if len(moves) > 1 else ():
            self._join(operators[reader].inputs[0], reader)
        is_pair = operators[last].op_type == "DequantizeLinear" and operators[last].weights != operators[index].weights
        if is_pair and len(moves) == 1:
            self._join(operators[last].inputs[0], last)
            return True
        return False


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


def _is_removed(graph: Graph, operator: Operator) -> bool:
    """Return whether onnxruntime removes an operator because it changes nothing (EliminateIdentity and the like)."""
    if len(operator.inputs) != 1 or len(operator.outputs) != 1:
        return False
    if operator.op_type == "Cast":
        return graph.tensors[operator.inputs[0]].dtype == graph.tensors[operator.outputs[0]].dtype
    return operator.op_type in {"Identity", "Dropout"}


def _is_fused(operator: Operator, head: str, before: Operator) -> bool:
    """Return whether ``operator`` is computed with ``before``, the end of a fused chain whose first is a ``head``."""
    kind = operator.op_type
    if kind == "QuantizeLinear":  # the operators from DequantizeLinear to this one become one 8-bit operator
        return True
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
