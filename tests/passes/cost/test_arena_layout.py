"""The arena as onnxruntime lays it out: the smallest free block, neighbours joined, what stays free between tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hyps.passes.cost.arena_layout import arena_events, arena_layout_bytes
from hyps.passes.cost.footprint import footprints
from tests.passes.nets import drawn

UNIT = 256


@pytest.mark.parametrize(
    ("drawing", "sizes", "expected"),
    [
        pytest.param("a Conv x -> a\nb Conv a -> y", {"a": 4, "y": 2}, 6, id="next to each other"),
        pytest.param("a Conv x -> a\nb Conv a -> b\nc Conv b -> y", {"a": 4, "b": 2, "y": 3}, 6, id="in a free block"),
        pytest.param("a Conv x -> a\nb Conv a -> b\nc Conv b -> y", {"a": 2, "b": 2, "y": 3}, 7, id="too small a block"),
        pytest.param("a Conv x -> a\nb Relu a -> y", {"a": 4, "y": 4}, 4, id="in place"),
        pytest.param(
            "a Conv x -> a\nb Conv a -> b\nc Conv b -> c\nd Conv c -> y", {"a": 2, "b": 3, "c": 1, "y": 4}, 5, id="split"
        ),
        pytest.param("a Conv x -> a\nb Conv a -> b\nc Add a b -> y", {"a": 4, "b": 4, "y": 4}, 8, id="kept for a sum"),
    ],
)
def test_arena(drawing: str, sizes: dict[str, int], expected: int) -> None:
    graph = drawn(drawing, inputs="x", outputs="y", sizes={name: UNIT * size for name, size in sizes.items()})
    prints = {name: replace(each, workspace_bytes=0) for name, each in footprints(graph, 1).items()}
    assert arena_layout_bytes(arena_events(graph, prints, (range(len(graph.operators)),))) == UNIT * expected
