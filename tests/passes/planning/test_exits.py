"""Exits are found among the outputs, operators ordered by the exit that needs them, and cuts placed after each."""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Any

import pytest
from onnx import ModelProto

from hyps.passes.errors import UnknownExit
from hyps.passes.graph import Graph, view
from hyps.passes.planning.costed_model import with_lowest_peak_order
from hyps.passes.planning.exits import exit_cuts, exit_positions, exit_stages, reach_before, with_resolved_exits
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import AUTO_EXITS, Request
from hyps.passes.shapes import infer_shapes
from hyps.passes.weights import Model
from tests.compiler.onnxes import model, node, value, weight
from tests.exits import EXITS, exiting_network

SIDE = 16


def shaped(proto: ModelProto) -> Model:
    return infer_shapes(Model(proto=proto, weights={}))


@pytest.fixture(scope="module")
def network() -> Model:
    """The network with exits, narrow; all heads come last."""
    return shaped(exiting_network(SIDE))


def odd() -> Graph:
    """A network with outputs that are no exits: of another shape, of other classes, constant, and after the last one."""
    nodes = [
        node("Gemm", "x w", "hidden"),
        node("Gemm", "hidden h", "early"),
        node("Gemm", "hidden wide", "other"),
        node("Identity", "bias", "constant"),
        node("Relu", "hidden", "deeper"),
        node("Gemm", "deeper h", "scores"),
        node("Relu", "scores", "after"),
    ]
    weights = [weight("w", SIDE, SIDE), weight("h", SIDE, 4), weight("wide", SIDE, 5), weight("bias", 1, 4)]
    outputs = [*(("early", 4), ("other", 5), ("constant", 4), ("after", 4), ("scores", 4))]
    return view(shaped(model(nodes, [value("x", 1, SIDE)], [value(name, 1, size) for name, size in outputs], weights)))


@pytest.mark.parametrize("given", [AUTO_EXITS, EXITS, EXITS[:-1]], ids=["auto", "all", "without the last"])
def test_exits_are_resolved_in_order(network: Model, given: tuple[str, ...]) -> None:
    found = with_resolved_exits(view(network), Request(exits=given))
    assert found.exits == EXITS
    assert found.exit_rates == (0.0, 0.0, 0.0, 1.0)
    assert with_resolved_exits(view(network), found) == found


def test_auto_leaves_out_what_is_no_exit() -> None:
    assert with_resolved_exits(odd(), Request(exits=AUTO_EXITS)).exits == ("early", "scores")


def test_rates_are_completed(network: Model) -> None:
    found = with_resolved_exits(view(network), Request(exits=AUTO_EXITS, exit_rates=(0.5, 0.25, 0.125)))
    assert found.exit_rates == (0.5, 0.25, 0.125, 0.125)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"exits": ("nothing",)}, "exit 'nothing' is no output of the model; its outputs are early, middle, late, scores"),
        ({"exits": ("late", "early")}, "exit 'early' is not deeper than 'late'; give --exits early,late"),
        ({"exits": ("scores", "early")}, "each once, and the last one, 'scores', last"),
        ({"exits": ("scores",)}, "--exits names scores; give 1 to 63 outputs"),
        ({"exits": ("early", "early")}, "each once"),
        ({"exits": AUTO_EXITS, "exit_rates": (0.5,)}, "--exit-rates needs 3 numbers"),
        ({"exits": AUTO_EXITS, "exit_rates": (0.5, 0.5, 0.5)}, "--exit-rates needs 3 numbers"),
        ({"exits": AUTO_EXITS, "exit_rates": (-0.5, 0.5, 0.5)}, "--exit-rates needs 3 numbers"),
        ({"exits": AUTO_EXITS, "exit_rates": (float("nan"), 0.5, 0.5)}, "--exit-rates needs 3 numbers"),
        ({"exit_rates": (0.5,)}, "--exit-rates is for a network with exits"),
    ],
)
def test_wrong_exits_are_refused(network: Model, options: dict[str, Any], refused: str) -> None:
    with pytest.raises(UnknownExit) as caught:
        plan(network, Request(budget_bytes=100_000_000, **options))
    assert refused in str(caught.value)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("other", "exit 'other' is float32[1, 5], and no vector of class scores [1, 4]"),
        ("constant", "exit 'constant' is not between the input and 'scores'"),
        ("after", "exit 'after' is not between the input and 'scores'"),
    ],
)
def test_what_is_no_exit_is_refused(name: str, refused: str) -> None:
    with pytest.raises(UnknownExit) as caught:
        with_resolved_exits(odd(), Request(exits=(name,)))
    assert refused in str(caught.value)


def test_a_network_with_one_output_has_no_exits() -> None:
    proto = model([node("Gemm", "x w", "y")], [value("x", 1, 4)], [value("y", 1, 4)], [weight("w", 4, 4)])
    with pytest.raises(UnknownExit, match="no output before 'y' has scores of the same classes"):
        with_resolved_exits(view(shaped(proto)), Request(exits=AUTO_EXITS))


def test_heads_run_right_after_their_trunk(network: Model) -> None:
    request = with_resolved_exits(view(network), Request(exits=AUTO_EXITS, exit_rates=(0.5, 0.25, 0.125)))
    graph = with_lowest_peak_order(network, request).graph
    stages = exit_stages(graph, EXITS)
    assert list(stages) == sorted(stages)
    assert exit_stages(view(network), EXITS) != stages
    positions = exit_positions(graph, EXITS)
    assert [sum(stage <= number for stage in stages) for number in range(4)] == [positions[name] for name in EXITS]
    assert exit_cuts(graph, request) == {positions[name] for name in EXITS[:-1]}
    starts = [0, *sorted(exit_cuts(graph, request))]
    assert list(reach_before(graph, request, starts)) == [1.0, 0.5, 0.25, 0.125]
    assert list(reach_before(graph, Request(), starts)) == [1.0] * 4


@pytest.mark.parametrize("budget", [None, 100_000_000])
def test_partitions_end_at_exits(network: Model, budget: int | None) -> None:
    planned = plan(network, Request(exits=AUTO_EXITS, budget_bytes=budget, max_params=None if budget else 1_000_000))
    ends = [name for part in planned.plan.partitions for name in part.outputs if name in EXITS]
    assert ends == list(EXITS)
    assert [part.outputs[-1] in EXITS or EXITS[0] in part.outputs for part in planned.plan.partitions] == [True] * 4
    assert planned.plan.exact
    reasons = [part.reason.text for part in planned.plan.partitions]
    assert reasons[1:] == [f"after exit {name}: an inference may end before this step" for name in EXITS[:-1]]
    assert len(plan(network, Request(budget_bytes=100_000_000)).plan.partitions) == 1


def test_what_most_inferences_run_stays_in_memory() -> None:
    wide = shaped(exiting_network(1_000))
    base = Request(exits=AUTO_EXITS, budget_bytes=80_000_000, tier="lean")
    pinned, read = {}, {}
    for rates in ((0.9, 0.05, 0.03), (0.3, 0.3, 0.2), ()):
        planned = plan(wide, replace(base, exit_rates=rates)).plan
        pinned[rates] = [part.pinned_bytes for part in planned.partitions]
        streamed = [part.weight_bytes - part.pinned_bytes for part in planned.partitions]
        read[rates] = [math.fsum(map(operator.mul, streamed, reach)) for reach in ((1, 0.1, 0.05, 0.02), (1, 0.7, 0.4, 0.2))]
        assert planned.peak_bytes <= 80_000_000
    weights = [part.weight_bytes for part in planned.partitions]
    likely = pinned[0.9, 0.05, 0.03]
    assert likely[0] > 0.9 * weights[0]
    assert likely[0] / weights[0] >= likely[1] / weights[1] >= likely[2] / weights[2] >= likely[3] / weights[3]
    assert likely[0] > pinned[()][0]
    assert read[0.9, 0.05, 0.03][0] < 0.5 * read[()][0]  # bytes of an inference in the mean, if these are the rates
    assert read[0.3, 0.3, 0.2][1] < 0.9 * read[()][1]
