"""The arrays of `Costs` add up to what running the operators one by one needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import INITIALIZER_BYTES, NODE_BYTES, Footprint, footprints
from hyps.passes.graph import Graph
from tests.passes.nets import drawn, measured_graphs

GraphWithFootprints = tuple[Graph, Mapping[str, Footprint]]


def walked(graph: Graph, prints: Mapping[str, Footprint], start: int, stop: int) -> tuple[int, int]:
    """Return (weights, most live bytes) of the partition ``[start, stop)``, by running its operators one after the other."""
    size = {name: tensor.nbytes for name, tensor in graph.tensors.items()}
    inside = graph.operators[start:stop]

    def read_from(index: int) -> set[str]:
        return {*graph.outputs, *(name for operator in graph.operators[index:] for name in operator.inputs)}

    before = {*graph.inputs, *(name for operator in graph.operators[:start] for name in operator.outputs)}
    held = {*graph.inputs, *(before & read_from(start))}  # the caller keeps the model's inputs
    written: set[str] = set()
    most = 0
    for index, operator in enumerate(inside, start=start):
        written |= set(operator.outputs)
        footprint = prints[operator.name]
        in_place = footprint.in_place_bytes if footprint.in_place_input in written else 0
        most = max(most, sum(size[name] for name in held | written) - in_place + footprint.workspace_bytes)
        written &= read_from(index + 1)
    names = {name for operator in inside for name in operator.weights}
    sizes = [graph.weights[name].nbytes for name in names]
    mapped = sum(INITIALIZER_BYTES + (-(-n // 65536) * 65536 if n >= 65536 else 2 * n) for n in sizes)
    return mapped + sum(prints[operator.name].copied_bytes + NODE_BYTES for operator in inside), most


def crossed(graph: Graph, position: int) -> int:
    """Return the bytes of the tensors that cross a cut."""
    written = {*graph.inputs, *(name for operator in graph.operators[:position] for name in operator.outputs)}
    needed = {*graph.outputs, *(name for operator in graph.operators[position:] for name in operator.inputs)}
    return sum(graph.tensors[name].nbytes for name in written & needed)


def assert_as_walked(graph: Graph, prints: Mapping[str, Footprint]) -> None:
    added, count = costs(graph, prints, 1000), len(graph.operators)
    assert added.count == count
    assert [int(value) for value in added.crossing] == [crossed(graph, position) for position in range(count + 1)]
    for start in range(count):
        walks = [walked(graph, prints, start, stop) for stop in range(start + 1, count + 1)]
        assert [int(value) for value in added.weights_from(start)] == [weights for weights, _ in walks]
        assert [int(value) for value in added.activations_from(start)] == [most for _, most in walks]
        assert [int(value) for value in added.peaks_from(start)] == [1000 + sum(walk) for walk in walks]
        assert int(added.alone()[start]) == 1000 + sum(walks[0])


@settings(max_examples=150, deadline=None)
@given(measured_graphs())
def test_costs_are_as_walked(graph_with_footprints: GraphWithFootprints) -> None:
    assert_as_walked(*graph_with_footprints)


@settings(max_examples=50, deadline=None)
@given(measured_graphs())
def test_a_longer_partition_never_needs_less(graph_with_footprints: GraphWithFootprints) -> None:
    added = costs(*graph_with_footprints)
    for start in range(added.count):
        assert (np.diff(added.peaks_from(start)) >= 0).all()
        assert (np.diff(added.activations_from(start)) >= 0).all()


W = INITIALIZER_BYTES
#: Graphs, and for some of their partitions the weights (without the nodes' own bytes) and the most live bytes.
TABLE: dict[str, tuple[str, str, str, dict[str, int], dict[tuple[int, int], tuple[int, int]]]] = {
    "a session's inputs stay until it ends": (
        "a Pool x -> a\nb Pool a -> b",
        "x",
        "b",
        {"x": 100, "a": 10, "b": 1},
        {(0, 1): (0, 110), (0, 2): (0, 111), (1, 2): (0, 111)},
    ),
    "a bypass stays while the partition that it skips runs": (
        "a Conv x -> a\nb Conv a -> b\nc Add b a -> c",
        "x",
        "c",
        {"x": 1, "a": 100, "b": 10, "c": 3},
        {(1, 2): (0, 111), (0, 2): (0, 111), (2, 3): (0, 114), (0, 3): (0, 114)},
    ),
    "in place only where the partition itself wrote the input": (
        "a Conv x -> a\nb Relu a -> b",
        "x",
        "b",
        {"x": 1, "a": 10, "b": 10},
        {(0, 2): (0, 11), (1, 2): (0, 21)},
    ),
    "not in place where the input is an output too": (
        "a Conv x -> a\nb Relu a -> b",
        "x",
        "a b",
        {"x": 1, "a": 10, "b": 10},
        {(0, 2): (0, 21), (1, 2): (0, 21)},
    ),
    "a shared weight counts once a partition": (
        "a Gemm x W -> a\nb Gemm a W -> b\nc Gemm b V W -> c",
        "x",
        "c",
        {"W": 8, "V": 1},
        {
            (0, 1): (16 + W, 8),
            (0, 2): (16 + W, 12),
            (1, 3): (18 + 2 * W, 16),
            (2, 3): (18 + 2 * W, 12),
            (0, 3): (18 + 2 * W, 12),
        },
    ),
    "weights take whole 64 KiB, small ones are held twice": (
        "a Gemm x W V -> a",
        "x",
        "a",
        {"W": 65537, "V": 100},
        {(0, 1): (2 * 65536 + 200 + 2 * W, 8)},
    ),
}


@pytest.mark.parametrize(("text", "inputs", "outputs", "sizes", "expected"), TABLE.values(), ids=TABLE)
def test_table(
    text: str,
    inputs: str,
    outputs: str,
    sizes: dict[str, int],
    expected: dict[tuple[int, int], tuple[int, int]],
) -> None:
    graph = drawn(text, inputs=inputs, outputs=outputs, sizes=sizes)
    prints = {name: with_no_workspace(value) for name, value in footprints(graph, 1).items()}
    added = costs(graph, prints)
    assert_as_walked(graph, prints)
    for (start, stop), (weights, live) in expected.items():
        last = stop - start - 1
        assert int(added.weights_from(start)[last]) == weights + NODE_BYTES * (stop - start)
        assert int(added.activations_from(start)[last]) == live


def with_no_workspace(footprint: Footprint) -> Footprint:
    return replace(footprint, copied_bytes=0, workspace_bytes=0)


def test_workspace_counts_where_its_operator_runs() -> None:
    graph = drawn("a Conv x -> a\nb Pool a -> b", inputs="x", outputs="b", sizes={"x": 10, "a": 10, "b": 1})
    prints = {name: with_no_workspace(value) for name, value in footprints(graph, 1).items()}
    big = prints | {"b": replace(prints["b"], workspace_bytes=1000)}
    assert [int(value) for value in costs(graph, big).activations_from(0)] == [20, 1021]
    small = prints | {"b": replace(prints["b"], workspace_bytes=1)}
    assert [int(value) for value in costs(graph, small).activations_from(0)] == [20, 22]
