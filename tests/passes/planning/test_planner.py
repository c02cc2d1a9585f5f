"""Plans are right and exact, the smallest budget works, and no smaller one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from onnx import helper

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import footprints
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.graph import view
from hyps.passes.planning.minimum_budget import BUDGET_STEP_BYTES, minimum_budget
from hyps.passes.planning.plan import check_plan
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import CutMode, Request
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits
from tests.passes.planning.plans import START_BYTES, assert_computes_the_same, does_not_fit, smallest

SPLITS = get_args(CutMode)


def chain(net: Net) -> None:
    net.input("x", 1, 8, 32, 32)
    value = "x"
    for index, channels in enumerate((16, 64, 64)):
        value = net.conv(value, f"c{index}", (channels, 8 if index == 0 else (16, 64, 64)[index - 1], 3, 3))
        value = net.node("Relu", value, to=f"r{index}")
        value = net.node("MaxPool", value, to=f"p{index}", kernel_shape=[2, 2], strides=[2, 2])
    value = net.node("Flatten", value, to="flat")
    value = net.node("Gemm", value, net.weight("fc.w", 1024, 256), net.weight("fc.b", 1024), to="fc", transB=1)
    value = net.node("Relu", value, to="fc.r")
    net.node("Gemm", value, net.weight("last.w", 1024, 1000), net.weight("last.b", 1000), to="y")


def residual(net: Net) -> None:
    net.input("x", 1, 32, 16, 16)
    value = "x"
    for index in range(3):
        branch = net.conv(value, f"a{index}", (32, 32, 3, 3), pads=[1] * 4)
        branch = net.node("Relu", branch, to=f"ar{index}")
        branch = net.conv(branch, f"b{index}", (32, 32, 3, 3), pads=[1] * 4)
        shortcut = net.conv(value, f"s{index}", (32, 32, 1, 1)) if index == 1 else value
        value = net.node("Relu", net.node("Add", branch, shortcut, to=f"add{index}"), to=f"r{index}")
    net.node("GlobalAveragePool", value, to="y")


def inception(net: Net) -> None:
    net.input("x", 1, 32, 16, 16)
    value = "x"
    for index in range(2):
        ones = net.node("Relu", net.conv(value, f"one{index}", (16, 32, 1, 1)), to=f"one.r{index}")
        threes = net.conv(value, f"three{index}", (8, 32, 3, 3), pads=[1] * 4)
        threes = net.node("Relu", threes, to=f"three.r{index}")
        pooled = net.node("MaxPool", value, to=f"pool{index}", kernel_shape=[3, 3], pads=[1] * 4)
        pooled = net.conv(pooled, f"proj{index}", (8, 32, 1, 1))
        value = net.node("Concat", ones, threes, pooled, to=f"cat{index}", axis=1)
    net.node("GlobalAveragePool", value, to="y")


def dense(net: Net) -> None:
    net.input("x", 1, 16, 24, 24)
    values = ["x"]
    for index in range(3):
        whole = net.node("Concat", *values, to=f"cat{index}", axis=1) if index else "x"
        values.append(net.conv(whole, f"c{index}", (16, 16 * (index + 1), 3, 3), pads=[1] * 4))
    net.node("Concat", *values, to="y", axis=1)


def several_inputs(net: Net) -> None:
    net.input("x", 1, 600)
    net.input("z", 1, 400)
    left = net.node("Relu", net.node("Gemm", "x", net.weight("w", 600, 512), to="g"), to="gr")
    right = net.node("Tanh", net.node("Gemm", "z", net.weight("v", 400, 512), to="h"), to="hr")
    net.node("Softmax", net.node("Mul", left, right, to="m"), to="y")


def several_outputs(net: Net) -> None:
    net.input("x", 1, 256)
    trunk = net.node("Relu", net.node("Gemm", "x", net.weight("w", 256, 512), to="trunk"), to="act")
    net.node("Gemm", trunk, net.weight("v", 512, 1000), net.weight("v.b", 1000), to="head")
    net.output("head", "trunk")
    net.node("Gemm", "head", net.weight("u", 1000, 64), to="y")


def output_that_is_an_input(net: Net) -> None:
    net.input("x", 1, 512)
    net.node("Relu", net.node("Gemm", "x", net.weight("w", 512, 512), to="g"), to="r")
    net.node("Gemm", "r", net.weight("v", 512, 512), to="y")
    net.output("x")


def shared_weight(net: Net) -> None:
    net.input("x", 1, 512)
    net.weight("w", 512, 512)
    value = "x"
    for index in range(3):
        value = net.node("Relu", net.node("Gemm", value, "w", to=f"g{index}", transB=index % 2), to=f"r{index}")
    net.node("MatMul", value, "w", to="y")


def batch(net: Net) -> None:
    """Several rows, with which shards keep their bits only while they are wide."""
    net.input("x", 4, 300)
    value = net.node("MatMul", "x", net.weight("w", 300, 1024), to="m")
    value = net.node("Relu", net.node("Add", value, net.weight("b", 1024), to="a"), to="r")
    net.node("Gemm", value, net.weight("v", 1024, 512), net.weight("c", 4, 512), to="y", alpha=0.5)


def wide_convolutions(net: Net) -> None:
    """Every kind of convolution, too big for the smallest budgets; one has a residual connection."""
    net.input("x", 1, 64, 10, 10)
    value = net.node("Relu", net.conv("x", "a", (512, 64, 3, 3), pads=[1] * 4), to="ar")
    branch = net.conv(value, "b", (512, 512, 3, 3), pads=[1] * 4)
    value = net.node("Relu", net.node("Add", branch, value, to="sum"), to="br")
    value = net.node("Relu", net.conv(value, "grouped", (2048, 64, 3, 3), group=8, pads=[1] * 4), to="gr")
    value = net.conv(value, "depthwise", (2048, 1, 3, 3), group=2048, pads=[1] * 4)
    value = net.node("ConvTranspose", value, net.weight("t.w", 2048, 256, 2, 2), net.weight("t.b", 256), to="t")
    value = net.node("Flatten", net.node("GlobalAveragePool", value, to="pool"), to="flat")
    net.node("MatMul", value, net.weight("v", 256, 1000), to="y")


def oversize(net: Net) -> None:
    """A convolution and a Gemm that alone need more than small budgets: they are split and tiled."""
    net.input("x", 1, 32, 96, 96)
    value = net.node("Relu", net.conv("x", "c", (64, 32, 3, 3), pads=[1] * 4), to="r")
    value = net.node("Flatten", net.node("MaxPool", value, to="p", kernel_shape=[8, 8], strides=[8, 8]), to="f")
    value = net.node("Relu", net.node("Gemm", value, net.weight("w", 9216, 1024), to="g"), to="gr")
    net.node("Gemm", value, net.weight("v", 1024, 1000), to="y")


NETS: dict[str, Callable[[Net], None]] = {
    fill.__name__.replace("_", " "): fill
    for fill in (
        chain,
        residual,
        inception,
        dense,
        several_inputs,
        several_outputs,
        output_that_is_an_input,
        shared_weight,
        batch,
        wide_convolutions,
    )
}


def built(fill: Callable[[Net], None], folder: Path | None = None) -> Model:
    net = Net(opset=13)
    fill(net)
    net.output("y")
    return net.model(folder)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fill", NETS.values(), ids=NETS)
def test_plans_are_right_and_exact(fill: Callable[[Net], None], split: CutMode, tmp_path: Path) -> None:
    """Plan without a budget, with an ample one and with a tight one, and run partition after partition."""
    model = built(fill, tmp_path)
    tight = smallest(model, split) + 5 * BUDGET_STEP_BYTES
    for budget in (None, 1 << 40, tight):
        planned = plan(model, Request(budget_bytes=budget, split=split))
        check_plan(planned.graph, planned.plan)
        assert planned.plan.budget_bytes == (budget if budget is not None else planned.plan.peak_bytes)
        assert planned.plan.peak_bytes <= planned.plan.budget_bytes
        if planned.plan.exact:
            assert_computes_the_same(model, planned, tmp_path)


def test_the_branch_that_leaves_least_goes_first(tmp_path: Path) -> None:
    """A block's branches end in 16, 8 and 8 channels; the pooling's holds most while it runs, and goes first."""
    model = built(inception, tmp_path)
    planned = plan(model, Request())
    names = [node.name for node in planned.model.proto.graph.node]
    assert names.index("proj0") < names.index("one0")
    given = costs(view(model), footprints(view(model), 1))
    assert planned.plan.partitions[0].activation_bytes <= given.activations_from(0)[-1]
    assert_computes_the_same(model, planned, tmp_path)


@pytest.mark.parametrize("fill", NETS.values(), ids=NETS)
def test_ample_budget_is_one_partition(fill: Callable[[Net], None]) -> None:
    model = built(fill)
    planned = plan(model, Request(budget_bytes=1 << 40))
    assert len(planned.plan.partitions) == 1
    assert planned.plan.is_stock or planned.plan.peak_bytes == planned.plan.whole_peak_bytes
    assert planned.plan.changes == ()
    assert planned.model.weights is model.weights
    assert {node.name for node in planned.model.proto.graph.node} == {node.name for node in model.proto.graph.node}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fill", [*NETS.values(), oversize], ids=[*NETS, "oversize"])
def test_smallest_budget_works_and_the_next_smaller_does_not(fill: Callable[[Net], None], split: CutMode) -> None:
    model = built(fill)
    least = smallest(model, split)
    assert least % BUDGET_STEP_BYTES == 0
    planned = plan(model, Request(budget_bytes=least, split=split))
    assert planned.plan.smallest_budget_bytes == least == minimum_budget(model, Request(split=split))
    does_not_fit(model, Request(budget_bytes=least - BUDGET_STEP_BYTES, split=split))


@pytest.mark.parametrize("fill", NETS.values(), ids=NETS)
def test_more_budget_never_fails(fill: Callable[[Net], None]) -> None:
    model = built(fill)
    least = smallest(model, "auto")
    for more in (0, 37_000, 111_000, 333_000, 777_000, 2_000_000, 5_000_000):
        assert plan(model, Request(budget_bytes=least + more)).plan.peak_bytes <= least + more


LADDER_BYTES = [int(START_BYTES * 1.07**step) for step in range(20)]


@pytest.mark.parametrize("device", [DeviceRates(), DeviceRates(available_bytes=0)], ids=["cached", "from storage"])
@pytest.mark.parametrize("fill", [*NETS.values(), oversize], ids=[*NETS, "oversize"])
def test_a_larger_budget_is_never_slower(fill: Callable[[Net], None], device: DeviceRates) -> None:
    """Plans that keep every bit come first, so that a faster one that does not may be passed over."""
    model = built(fill)
    found: list[tuple[bool, float]] = []
    for budget in LADDER_BYTES[:: 4 if fill is oversize else 1]:  # which takes the planner longest
        try:
            planned = plan(model, Request(budget_bytes=budget, threads=1, device=device)).plan
        except DoesNotFit:
            assert not found
            continue
        found.append((not planned.exact, planned.latency_s))
    assert len(found) > 1
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("fill", [chain, residual, dense], ids=["chain", "residual", "dense"])
def test_order_and_names_are_the_models(fill: Callable[[Net], None]) -> None:
    """No operator is renamed or moved where none is split and no other order has a lower peak."""
    model = built(fill)
    planned = plan(model, Request(split="layers"))
    placed = [name for partition in planned.plan.partitions for name in partition.operators]
    assert placed == [node.name for node in model.proto.graph.node]


def test_subgraphs_are_planned_as_one_operator(tmp_path: Path) -> None:
    row = helper.make_tensor_value_info("r", 1, [1, 64])
    then = helper.make_graph([helper.make_node("Relu", ["g"], ["r"])], "then", [], [row])
    other = helper.make_graph([helper.make_node("Neg", ["g"], ["r"])], "other", [], [row])
    net = Net()
    net.input("x", 1, 64)
    net.node("Gemm", "x", net.weight("w", 64, 64), to="g")
    net.node("ReduceSum", "g", to="sum", keepdims=0)
    net.node("Greater", "sum", net.constant("zero", 0, "float32"), to="flag")
    net.node("If", "flag", to="y", then_branch=then, else_branch=other)
    net.output("y")
    model = net.model(tmp_path)
    parts = plan(model, Request(split="layers")).plan.partitions
    assert parts[-1].operators == ("y",)
    assert set(parts[-1].inputs) == {"flag", "g"}
    feeds = random_feeds(model)
    assert same_bits(run_partitions(model, parts, feeds, tmp_path), run(model, feeds, tmp_path))
