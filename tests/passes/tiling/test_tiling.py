"""Plans with tiles: chosen where activations need them, within the budget, and exact."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hyps.passes.cost.compute import multiply_adds
from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import footprints
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.graph import Graph, view
from hyps.passes.planning.costed_model import with_lowest_peak_order
from hyps.passes.planning.planner import PlannedModel, plan
from hyps.passes.planning.request import CutMode, Request
from hyps.passes.planning.tile_regions import TileRegionSearch
from hyps.passes.rewrite import run_rewrites
from hyps.passes.tiling.rewrite import TileRegions
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits, vgg16_structure

#: A device on which a process needs no more to start than to run, so that small models decide their own peak.
SLIM = DeviceRates(start_bytes=DeviceRates().process_bytes)
REQUEST = Request(threads=1, tier="lean")


def detector(height: int, width: int, filters: tuple[int, ...], folder: Path | None = None) -> Model:
    """Return a net shaped like Tiny YOLO (Redmon and Farhadi, 2016): convolutions of doubling width, each with a pooling."""
    net = Net()
    value, channels = net.input("image", 1, 3, height, width), 3
    for index, count in enumerate(filters):
        value = net.conv(value, f"conv{index}", (count, channels, 3, 3), pads=[1] * 4)
        value = net.node("LeakyRelu", value, to=f"leaky{index}", alpha=0.1)
        if index < 5:
            value = net.node("MaxPool", value, to=f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
        channels = count
    net.conv(value, "y", (25, channels, 1, 1))
    net.output("y")
    return net.model(folder)


def tiles(planned: PlannedModel) -> list[str]:
    return [operator.name for operator in planned.graph.operators if operator.origin and operator.origin.is_tile]


def smallest(model: Model, request: Request) -> int:
    with pytest.raises(DoesNotFit) as caught:
        plan(model, replace(request, budget_bytes=request.start_bytes - 1))
    assert caught.value.smallest_budget_bytes is not None
    return caught.value.smallest_budget_bytes


def activations(graph: Graph) -> int:
    return int(costs(graph, footprints(graph, 1)).activations_from(0)[-1])


def work(graph: Graph) -> int:
    return sum(multiply_adds(graph, operator) for operator in graph.operators)


def test_vgg16_needs_a_quarter_of_its_activations_for_little_more_work() -> None:
    whole = with_lowest_peak_order(vgg16_structure(), REQUEST)
    weightless = replace(whole.costs, resident=0 * whole.costs.resident, shared=whole.costs.shared[:, :0], process_bytes=0)
    search = TileRegionSearch(replace(whole, costs=weightless), 1, DeviceRates())
    regions = search.best_regions(activations(whole.graph) // 4)
    graph = view(run_rewrites(whole.model, [TileRegions(regions=regions, threads=1)]).model)
    assert activations(graph) * 4 <= activations(whole.graph)
    assert work(graph) <= 1.15 * work(whole.graph)


def test_vgg16_fits_where_only_tiles_do() -> None:
    request = replace(REQUEST, budget_bytes=72_000_000)
    planned = plan(vgg16_structure(), request)
    assert tiles(planned)
    assert planned.plan.exact
    assert planned.plan.smallest_budget_bytes < 70_000_000
    with pytest.raises(DoesNotFit, match=r"conv1_2.*smallest budget that works is 79\.3 MB"):
        plan(vgg16_structure(), replace(request, tile="off"))


def test_the_smallest_budget_works_and_less_does_not() -> None:
    model, request = detector(256, 256, (16, 32, 64)), replace(REQUEST, device=SLIM)
    least = smallest(model, request)
    assert least < smallest(model, replace(request, tile="off"))
    planned = plan(model, replace(request, budget_bytes=least))
    assert planned.plan.peak_bytes <= least
    assert tiles(planned)


@pytest.mark.parametrize("split", ["mandatory", "pooling", "layers"])
def test_other_cut_modes_use_no_tiles(split: CutMode) -> None:
    request = replace(REQUEST, split=split, device=SLIM)
    model = detector(256, 256, (16, 32, 64))
    assert smallest(model, request) == smallest(model, replace(request, tile="off"))


def test_a_large_budget_needs_no_tiles() -> None:
    assert not tiles(plan(detector(256, 256, (16, 32, 64)), replace(REQUEST, budget_bytes=1 << 30)))


def test_a_refusal_names_no_need_above_the_smallest_budget() -> None:
    """Untiled, conv1_2 needs 79.3 MB; in tiles a smaller budget works."""
    with pytest.raises(DoesNotFit) as caught:
        plan(vgg16_structure(), replace(REQUEST, budget_bytes=60_840_000))
    figures = [float(figure) for figure in re.findall(r"([\d.]+) MB", str(caught.value))]
    assert figures == sorted(figures)
    assert figures[0] == 60.8
    smallest_bytes = caught.value.smallest_budget_bytes
    assert smallest_bytes is not None
    assert figures[-1] * 1e6 == smallest_bytes >= caught.value.needed_bytes > 60_840_000


def test_without_a_budget_nothing_is_tiled() -> None:
    assert not tiles(plan(detector(64, 64, (8,)), replace(REQUEST, max_params=1 << 30)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("filters", [(16, 32, 64), (8, 16, 32, 64, 128)], ids=str)
def test_a_tiled_plan_is_the_whole_model_bit_for_bit(filters: tuple[int, ...], threads: int, tmp_path: Path) -> None:
    model = detector(256, 320, filters, tmp_path)
    request = replace(REQUEST, threads=threads, device=SLIM)
    least = smallest(model, request)
    planned = plan(model, replace(request, budget_bytes=least + 500_000))
    assert tiles(planned)
    assert planned.plan.exact
    feeds = random_feeds(model)
    found = run_partitions(planned.model, planned.plan.partitions, feeds, tmp_path)
    assert same_bits(found, run(model, feeds, tmp_path))


def test_changes_say_why() -> None:
    planned = plan(vgg16_structure(), replace(REQUEST, budget_bytes=72_000_000))
    change = planned.plan.changes[0]
    assert change.operator == "conv1_1"
    assert "tiles of rows" in change.what
    assert "conv1_2 alone needs 79.3 MB" in change.why


def test_a_full_hd_detector_is_planned_within_256_mb() -> None:
    model = detector(1080, 1920, (16, 32, 64, 128))
    planned = plan(model, replace(REQUEST, budget_bytes=160_000_000))
    assert tiles(planned)
    assert planned.plan.peak_bytes <= 160_000_000
    assert planned.plan.exact
