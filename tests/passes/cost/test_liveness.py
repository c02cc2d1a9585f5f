"""The live ranges of tensors, and which tensors cross a cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from hyps.passes.cost.liveness import LiveRange, live_ranges
from hyps.passes.graph import Graph
from tests.passes.nets import cut, drawn, drawn_graphs

#: x -> a -> b -> c, and a again into c:  x - a - b - c
#:                                             \_____/
RESIDUAL = drawn("a Conv x W -> a\nb Conv a W -> b\nc Add b a -> c", inputs="x", outputs="c")
TABLE = {
    "chain": (
        drawn("a Relu x -> a\nb Relu a -> b", inputs="x", outputs="b"),
        {"x": (-1, 0), "a": (0, 1), "b": (1, 2)},
    ),
    "residual": (RESIDUAL, {"x": (-1, 0), "a": (0, 2), "b": (1, 2), "c": (2, 3)}),
    "output in the middle": (
        drawn("a Relu x -> a\nb Relu a -> b\nc Relu b -> c", inputs="x", outputs="a c"),
        {"x": (-1, 0), "a": (0, 3), "b": (1, 2), "c": (2, 3)},
    ),
    "input that is an output": (
        drawn("a Relu x -> a", inputs="x", outputs="a x"),
        {"x": (-1, 1), "a": (0, 1)},
    ),
    "input that nothing reads": (
        drawn("a Relu x -> a", inputs="x z", outputs="a"),
        {"x": (-1, 0), "z": (-1, -1), "a": (0, 1)},
    ),
    "output that nothing reads": (
        drawn("a Split x -> a b\nc Relu a -> c", inputs="x", outputs="c"),
        {"x": (-1, 0), "a": (0, 1), "b": (0, 0), "c": (1, 2)},
    ),
    "input that is read late": (
        drawn("a Relu x -> a\nb Add a z -> b", inputs="x z", outputs="b"),
        {"x": (-1, 0), "z": (-1, 1), "a": (0, 1), "b": (1, 2)},
    ),
}


@pytest.mark.parametrize(("graph", "expected"), TABLE.values(), ids=TABLE)
def test_live_ranges(graph: Graph, expected: dict[str, tuple[int, int]]) -> None:
    assert live_ranges(graph) == {name: LiveRange(first=first, last=last) for name, (first, last) in expected.items()}


def live_after(graph: Graph, position: int) -> tuple[str, ...]:
    """Return what is kept after the partition that ends at ``position``."""
    cuts = (position,) if position < len(graph.operators) else ()
    return cut(graph, cuts)[0].live


@pytest.mark.parametrize(("position", "names"), [(1, ("a",)), (2, ("a", "b")), (3, ("c",))], ids=str)
def test_what_is_kept(position: int, names: tuple[str, ...]) -> None:
    assert live_after(RESIDUAL, position) == names


@settings(deadline=None)
@given(drawn_graphs())
def test_what_crosses_is_what_the_rest_needs(graph: Graph) -> None:
    """A tensor crosses a cut if it is written before the cut, and read after it or returned to the caller."""
    for position in range(1, len(graph.operators) + 1):
        written = {*graph.inputs, *(name for operator in graph.operators[:position] for name in operator.outputs)}
        needed = {*graph.outputs, *(name for operator in graph.operators[position:] for name in operator.inputs)}
        assert set(live_after(graph, position)) == written & needed
