"""The chosen cuts are the best of all subsets of positions; the thesis's cuts are where the thesis puts them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

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


def peak(found: Costs, cuts: Cuts) -> int:
    """The highest peak of the partitions between ``cuts``."""
    ends = itertools.pairwise((0, *cuts, found.count))
    return max(int(found.peaks_from(start)[stop - start - 1]) for start, stop in ends)


def seconds(graph: Graph, found: Costs, device: DeviceRates, cuts: Cuts) -> float:
    """The estimated latency, added up partition by partition and operator by operator."""
    total = 0.0
    for start, stop in itertools.pairwise((0, *cuts, found.count)):
        reading = int(found.weights_from(start)[stop - start - 1]) / device.storage_bytes_per_s
        inside = replace(graph, operators=graph.operators[start:stop])
        computing = float(compute_s(inside, device).sum())
        total += device.step_s + max(reading, computing) + int(found.crossing[stop]) / device.memory_bytes_per_s
    return total


def rank(graph: Graph, found: Costs, device: DeviceRates, sealed: Collection[int], cuts: Cuts) -> Rank:
    """What makes one choice better than another: sealed cuts, then seconds; fewer is better."""
    return len(set(cuts) & set(sealed)), seconds(graph, found, device, cuts)


def all_choices(count: int, wanted: Collection[int]) -> Iterator[Cuts]:
    """Every set of cut positions that holds all ``wanted`` ones."""
    free = [position for position in range(1, count) if position not in wanted]
    for size in range(len(free) + 1):
        for chosen in itertools.combinations(free, size):
            yield tuple(sorted((*chosen, *wanted)))


def a_budget(data: st.DataObject, found: Costs) -> int:
    """A budget at, just below or above the peak of some partition."""
    peaks = {int(value) for start in range(found.count) for value in found.peaks_from(start)}
    return data.draw(st.sampled_from(sorted(peaks)), "budget") + data.draw(st.integers(-1, 1), "more")


@st.composite
def devices(draw: st.DrawFn) -> DeviceRates:
    """Devices on which reading, computing, copying or starting a step is slow, in any combination."""
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
    found, device = costs(graph, prints), data.draw(devices(), "device")
    positions = st.integers(1, max(1, found.count - 1))
    inside = range(1, found.count)
    sealed = data.draw(st.sets(positions, max_size=4), "sealed") & set(inside)
    wanted = data.draw(st.sets(positions, max_size=2), "wanted") & set(inside)
    budget = a_budget(data, found)
    cuts = best_cuts(found, latency(graph, found, device), sealed, wanted, budget)
    fitting = [choice for choice in all_choices(found.count, wanted) if peak(found, choice) <= budget]
    if cuts is None:
        assert not fitting
        return
    assert cuts == tuple(sorted(set(cuts)))
    assert set(wanted) <= set(cuts) <= set(inside)
    assert peak(found, cuts) <= budget
    parted, least = min(rank(graph, found, device, sealed, choice) for choice in fitting)
    assert len(set(cuts) & set(sealed)) == parted
    assert seconds(graph, found, device, cuts) == pytest.approx(least, rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_long_graph_has_a_plan_whenever_there_is_one(data: st.DataObject) -> None:
    """Where not every position is weighed a plan may take longer, but it fits, and parts what is fused no more often."""
    graph, prints = data.draw(measured_graphs(9))
    found = costs(graph, prints)
    inside = range(1, found.count)
    sealed = data.draw(st.sets(st.integers(1, 8), max_size=4), "sealed") & set(inside)
    wanted = data.draw(st.sets(st.integers(1, 8), max_size=2), "wanted") & set(inside)
    budget = a_budget(data, found)
    took = latency(graph, found, DeviceRates())
    exact = best_cuts(found, took, sealed, wanted, budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts_module, "EXACT_OPERATORS", 3)
        cuts = best_cuts(found, took, sealed, wanted, budget)
    assert (cuts is None) == (exact is None)
    if cuts is None or exact is None:
        return
    assert set(wanted) <= set(cuts) <= set(inside)
    assert peak(found, cuts) <= budget
    assert len(set(cuts) & sealed) == len(set(exact) & sealed)
    assert seconds(graph, found, DeviceRates(), cuts) >= seconds(graph, found, DeviceRates(), exact) * (1 - 1e-9)


def test_a_later_start_may_need_more() -> None:
    """
    x (1) - a (50) - b (1) - c (50) - y: cut behind a, it stays until b and c ran; the furthest reach is not the best.
    """
    text = "a Conv x -> a\nb Pool a -> b\nc Conv b -> c\ny Pool c -> y"
    graph = drawn(text, inputs="x", outputs="y", sizes={"a": 5000, "b": 1, "c": 5000})
    found = costs(graph, footprints(graph, 1))
    assert found.activations_from(1)[1] > found.activations_from(0)[2]


@settings(max_examples=100, deadline=None)
@given(measured_graphs(8), devices())
def test_joining_partitions_never_takes_longer(measured: tuple[Graph, Mapping[str, Footprint]], device: DeviceRates) -> None:
    found = costs(*measured)
    for cuts in all_choices(found.count, ()):
        for cut in cuts:
            joined = tuple(other for other in cuts if other != cut)
            assert seconds(measured[0], found, device, joined) <= seconds(measured[0], found, device, cuts) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(measured_graphs(9))
def test_smallest_peak_is_the_least_of_all(measured: tuple[Graph, Mapping[str, Footprint]]) -> None:
    found = costs(*measured)
    smallest = smallest_peak(found)
    assert smallest == min(peak(found, cuts) for cuts in all_choices(found.count, ()))
    assert smallest_peak(found, step_bytes=1000) == -(-smallest // 1000) * 1000
    took = latency(measured[0], found, DeviceRates())
    assert best_cuts(found, took, (), (), smallest) is not None
    assert best_cuts(found, took, (), (), smallest - 1) is None


#: x (100) - a (50) - b (10) - c (50) - y (1); the weights of b and c together are more than the budget below allows.
CHAIN = drawn(
    "a Conv x A -> a\nb Pool a B -> b\nc Conv b C -> c\ny Pool c Y -> y",
    inputs="x",
    outputs="y",
    sizes={"x": 100, "a": 50, "b": 10, "c": 50, "y": 1} | dict.fromkeys("ABCY", 100_000),
)


def chain_costs() -> tuple[Costs, Latency]:
    found = costs(CHAIN, footprints(CHAIN, 1))
    return found, latency(CHAIN, found, DeviceRates())


def test_one_partition_where_all_fits() -> None:
    found, took = chain_costs()
    assert best_cuts(found, took, (), (), int(found.peaks_from(0)[-1])) == ()


def test_cut_where_the_least_crosses() -> None:
    """With room for two of four weights there are two partitions; the one cut that leaves two and two is behind b."""
    found, took = chain_costs()
    assert best_cuts(found, took, (), (), int(found.peaks_from(0)[-1]) - 1) == (2,)


def test_a_sealed_cut_is_the_last_resort() -> None:
    """Two more partitions and more bytes rather than a cut inside a fusion; but a cut there rather than no plan."""
    found, took = chain_costs()
    budget = int(found.peaks_from(0)[2])
    assert best_cuts(found, took, {2}, (), budget) in {(1,), (3,)}
    tight = smallest_peak(found)
    cuts = best_cuts(found, took, {1, 2, 3}, (), tight)
    assert cuts is not None
    assert peak(found, cuts) <= tight
    assert best_cuts(found, took, {1, 2, 3}, (), tight - 1) is None


def test_a_wanted_cut_is_made_whatever_the_budget() -> None:
    found, took = chain_costs()
    assert best_cuts(found, took, (), {3}, 1 << 62) == (3,)
    assert best_cuts(found, took, {3}, {1, 3}, 1 << 62) == (1, 3)


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
    """Algorithm 1: before and behind each complex layer, where there is a before and a behind."""
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
    """Algorithm 2: behind each pooling."""
    assert pooling_cuts(drawn(text, inputs="x", outputs="y"), ()) == cuts


def test_pooling_cuts_move_behind_what_is_fused() -> None:
    """In an 8-bit model the pooling's result is what its QuantizeLinear writes."""
    graph = drawn("a MaxPool x -> a\nb QuantizeLinear a -> b\nc Relu b -> y", inputs="x", outputs="y")
    assert pooling_cuts(graph, {1}) == (2,)
    assert pooling_cuts(graph, {1, 2}) == ()


def test_all_onnx_poolings_are_poolings() -> None:
    assert {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool", "GlobalLpPool"} == POOLINGS


@pytest.mark.parametrize(("count", "sealed", "cuts"), [(1, (), ()), (4, (), (1, 2, 3)), (4, (1, 3), (2,)), (3, (1, 2), ())])
def test_layer_cuts(count: int, sealed: Cuts, cuts: Cuts) -> None:
    assert layer_cuts(count, sealed) == cuts


class TestVgg16:
    """Kaboubi, section 3.2.6: the thesis's own example, with its threshold of more than 102 million parameters' layer."""

    MAX_PARAMS = 100_000_000

    def test_mandatory_split_points_are_around_fc6(self) -> None:
        """Three V-partitions (table 3.2); the one that is fc6 is split further, here into two H-partitions."""
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
        """fc6 is the only layer of over 100 million parameters, fc6 and fc7 those of over 16; a layer at it is complex."""
        for max_params, complex_layers in ((102_764_545, []), (102_764_544, ["fc6"]), (16_781_312, ["fc6", "fc7"])):
            planned = plan(vgg16_structure(), Request(split="mandatory", max_params=max_params))
            assert [change.operator for change in planned.plan.changes] == complex_layers

    def test_shards_are_the_fewest_below_the_threshold(self) -> None:
        """The thesis's four H-partitions of fc6 are what a quarter of its parameters allows."""
        planned = plan(vgg16_structure(), Request(split="mandatory", max_params=102_764_544 // 4 + 1))
        assert [change.what for change in planned.plan.changes] == ["split by output into 4 shards"]

    def test_layers_are_the_whole_network_layer_by_layer(self) -> None:
        """The pre-qualification run (section 4.3.1): 13 convolutions, 5 poolings, 3 Gemms, flatten, prob."""
        planned = plan(vgg16_structure(), Request(split="layers"))
        assert len(planned.plan.partitions) == 13 + 5 + 3 + 2
        graph = view(vgg16_structure())
        assert len(planned.plan.partitions) == len(graph.operators) - len(fused_positions(graph))
