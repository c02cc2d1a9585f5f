"""Check that operators which are tiled together stand next to each other, in an order that is still topological."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from hyps.passes.cost.footprint import Footprint
from hyps.passes.graph import Graph
from hyps.passes.planning.grouping import grouped_order
from tests.passes.nets import drawn, measured_graphs


def names(graph: Graph, tileable: str) -> str:
    return " ".join(graph.operators[index].name for index in grouped_order(graph, tileable.split()))


def test_what_is_between_goes_before() -> None:
    graph = drawn(
        "k Transpose x -> k\nv Conv x W -> v\ns MatMul x k -> s\nu Conv x V -> u\ny MatMul s v -> y",
        inputs="x",
        outputs="y u",
    )
    assert names(graph, "k s y") == "v u k s y"


def test_what_waits_for_one_of_them_stays_between() -> None:
    graph = drawn("a Neg x -> a\nc Conv a W -> c\nb Neg a -> b\ny Add b c -> y", inputs="x", outputs="y")
    assert names(graph, "a b y") == "a c b y"


def test_those_that_do_not_read_each_other_stay_apart() -> None:
    graph = drawn("a Neg x -> a\nc Conv a W -> c\ny Neg c -> y", inputs="x", outputs="y")
    assert names(graph, "a y") == "a c y"


@given(measured_graphs(9), st.data())
def test_the_order_is_topological(measured: tuple[Graph, Mapping[str, Footprint]], data: st.DataObject) -> None:
    graph, _ = measured
    tileable = data.draw(st.sets(st.sampled_from([operator.name for operator in graph.operators])))
    order = grouped_order(graph, tileable)
    assert sorted(order) == list(range(len(graph.operators)))
    made = set(graph.inputs)
    for index in order:
        assert made.issuperset(graph.operators[index].inputs)
        made.update(graph.operators[index].outputs)
