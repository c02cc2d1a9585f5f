"""Test which Gathers are read by rows, and what such a step is predicted to need."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, numpy_helper

from hyps.passes.cost.row_reads import row_read, row_read_cuts, with_row_reads
from hyps.passes.edit import GraphEditor
from hyps.passes.graph import view
from hyps.passes.planning.costed_model import with_lowest_peak_order, with_rows_read
from hyps.passes.planning.request import Request
from hyps.passes.weights import REFERENCE_BYTES, Model, Weight, placeholder
from tests.compiler.onnxes import model, node, value

WIDTH = 256


def lookup(*nodes: NodeProto, rows: int = 10_000, count: int = 8, kind: int = TensorProto.FLOAT, axis: int = 0) -> Model:
    """Return a model that computes ``y`` of ``ids`` and a referenced table."""
    nodes = nodes or (node("Gather", "table ids", "e", axis=axis), node("Tanh", "e", "y"))
    table = placeholder("table", kind, (rows, WIDTH))
    size = rows * WIDTH * (4 if kind == TensorProto.FLOAT else 1)
    proto = model(
        nodes,
        [value("ids", count, kind=TensorProto.INT64)],
        [value("y", count, WIDTH)],
        [table, numpy_helper.from_array(np.zeros(count, np.int64), "constant")],
    )
    typed = [value("e", count, WIDTH), value("t", rows, WIDTH)]
    proto.graph.value_info.extend(each for each in typed if each.name in {name for n in nodes for name in n.output})
    return Model(proto=proto, weights={"table": Weight(path="m", offset=0, row_bytes=size)})


def marked(source: Model) -> list[str]:
    return sorted(with_row_reads(source, view(source)).row_reads)


@pytest.mark.parametrize("axis", [0, -2])
def test_a_gather_along_the_first_axis_is_read_by_rows(axis: int) -> None:
    assert marked(lookup(axis=axis)) == ["e"]


@pytest.mark.parametrize(
    "source",
    [
        lookup(rows=1000),
        lookup(rows=WIDTH, axis=1),
        lookup(count=2000),
        lookup(node("Gather", "table constant", "e"), node("Tanh", "e", "y")),
        lookup(node("Relu", "table", "t"), node("Gather", "t ids", "y")),
        lookup(kind=TensorProto.INT4, rows=40_000),
    ],
    ids=["small table", "other axis", "most rows", "constant indices", "computed table", "packed type"],
)
def test_others_are_left_as_they_are(source: Model) -> None:
    assert with_row_reads(source, view(source)) is source


def test_the_table_is_not_counted_and_the_step_stands_alone() -> None:
    nodes = [node("Abs", "ids", "i"), node("Gather", "table i", "e"), node("Tanh", "e", "y")]
    source = lookup(*nodes)
    source.proto.graph.value_info.append(value("i", 8, kind=TensorProto.INT64))
    request = Request(budget_bytes=10**9)
    whole = with_lowest_peak_order(source, request)
    reading = with_rows_read(whole, request)
    table_bytes = 4 * 10_000 * WIDTH
    saved = int(whole.costs.peaks_from(0)[-1] - reading.costs.peaks_from(0)[-1])
    assert table_bytes - (1 << 20) < saved < table_bytes + REFERENCE_BYTES
    assert row_read_cuts(reading.graph) == {1, 2}
    found = row_read(reading.graph, reading.graph.operators[1])
    assert str(found) == "reads 8 of 10,000 rows of table, 0.008 MB of 10.2 MB"
    assert found
    assert found.read_bytes == 8 * 4096
    assert row_read(whole.graph, whole.graph.operators[1]) is None


def test_the_mark_survives_other_rewrites() -> None:
    source = lookup()
    reading = with_row_reads(source, view(source))
    assert GraphEditor(reading).finish().row_reads == {"e"}
