"""Find partitions that may differ in their weights alone, so that one session runs them one after the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from hyps.passes.graph import Graph, Operator
from hyps.passes.mlas import INPUT_WEIGHTS


def shared_session_key(graph: Graph, operators: Sequence[Operator]) -> Hashable:
    """Return a key that is equal for partitions that may share a session, attributes aside; None for any other partition.

    This is only an estimate for planning; `hyps.compiler.bundle_writer.shared_session` decides.
    """
    if len(operators) > 2 or any(operator.op_type not in INPUT_WEIGHTS for operator in operators):
        return None
    return tuple((operator.op_type, tuple(_types(graph, operator))) for operator in operators)


def _types(graph: Graph, operator: Operator) -> Iterator[Hashable]:
    for name in (*operator.weights, *operator.inputs, *operator.outputs):
        tensor = graph.weights[name] if name in graph.weights else graph.tensors[name]
        yield tensor.dtype, tensor.shape
