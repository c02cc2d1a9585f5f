"""Check that `check_plan` accepts what the planner makes and names what is wrong with anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.passes.errors import PassFailed
from hyps.passes.graph import Graph
from hyps.passes.planning.plan import Plan, check_plan
from hyps.runtime.bundle.manifest import Reason
from tests.passes.nets import cut, drawn, drawn_graphs

#: x - a - b - c - d - y, and d reads a, too; b is an output, too.
GRAPH = drawn(
    "na Conv x W -> a\nnb Relu a -> b\nnc Conv b V -> c\nnd Add c a -> d\nny Relu d -> y", inputs="x", outputs="y b"
)


def plan_of(graph: Graph, cuts: tuple[int, ...]) -> Plan:
    parts = cut(graph, cuts)
    peak = max(part.peak_bytes for part in parts)
    return Plan(
        partitions=parts,
        changes=(),
        budget_bytes=peak,
        threads=1,
        whole_peak_bytes=peak,
        smallest_budget_bytes=peak,
        latency_s=0.0,
        storage_latency_s=0.0,
        huge_pages=False,
        inexact_reason=None,
    )


def part(index: int, **fields: object) -> Callable[[Plan], Plan]:
    """Return a mutation that gives one partition other ``fields``."""

    def change(plan: Plan) -> Plan:
        parts = list(plan.partitions)
        parts[index] = replace(parts[index], **fields)  # type: ignore[arg-type]
        return replace(plan, partitions=tuple(parts))

    return change


def order(*indices: int) -> Callable[[Plan], Plan]:
    """Return a mutation that keeps these partitions, in this order."""
    return lambda plan: replace(plan, partitions=tuple(plan.partitions[index] for index in indices))


#: The plan of two cuts: (na, nb) | (nc) | (nd, ny).
CUTS = (2, 3)
MUTATIONS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "operator missing": (part(1, operators=()), "not every operator is in exactly one partition"),
    "operator twice": (part(1, operators=("nc", "nc")), "not every operator is in exactly one partition"),
    "operator in two partitions": (part(2, operators=("nc", "nd", "ny")), "not every operator is in exactly one partition"),
    "operator of another model": (part(1, operators=("zz",)), "not every operator is in exactly one partition"),
    "partition missing": (order(0, 1), "not every operator is in exactly one partition"),
    "partitions in another order": (order(0, 2, 1), "partition 02-ny reads c, which is not held by then"),
    "operators in another order": (
        part(0, operators=("nb", "na")),
        "partition 00-nb: operator nb reads a, which is no input of the partition",
    ),
    "input missing": (part(1, inputs=()), "partition 01-nc: operator nc reads b, which is no input of the partition"),
    "input that is not there yet": (part(0, inputs=("x", "c")), "partition 00-nb reads c, which is not held by then"),
    "output missing": (part(1, outputs=()), "partition 01-nc keeps c, which no partition produced"),
    "output that is not produced": (part(1, outputs=("c", "y")), "partition 01-nc does not produce its output y"),
    "tensor dropped that is needed": (part(0, live=("b",)), "partition 02-ny reads a, which is not held by then"),
    "graph output dropped": (part(1, live=("a", "c")), "output b is not held at the end"),
    "last output dropped": (part(2, live=("b",)), "output y is not held at the end"),
    "over the budget": (part(1, peak_bytes=1 << 40), "partition 01-nc needs 1099511627776 bytes, the budget is"),
    "one byte over the budget": (lambda plan: replace(plan, budget_bytes=plan.budget_bytes - 1), "the budget is"),
    "no reason": (part(2, reason=Reason(kind="first", text="")), "partition 02-ny has no reason"),
}


def test_the_plan_itself_is_right() -> None:
    check_plan(GRAPH, plan_of(GRAPH, CUTS))


@pytest.mark.parametrize(("mutate", "message"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_wrong_plan_is_refused(mutate: Callable[[Plan], Plan], message: str) -> None:
    with pytest.raises(PassFailed) as caught:
        check_plan(GRAPH, mutate(plan_of(GRAPH, CUTS)))
    assert str(caught.value).startswith("the plan is wrong: ")
    assert message in str(caught.value)


def test_everything_that_is_wrong_is_reported() -> None:
    broken = part(2, reason=Reason(kind="first", text=""))(
        part(1, reason=Reason(kind="first", text=""))(plan_of(GRAPH, CUTS))
    )
    with pytest.raises(PassFailed) as caught:
        check_plan(GRAPH, broken)
    assert str(caught.value) == "the plan is wrong: partition 01-nc has no reason; partition 02-ny has no reason"


@settings(deadline=None)
@given(st.data())
def test_any_cuts_of_any_graph_make_a_right_plan(data: st.DataObject) -> None:
    graph = data.draw(drawn_graphs())
    inside = range(1, len(graph.operators))
    cuts = tuple(sorted(data.draw(st.sets(st.sampled_from(inside))))) if inside else ()
    check_plan(graph, plan_of(graph, cuts))


@settings(deadline=None)
@given(st.data())
def test_a_dropped_tensor_is_always_noticed(data: st.DataObject) -> None:
    """Every tensor that a partition keeps is needed later."""
    graph = data.draw(drawn_graphs())
    plan = plan_of(graph, tuple(range(1, len(graph.operators))))
    index = data.draw(st.sampled_from([i for i, partition in enumerate(plan.partitions) if partition.live]))
    dropped = data.draw(st.sampled_from(plan.partitions[index].live))
    live = tuple(name for name in plan.partitions[index].live if name != dropped)
    with pytest.raises(PassFailed, match=dropped):
        check_plan(graph, part(index, live=live)(plan))


def test_exactness_and_peak_follow_from_the_fields() -> None:
    plan = plan_of(GRAPH, CUTS)
    assert plan.exact
    assert not replace(plan, inexact_reason="a cut separates two").exact
    assert plan.peak_bytes == max(partition.peak_bytes for partition in plan.partitions)


class TestPartitions:
    """Tests of the partitions between cut positions."""

    def test_inputs_outputs_and_what_is_kept(self) -> None:
        first, second, third = cut(GRAPH, CUTS)
        assert (first.operators, second.operators, third.operators) == (("na", "nb"), ("nc",), ("nd", "ny"))
        assert (first.inputs, set(first.outputs), set(first.live)) == (("x",), {"a", "b"}, {"a", "b"})
        assert (second.inputs, second.outputs, set(second.live)) == (("b",), ("c",), {"a", "b", "c"})
        assert (set(third.inputs), third.outputs, set(third.live)) == ({"a", "c"}, ("y",), {"b", "y"})
        assert [part.leaving_bytes for part in (first, second, third)] == [8, 12, 8]

    def test_names_are_file_names(self) -> None:
        graph = drawn("model/conv.1:0 Conv x -> a\n../-- Relu a -> b\ny Relu b -> y", inputs="x", outputs="y")
        found = cut(graph, (1, 2))
        assert [partition.name for partition in found] == ["00-model-conv-1-0", "01-operator", "02-y"]

    def test_long_names_are_shortened(self) -> None:
        graph = drawn(f"{'n' * 200} Relu x -> y", inputs="x", outputs="y")
        (found,) = cut(graph, ())
        assert found.name == "00-" + "n" * 60

    def test_reasons(self) -> None:
        graph = drawn("a Conv x -> a\np MaxPool a -> p\ny Conv p -> y", inputs="x", outputs="y", sizes={"p": 2_000_000})
        found = cut(graph, (1, 2), {1: Reason(kind="mandatory", text="a is too big")})
        assert [str(partition.reason) for partition in found] == [
            "first: starts at the model's input",
            "mandatory: a is too big",
            "budget: after pooling p, where 2.0 MB cross",
        ]
        optional = cut(graph, (1,), {1: Reason(kind="optional", text="")})
        assert str(optional[1].reason) == "optional: after Conv a, where 0.000 MB cross"
