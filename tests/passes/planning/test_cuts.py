"""Check that the chosen cuts are the best of all subsets of positions, and that the thesis's cuts are where it puts them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyps.passes.cost.compute import compute_s
from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import Footprint, footprints
from hyps.passes.cost.fusion import fused_positions
from hyps.passes.cost.latency import Latency, latency
from hyps.passes.device import DeviceRates
from hyps.passes.graph import Graph, view
from hyps.passes.onnx_ops import POOLINGS
from hyps.passes.planning import cuts as cuts_module
from hyps.passes.planning.cuts import best_cuts, smallest_peak
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import Request
from hyps.passes.planning.required_cuts import layer_cuts, mandatory_cuts, pooling_cuts
from tests.passes.nets import drawn, measured_graphs, vgg16_structure

Cuts = tuple[int, ...]
Rank = tuple[int, float]


def peak(graph_costs: Costs, cuts: Cuts) -> int:
    """Return the highest peak of the partitions between ``cuts``."""
    ends = itertools.pairwise((0, *cuts, graph_costs.count))
    return max(int(graph_costs.peaks_from(start)[stop - start - 1]) for start, stop in ends)


def seconds(graph: Graph, graph_costs: Costs, device: DeviceRates, cuts: Cuts) -> float:
    """Return the estimated latency, added up partition by partition and operator by operator."""
    ends = itertools.pairwise((0, *cuts, graph_costs.count))
    return sum(seconds_between(graph, graph_costs, device, start, stop) for start, stop in ends)


def seconds_between(graph: Graph, graph_costs: Costs, device: DeviceRates, start: int, stop: int) -> float:
    """Return the estimated latency of one partition."""
    reading = int(graph_costs.weights_from(start)[stop - start - 1]) / device.cached_weights_bytes_per_s
    computing = float(compute_s(graph, device)[start:stop].sum())
    copying = int(graph_costs.crossing[stop]) / device.memory_bytes_per_s
    return device.step_s + device.open_s + max(reading, computing) + copying


def rank(graph: Graph, graph_costs: Costs, device: DeviceRates, sealed: Collection[int], cuts: Cuts) -> Rank:
    """Return what makes one choice better than another: fewer sealed cuts, then fewer seconds."""
    return len(set(cuts) & set(sealed)), seconds(graph, graph_costs, device, cuts)


def all_choices(count: int, required: Collection[int]) -> Iterator[Cuts]:
    """Yield every set of cut positions that holds all ``required`` ones."""
    free = [position for position in range(1, count) if position not in required]
    for size in range(len(free) + 1):
        for chosen in itertools.combinations(free, size):
            yield tuple(sorted((*chosen, *required)))


def a_budget(data: st.DataObject, graph_costs: Costs) -> int:
    """Draw a budget at, just below or just above the peak of some partition."""
    peaks = {int(value) for start in range(graph_costs.count) for value in graph_costs.peaks_from(start)}
    return data.draw(st.sampled_from(sorted(peaks)), "budget") + data.draw(st.integers(-1, 1), "more")


@st.composite
def devices(draw: st.DrawFn) -> DeviceRates:
    """Draw devices on which reading, computing, copying or starting a step is slow, in any combination."""
    rates, steps = st.sampled_from([1e3, 1e6, 1e9]), st.sampled_from([0.0, 1e-6, 1e-3, 1.0])
    return DeviceRates(
        storage_bytes_per_s=draw(rates),
        conv_macs_per_s=draw(rates),
        gemv_bytes_per_s=draw(rates),
        memory_bytes_per_s=draw(rates),
        step_s=draw(steps),
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_best_cuts_are_the_best_of_all(data: st.DataObject) -> None:
    graph, prints = data.draw(measured_graphs(7))
    graph_costs, device = costs(graph, prints), data.draw(devices(), "device")
    positions = st.integers(1, max(1, graph_costs.count - 1))
    inside = range(1, graph_costs.count)
    sealed = data.draw(st.sets(positions, max_size=4), "sealed") & set(inside)
    required = data.draw(st.sets(positions, max_size=2), "required") & set(inside)
    budget = a_budget(data, graph_costs)
    cuts = best_cuts(graph_costs, latency(graph, graph_costs, device), sealed, required, budget)
    feasible = [choice for choice in all_choices(graph_costs.count, required) if peak(graph_costs, choice) <= budget]
    if cuts is None:
        assert not feasible
        return
    assert cuts == tuple(sorted(set(cuts)))
    assert set(required) <= set(cuts) <= set(inside)
    assert peak(graph_costs, cuts) <= budget
    separated, least = min(rank(graph, graph_costs, device, sealed, choice) for choice in feasible)
    assert len(set(cuts) & set(sealed)) == separated
    assert seconds(graph, graph_costs, device, cuts) == pytest.approx(least, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_best_cuts_are_the_best_in_the_mean_over_exits(data: st.DataObject) -> None:
    """A part of all inferences ends at every exit, which is always cut; the cuts are the best for any such parts."""
    graph, prints = data.draw(measured_graphs(7))
    graph_costs, device = costs(graph, prints), data.draw(devices(), "device")
    inside = range(1, graph_costs.count)
    exits = data.draw(st.sets(st.integers(1, 7), max_size=3), "exits") & set(inside)
    stays = {exit: data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]), "stays") for exit in sorted(exits)}

    def mean_seconds(cuts: Cuts) -> float:
        """Return the estimated latency, each partition by the part of inferences that reaches it."""
        total = 0.0
        for start, stop in itertools.pairwise((0, *cuts, graph_costs.count)):
            reach = math.prod(part for position, part in stays.items() if position <= start)
            total += reach * seconds_between(graph, graph_costs, device, start, stop)
        return total

    budget = a_budget(data, graph_costs)
    cuts = best_cuts(graph_costs, latency(graph, graph_costs, device), (), exits, budget)
    feasible = [choice for choice in all_choices(graph_costs.count, exits) if peak(graph_costs, choice) <= budget]
    assert (cuts is None) == (not feasible)
    if cuts is not None:
        assert mean_seconds(cuts) == pytest.approx(min(map(mean_seconds, feasible)), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_long_graph_has_a_plan_whenever_there_is_one(data: st.DataObject) -> None:
    """A plan that considers some positions only fits, and separates as few fused operators; it may take longer."""
    graph, prints = data.draw(measured_graphs(9))
    graph_costs = costs(graph, prints)
    inside = range(1, graph_costs.count)
    sealed = data.draw(st.sets(st.integers(1, 8), max_size=4), "sealed") & set(inside)
    required = data.draw(st.sets(st.integers(1, 8), max_size=2), "required") & set(inside)
    budget = a_budget(data, graph_costs)
    graph_latency = latency(graph, graph_costs, DeviceRates())
    exact = best_cuts(graph_costs, graph_latency, sealed, required, budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts_module, "EXACT_OPERATORS", 3)
        cuts = best_cuts(graph_costs, graph_latency, sealed, required, budget)
    assert (cuts is None) == (exact is None)
    if cuts is None or exact is None:
        return
    assert set(required) <= set(cuts) <= set(inside)
    assert peak(graph_costs, cuts) <= budget
    assert len(set(cuts) & sealed) == len(set(exact) & sealed)
    assert seconds(graph, graph_costs, DeviceRates(), cuts) >= seconds(graph, graph_costs, DeviceRates(), exact) * (1 - 1e-9)


def test_a_later_start_may_need_more() -> None:
    """
    x (1) - a (50) - b (1) - c (50) - y: where the cut is after a, a stays until b and c ran; a longer partition needs less.
    """
    text = "a Conv x -> a\nb Pool a -> b\nc Conv b -> c\ny Pool c -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes={"a": 5000, "b": 1, "c": 5000})
    graph_costs = costs(graph, footprints(graph, 1))
    assert graph_costs.activations_from(1)[1] > graph_costs.activations_from(0)[2]


@settings(max_examples=100, deadline=None)
@given(measured_graphs(8), devices())
def test_joining_partitions_never_takes_longer(measured: tuple[Graph, Mapping[str, Footprint]], device: DeviceRates) -> None:
    graph_costs = costs(*measured)
    for cuts in all_choices(graph_costs.count, ()):
        for cut in cuts:
            joined = tuple(other for other in cuts if other != cut)
            assert seconds(measured[0], graph_costs, device, joined) <= seconds(measured[0], graph_costs, device, cuts) * (
                1 + 1e-9
            )


@settings(max_examples=60, deadline=None)
@given(measured_graphs(9))
def test_smallest_peak_is_the_least_of_all(measured: tuple[Graph, Mapping[str, Footprint]]) -> None:
    graph_costs = costs(*measured)
    smallest = smallest_peak(graph_costs)
    assert smallest == min(peak(graph_costs, cuts) for cuts in all_choices(graph_costs.count, ()))
    assert smallest_peak(graph_costs, step_bytes=1000) == -(-smallest // 1000) * 1000
    graph_latency = latency(measured[0], graph_costs, DeviceRates())
    assert best_cuts(graph_costs, graph_latency, (), (), smallest) is not None
    assert best_cuts(graph_costs, graph_latency, (), (), smallest - 1) is None


#: x (100) - a (50) - b (10) - c (50) - y (1); the weights of b and c together are more than the budget below allows.
CHAIN = drawn(
    "a Conv x A -> a\nb Pool a B -> b\nc Conv b C -> c\ny Pool c Y -> y",
    inputs="x",
    outputs="y",
    sizes={"x": 100, "a": 50, "b": 10, "c": 50, "y": 1} | dict.fromkeys("ABCY", 100_000),
)


def chain_costs() -> tuple[Costs, Latency]:
    graph_costs = costs(CHAIN, footprints(CHAIN, 1))
    return graph_costs, latency(CHAIN, graph_costs, DeviceRates())


def test_one_partition_where_all_fits() -> None:
    graph_costs, graph_latency = chain_costs()
    assert best_cuts(graph_costs, graph_latency, (), (), int(graph_costs.peaks_from(0)[-1])) == ()


def test_cut_where_the_least_crosses() -> None:
    """With room for two of four weights there are two partitions; the one cut that leaves two and two is after b."""
    graph_costs, graph_latency = chain_costs()
    assert best_cuts(graph_costs, graph_latency, (), (), int(graph_costs.peaks_from(0)[-1]) - 1) == (2,)


def test_a_sealed_cut_is_the_last_resort() -> None:
    """Two more partitions and more bytes are better than a cut inside a fusion; that cut is better than no plan."""
    graph_costs, graph_latency = chain_costs()
    budget = int(graph_costs.peaks_from(0)[2])
    assert best_cuts(graph_costs, graph_latency, {2}, (), budget) in {(1,), (3,)}
    tight = smallest_peak(graph_costs)
    cuts = best_cuts(graph_costs, graph_latency, {1, 2, 3}, (), tight)
    assert cuts is not None
    assert peak(graph_costs, cuts) <= tight
    assert best_cuts(graph_costs, graph_latency, {1, 2, 3}, (), tight - 1) is None


def test_a_required_cut_is_made_whatever_the_budget() -> None:
    graph_costs, graph_latency = chain_costs()
    assert best_cuts(graph_costs, graph_latency, (), {3}, 1 << 62) == (3,)
    assert best_cuts(graph_costs, graph_latency, {3}, {1, 3}, 1 << 62) == (1, 3)


@pytest.mark.parametrize(
    ("groups", "count", "cuts"),
    [
        ([], 5, ()),
        ([(2, 2)], 5, (2, 3)),
        ([(2, 3)], 5, (2, 4)),
        ([(0, 0)], 5, (1,)),
        ([(4, 4)], 5, (4,)),
        ([(0, 4)], 5, ()),
        ([(1, 1), (2, 2), (4, 4)], 6, (1, 2, 3, 4, 5)),
    ],
    ids=["none", "in the middle", "a fused one", "first", "last", "all there is", "neighbours"],
)
def test_mandatory_cuts(groups: list[tuple[int, int]], count: int, cuts: Cuts) -> None:
    """Algorithm 1 cuts before and after each complex layer, but not at the ends of the model."""
    assert mandatory_cuts(groups, count) == cuts


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("a Conv x -> a\nb Relu a -> y", ()),
        ("a Conv x -> a\nb MaxPool a -> b\nc Conv b -> y", (2,)),
        ("a MaxPool x -> a\nb AveragePool a -> b\nc GlobalAveragePool b -> y", (1, 2)),
        ("a MaxPool x -> a\nb MaxPool x -> b\nc Concat a b -> y", (1, 2)),
    ],
    ids=["no pooling", "one", "a last one needs no cut", "in parallel"],
)
def test_pooling_cuts(text: str, cuts: Cuts) -> None:
    """Algorithm 2 cuts after each pooling."""
    assert pooling_cuts(drawn(text, inputs="x", outputs="y"), ()) == cuts


def test_pooling_cuts_move_after_what_is_fused() -> None:
    """In an 8-bit model the QuantizeLinear after a pooling writes its result."""
    graph = drawn("a MaxPool x -> a\nb QuantizeLinear a -> b\nc Relu b -> y", inputs="x", outputs="y")
    assert pooling_cuts(graph, {1}) == (2,)
    assert pooling_cuts(graph, {1, 2}) == ()


def test_all_onnx_poolings_are_poolings() -> None:
    assert {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool", "GlobalLpPool"} == POOLINGS


@pytest.mark.parametrize(("count", "sealed", "cuts"), [(1, (), ()), (4, (), (1, 2, 3)), (4, (1, 3), (2,)), (3, (1, 2), ())])
def test_layer_cuts(count: int, sealed: Cuts, cuts: Cuts) -> None:
    assert layer_cuts(count, sealed) == cuts


class TestVgg16:
    """Tests of the thesis's own example (Kaboubi, section 3.2.6), in which fc6 with 102 million parameters is complex."""

    MAX_PARAMS = 100_000_000

    def test_mandatory_split_points_are_around_fc6(self) -> None:
        """There are three V-partitions (table 3.2); fc6, one of them, is split further, here into two H-partitions."""
        planned = plan(vgg16_structure(), Request(split="mandatory", max_params=self.MAX_PARAMS))
        operators = [part.operators for part in planned.plan.partitions]
        assert [(names[0], names[-1]) for names in operators] == [
            ("conv1_1", "flatten"),
            ("fc6/shard1of2", "relu6/shard1of2"),
            ("fc6/shard2of2", "fc6/concat"),
            ("fc7", "prob"),
        ]
        assert len({names[0].split("/")[0] for names in operators}) == 3
        assert {part.reason.kind for part in planned.plan.partitions} >= {"first", "mandatory"}
        assert str(planned.plan.partitions[1].reason) == (
            "mandatory: fc6 has 102,764,544 parameters, --max-params is 100,000,000: 2 shards"
        )

    def test_pooling_adds_five(self) -> None:
        planned = plan(vgg16_structure(), Request(split="pooling", max_params=self.MAX_PARAMS))
        lasts = [part.operators[-1] for part in planned.plan.partitions]
        pools = [f"pool{block}" for block in range(1, 6)]
        assert lasts == [*pools, "flatten", "relu6/shard1of2", "fc6/concat", "prob"]

    def test_threshold_decides_what_is_complex(self) -> None:
        """fc6 has over 100 million parameters, fc7 over 16; a layer that reaches the threshold is complex."""
        for max_params, complex_layers in ((102_764_545, []), (102_764_544, ["fc6"]), (16_781_312, ["fc6", "fc7"])):
            planned = plan(vgg16_structure(), Request(split="mandatory", max_params=max_params))
            assert [change.operator for change in planned.plan.changes] == complex_layers

    def test_shards_are_the_fewest_below_the_threshold(self) -> None:
        """A threshold of a quarter of fc6's parameters gives the thesis's four H-partitions."""
        planned = plan(vgg16_structure(), Request(split="mandatory", max_params=102_764_544 // 4 + 1))
        assert [change.what for change in planned.plan.changes] == ["split by output into 4 shards"]

    def test_layers_are_the_whole_network_layer_by_layer(self) -> None:
        """The pre-qualification run (section 4.3.1) has 13 convolutions, 5 poolings, 3 Gemms, flatten, prob."""
        planned = plan(vgg16_structure(), Request(split="layers"))
        assert len(planned.plan.partitions) == 13 + 5 + 3 + 2
        graph = view(vgg16_structure())
        assert len(planned.plan.partitions) == len(graph.operators) - len(fused_positions(graph))
