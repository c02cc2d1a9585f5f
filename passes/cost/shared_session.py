"""Which partitions may differ in their weights alone, so that one session runs them one after the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from hyps.passes.graph import Graph, Operator

#: Their kernels compute the same whether a weight is a constant or an input.
SHARING = frozenset({"Conv", "Gemm", "MatMul", "Relu"})


def shared_session_key(graph: Graph, operators: Sequence[Operator]) -> Hashable:
    """What two such partitions have in common, but for attributes: enough to weigh a plan; None of any other partition.

    `hyps.compiler.bundle_writer.shared_session` decides.
    """
    if len(operators) > 2 or any(operator.op_type not in SHARING for operator in operators):
        return None
    return tuple((operator.op_type, tuple(_kinds(graph, operator))) for operator in operators)


def _kinds(graph: Graph, operator: Operator) -> Iterator[Hashable]:
    for name in (*operator.weights, *operator.inputs, *operator.outputs):
        tensor = graph.weights[name] if name in graph.weights else graph.tensors[name]
        yield tensor.dtype, tensor.shape
