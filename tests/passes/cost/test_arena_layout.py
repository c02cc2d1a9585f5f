"""The arena as onnxruntime lays it out: the smallest free block, neighbours joined, what stays free between tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hyps.passes.cost.arena_layout import ArenaFull, arena_events, arena_layout_bytes
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
    found = arena_layout_bytes(arena_events(graph, prints, (range(len(graph.operators)),)))
    assert found == UNIT * (expected + sizes["y"])  # the output of the inference before comes first


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([[0, 1, 2]], 2 + 3, id="one step reuses the first block"),
        pytest.param([[0], [1, 2]], 2 + 5, id="what enters a step stays until its end"),
        pytest.param([[0], [1], [2]], 2 + 3, id="and is given back then"),
    ],
)
def test_tensors_between_steps(steps: list[list[int]], expected: int) -> None:
    sizes = {"a": 2, "b": 1, "y": 2}
    graph = drawn(
        "a Conv x -> a\nb Conv a -> b\nc Conv b -> y", inputs="x", outputs="y", sizes={k: UNIT * v for k, v in sizes.items()}
    )
    prints = {name: replace(each, workspace_bytes=0) for name, each in footprints(graph, 1).items()}
    assert arena_layout_bytes(arena_events(graph, prints, steps)) == UNIT * expected


def test_an_arena_has_an_end() -> None:
    events = [("a", 4 * UNIT), ("b", UNIT), ("a", 0), ("c", 5 * UNIT)]
    assert arena_layout_bytes(events, 10 * UNIT) == 10 * UNIT
    with pytest.raises(ArenaFull):
        arena_layout_bytes(events, 9 * UNIT)
