"""Check that the chosen order has the lowest peak of all topological orders, and keeps fused operators together."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import assume, given, settings

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.graph import Graph
from hyps.passes.planning import order as order_module
from hyps.passes.planning.order import OperatorOrder, lowest_peak_order, reordered
from hyps.passes.planning.task_order import Task, TaskGraph, TaskStep, lowest_peak_task_order
from tests.passes.nets import drawn, measured_graphs

Order = tuple[int, ...]


def ordered(graph: Graph, prints: Mapping[str, Footprint]) -> OperatorOrder:
    return lowest_peak_order(graph, prints, fusion_groups(graph))


def peak(graph: Graph, prints: Mapping[str, Footprint], order: Order) -> int:
    return int(costs(reordered(graph, order), prints).activations_from(0)[-1])


def all_orders(graph: Graph) -> Iterator[Order]:
    """Yield every topological order of the operators."""
    writer = {name: index for index, operator in enumerate(graph.operators) for name in operator.outputs}
    needs = [{writer[name] for name in operator.inputs if name in writer} for operator in graph.operators]

    def extended(done: Order) -> Iterator[Order]:
        if len(done) == len(needs):
            yield done
        for index in range(len(needs)):
            if index not in done and needs[index] <= set(done):
                yield from extended((*done, index))

    return extended(())


def keeps_together(graph: Graph, order: Order) -> bool:
    """Return whether every fusion group is a run of the order, in its given order."""
    return all(order[order.index(group[0]) : order.index(group[0]) + len(group)] == group for group in fusion_groups(graph))


@settings(max_examples=300, deadline=None)
@given(measured_graphs(7))
def test_no_order_has_a_lower_peak(measured: tuple[Graph, Mapping[str, Footprint]]) -> None:
    graph, prints = measured
    together = [order for order in all_orders(graph) if keeps_together(graph, order)]
    assume(together)
    found = ordered(graph, prints)
    given_order = tuple(range(len(graph.operators)))
    assert found.exact
    assert found.order in set(all_orders(graph))
    least = min(peak(graph, prints, order) for order in together)
    assert peak(graph, prints, found.order) == min(least, peak(graph, prints, given_order))
    if found.order != given_order:
        assert keeps_together(graph, found.order)


@settings(max_examples=200, deadline=None)
@given(measured_graphs(9))
def test_the_beam_is_never_worse_than_the_given_order(measured: tuple[Graph, Mapping[str, Footprint]]) -> None:
    graph, prints = measured
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "BLOCK_STATES", 1)
        patch.setattr(order_module, "OPERATOR_STATES", 0)
        found = ordered(graph, prints)
    assert sorted(found.order) == list(range(len(graph.operators)))
    assert found.order in set(all_orders(graph))
    assert peak(graph, prints, found.order) <= peak(graph, prints, tuple(range(len(graph.operators))))


def test_a_branch_that_ends_small_goes_first() -> None:
    """
    x ─ a ┬─ b (100) ─ c (1) ─┐
          └─ d (90) ──────────┴─ e       d last: 100 + 10 while b runs, then 1 + 10 + 90
    """
    graph = drawn(
        "a Conv x -> a\nd Softmax a -> d\nb Softmax a -> b\nc MaxPool b -> c\ne Concat c d -> e",
        inputs="x",
        outputs="e",
        sizes={"x": 1, "a": 10, "b": 100, "c": 1, "d": 90, "e": 1},
    )
    prints = footprints(graph, 1)
    found = ordered(graph, prints)
    assert [graph.operators[index].name for index in found.order] == ["a", "b", "c", "d", "e"]
    assert found.exact
    again = reordered(graph, found.order)
    assert ordered(again, prints).order == (0, 1, 2, 3, 4)


def test_the_given_order_is_kept_where_no_other_is_better() -> None:
    graph = drawn(
        "a Conv x -> a\nc MaxPool a -> c\nb MaxPool a -> b\ne Concat c b -> e\nf MaxPool e -> f\ng MaxPool e -> g",
        inputs="x",
        outputs="f g",
    )
    assert ordered(graph, footprints(graph, 1)).order == (0, 1, 2, 3, 4, 5)


def test_thousands_of_ready_tasks() -> None:
    """Far more states would wait than are visited, so the search becomes a beam; it once took gigabytes."""
    steps = [TaskStep(made_bytes=100 + index % 7, extra_bytes=0, freed_bytes=96, shared=()) for index in range(1_000)]
    tasks = TaskGraph(tasks=tuple(Task(predecessors=0, read_bytes=0, steps=(step,)) for step in steps), live_bytes=0)
    tracemalloc.start()
    try:
        found = lowest_peak_task_order(tasks, 1_000)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not found.exact
    assert most_bytes < 50_000_000
    assert found.order is None or sorted(found.order) == list(range(1_000))
