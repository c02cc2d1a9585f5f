"""Find the tables that need not be in memory, because the runtime can read just the rows that an input needs.

A Gather along the first axis of a large weight, such as an embedding table, returns whole rows. A row's bytes lie together
in the weights file. As a step of its own, the Gather needs no session: `hyps.runtime.execution.row_reader` reads the rows
from the file, the same bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onnx import NodeProto

from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.graph import Graph, Operator
from hyps.passes.weights import Model
from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.units import megabytes

#: A smaller table is not worth a step of its own.
LEAST_TABLE_BYTES = 1 << 20
#: Storage is read in pages: a shorter row costs as much.
LEAST_READ_BYTES = 4096
#: Rows are read where that takes at most this part of the table's bytes.
_LARGEST_PART = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRead:
    """The reading of ``count`` of a table's ``rows``, of ``row_bytes`` each."""

    table: str
    count: int
    rows: int
    row_bytes: int

    @property
    def read_bytes(self) -> int:
        """The most bytes that are read from storage."""
        return self.count * max(self.row_bytes, LEAST_READ_BYTES)

    def __str__(self) -> str:
        part, whole = megabytes(self.count * self.row_bytes), megabytes(self.rows * self.row_bytes)
        return f"reads {self.count:,} of {self.rows:,} rows of {self.table}, {part} of {whole}"


def row_read(graph: Graph, operator: Operator) -> RowRead | None:
    """Return what an operator reads of its table; None for one that is not marked by `with_row_reads`."""
    return _row_read(graph, operator, operator.table) if operator.table else None


def with_row_reads(model: Model, graph: Graph) -> Model:
    """Return a model where each Gather is marked whose rows are cheaper to read than its table; ``model`` if there is none.

    ``graph`` is the model's.
    """
    nodes = {node.name: node for node in model.proto.graph.node if node.op_type == "Gather"}
    gathers = [operator for operator in graph.operators if operator.op_type == "Gather"]
    cheaper = {operator.name for operator in gathers if _is_cheaper(graph, operator, nodes[operator.name])}
    groups = fusion_groups(graph) if cheaper else ()
    found = cheaper - {graph.operators[index].name for group in groups for index in group}
    return replace(model, row_reads=frozenset(found)) if found else model


def row_read_cuts(graph: Graph) -> frozenset[int]:
    """Return the positions around every marked operator, which is a step of its own."""
    places = (index for index, operator in enumerate(graph.operators) if operator.table)
    return frozenset(position for index in places for position in (index, index + 1)) - {0, len(graph.operators)}


def _is_cheaper(graph: Graph, operator: Operator, node: NodeProto) -> bool:
    """Return whether a Gather's rows can be read, and cost less than its table."""
    table, indices = node.input
    if table not in graph.weights or indices not in graph.tensors or operator.weights != (table,):
        return False
    weight = graph.weights[table]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    is_readable = axis in (0, -len(weight.shape)) and weight.dtype in STORAGE_TYPES and weight.storage is not None
    if not is_readable or weight.nbytes < LEAST_TABLE_BYTES:
        return False
    return _row_read(graph, operator, table).read_bytes <= weight.nbytes * _LARGEST_PART


def _row_read(graph: Graph, operator: Operator, table: str) -> RowRead:
    weight, (indices,) = graph.weights[table], operator.inputs
    return RowRead(
        table=table,
        count=math.prod(graph.tensors[indices].shape),
        rows=weight.shape[0],
        row_bytes=weight.nbytes // weight.shape[0],
    )
