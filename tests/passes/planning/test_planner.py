"""Check that plans are right, exact where they say so, and that the smallest budget works and no smaller one does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from onnx import TensorProto, helper

from hyps.passes.cost.costs import costs
from hyps.passes.cost.footprint import footprints
from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit, UnsupportedModel
from hyps.passes.graph import view
from hyps.passes.planning.minimum_budget import BUDGET_STEP_BYTES, minimum_budget
from hyps.passes.planning.plan import check_plan
from hyps.passes.planning.planner import PlannedModel, plan
from hyps.passes.planning.request import CutMode, Policy, Request, RequestedShard
from hyps.passes.sharding.layouts import Method
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits
from tests.passes.splitting import difference

SPLITS = get_args(CutMode)
PROCESS_BYTES, START_BYTES = DeviceRates().process_bytes, DeviceRates().start_bytes


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


def does_not_fit(model: Model, request: Request) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        plan(model, request)
    assert "\n" not in str(caught.value)
    return caught.value


def smallest(model: Model, split: CutMode) -> int:
    found = does_not_fit(model, Request(budget_bytes=PROCESS_BYTES, split=split)).smallest_budget_bytes
    assert found is not None
    return found


def assert_computes_the_same(model: Model, planned: PlannedModel, folder: Path) -> None:
    feeds = random_feeds(model)
    whole = run(model, feeds, folder) | {name: feeds[name] for name in view(model).outputs if name in feeds}
    assert planned.plan.exact
    assert same_bits(run_partitions(planned.model, planned.plan.partitions, feeds, folder), whole)


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
    for budget in LADDER_BYTES:
        try:
            planned = plan(model, Request(budget_bytes=budget, threads=1, device=device)).plan
        except DoesNotFit:
            assert not found
            continue
        found.append((not planned.exact, planned.latency_s))
    assert len(found) > 1
    assert found == sorted(found, reverse=True)


def wide_layer(rows: int = 1, *after: str) -> Model:
    """Return a model of one Gemm of 32 MB and operators ``after`` it."""
    net = Net()
    net.input("x", rows, 2000)
    net.node("Gemm", "x", net.absent("w", 4000, 2000), net.weight("b", 4000), to="fc", transB=1)
    value = "fc"
    for kind in after:
        value = net.node(kind, value, to=f"{kind.lower()}")
    net.output(value)
    return net.model()


def lookup() -> Model:
    """Return a model that reads columns of a table of 16.8 MB, which cannot be split."""
    net = Net()
    net.input("ids", 4, data_type=TensorProto.INT64)
    net.node("Gather", net.absent("w", 64, 65536), "ids", to="columns", axis=1)
    net.output("columns")
    return net.model()


def test_message_says_what_needs_how_much_and_what_would_work() -> None:
    error = does_not_fit(lookup(), Request(budget_bytes=START_BYTES + 1_000_000))
    assert error.operator == "columns"
    assert error.needed_bytes > PROCESS_BYTES + 65536 * 64 * 4
    needed, least = math.ceil(error.needed_bytes / 1e5) / 10, (error.smallest_budget_bytes or 0) / 1e6
    assert str(error) == (
        f"Gather 'columns' alone needs {needed:.1f} MB, the budget is {(START_BYTES + 1_000_000) / 1e6:.1f} MB; "
        f"the smallest budget that works is {least:.1f} MB"
    )
    assert needed == least, "the operator's own need decides"


def test_layers_need_more_than_auto_and_the_refusal_says_so() -> None:
    """Neg overwrites what Concat wrote, but not across a cut; layer by layer both tensors exist."""
    net = Net()
    net.input("x", 1, 1, 100_000)
    net.node("Concat", *["x"] * 20, to="t", axis=2)
    net.node("Neg", "t", to="n")
    net.node("GlobalMaxPool", "n", to="y")
    net.output("y")
    model = net.model()
    auto, layers = smallest(model, "auto"), smallest(model, "layers")
    assert layers > auto
    refusal = str(does_not_fit(model, Request(budget_bytes=auto, split="layers")))
    assert refusal.endswith(
        f"without options for splitting {auto / 1e6:.1f} MB would do; with them the smallest budget that works is "
        f"{layers / 1e6:.1f} MB"
    )
    assert len(plan(model, Request(budget_bytes=layers, split="layers")).plan.partitions) == 3


def shard_count(what: str) -> int:
    """Return the number of shards of a change."""
    return int(re.fullmatch(r"split .* into (\d+) shards", what)[1])  # type: ignore[index]


def test_an_oversize_operator_is_split() -> None:
    """It takes at least so many shards. More leave memory for weights that are not read again: only where that is faster."""
    model = wide_layer(1, "Relu")
    need = plan(model, Request()).plan.peak_bytes
    assert plan(model, Request(budget_bytes=need)).plan.changes == ()
    for budget, shards in ((need - 1, 2), (need - 15_900_000, 2), (need - 17_000_000, 3), (need - 24_500_000, 5)):
        planned = plan(model, Request(budget_bytes=budget, split="mandatory"))
        (change,) = planned.plan.changes
        found = shard_count(change.what)
        assert (change.operator, found >= shards) == ("fc", True)
        assert planned.plan.peak_bytes <= budget
        fewer = [each.latency_s for each in planned.candidates if each.partitions < found]
        assert found == shards or (fewer and planned.plan.latency_s <= min(fewer))
        assert change.why.startswith("mandatory: fc holds 32.0 MB of weights; alone it needs ")
        assert planned.plan.exact


def test_shards_are_small_enough_to_keep_fused_operators_together() -> None:
    """A product and its activation need slightly more than the budget; one more shard is better than a cut between them."""
    for after in (("Relu",), ("Sigmoid",)):
        model = wide_layer(1, *after)
        together = plan(model, Request()).plan.peak_bytes
        for spare in range(1, 40_000, 7_000):
            assert plan(model, Request(budget_bytes=together - spare)).plan.exact, spare


@pytest.mark.parametrize(
    ("policy", "kind", "what"),
    [
        ("auto", "Conv", "by channel"),
        ("output", "Conv", "by channel"),
        ("input", "Conv", "by filter"),
        ("auto", "Gemm", "by output"),
        ("input", "Gemm", "by input"),
    ],
)
def test_policy_restricts_the_methods(policy: Policy, kind: str, what: str, tmp_path: Path) -> None:
    net = Net()
    if kind == "Conv":
        net.input("x", 1, 256, 12, 12)
        net.conv("x", "big", (1024, 256, 3, 3))
    else:
        net.input("x", 1, 2048)
        net.node("Gemm", "x", net.weight("w", 1024, 2048), net.weight("b", 1024), to="big", transB=1)
    net.output("big")
    model = net.model(tmp_path)
    whole = plan(model, Request(policy=policy)).plan
    request = Request(budget_bytes=max(whole.smallest_budget_bytes, whole.whole_peak_bytes - 1_000_000), policy=policy)
    planned = plan(model, request)
    (change,) = planned.plan.changes
    assert change.what.startswith(f"split {what} into ")
    assert planned.plan.exact == (policy != "input")
    if policy == "input":
        assert planned.plan.inexact_reason == f"'big' is split {what}: partial sums are added up in another order"
    else:
        assert_computes_the_same(model, planned, tmp_path)


def test_spatially_where_the_weights_are_not_what_is_too_big(tmp_path: Path) -> None:
    """A computed kernel cannot be split; with more filters than positions the whole input is unfolded."""
    net = Net()
    net.input("x", 1, 64, 26, 26)
    net.input("w", 512, 64, 7, 7)
    net.node("Conv", "x", "w", net.weight("b", 512), to="y")
    net.output("y")
    model = net.model(tmp_path)
    whole = plan(model, Request()).plan
    planned = plan(model, Request(budget_bytes=whole.whole_peak_bytes - 1_500_000, tier="lean"))
    (change,) = planned.plan.changes
    assert change.operator == "y"
    assert re.fullmatch(r"split spatially into \d+ shards", change.what)
    assert_computes_the_same(model, planned, tmp_path)


def test_partial_sums_are_the_last_resort(tmp_path: Path) -> None:
    """Ten outputs do not make two shards of eight outputs; only the sums can be split."""
    net = Net()
    net.input("x", 1, 200_000)
    net.node("Relu", net.node("Gemm", "x", net.weight("w", 10, 200_000), net.weight("b", 10), to="y", transB=1), to="r")
    net.output("r")
    model = net.model(tmp_path)
    planned = plan(model, Request(budget_bytes=START_BYTES))
    (change,) = planned.plan.changes
    assert change.what.startswith("split by input into ")
    assert not planned.plan.exact
    feeds = random_feeds(model)
    found = run_partitions(planned.model, planned.plan.partitions, feeds, tmp_path)
    assert difference(found, run(model, feeds, tmp_path)) <= 1e-5  # measured: 5.6e-6, with sums of 200,000 products


class TestRequestedShards:
    """Tests of ``--shard``: splits that the user names, whatever the budget."""

    @pytest.mark.parametrize("budget", [None, 1 << 40, 75_000_000])
    @pytest.mark.parametrize(("method", "what"), [("output", "by output"), ("input", "by input")])
    def test_is_done(self, method: Method, what: str, budget: int | None) -> None:
        requested = RequestedShard(operator="fc", method=method, count=5)
        planned = plan(wide_layer(1, "Relu"), Request(shards=(requested,), budget_bytes=budget))
        (change,) = planned.plan.changes
        assert (change.operator, change.what, change.why) == ("fc", f"split {what} into 5 shards", "requested: --shard")
        if budget is None:
            assert [str(part.reason) for part in planned.plan.partitions[1:]] == ["requested: --shard: 5 shards"] * 4

    def refusal(self, operator: str, method: Method, count: int) -> str:
        requested = RequestedShard(operator=operator, method=method, count=count)
        with pytest.raises(UnsupportedModel) as caught:
            plan(wide_layer(1, "Relu"), Request(shards=(requested,)))
        return str(caught.value)

    def test_unknown_operator(self) -> None:
        assert self.refusal("fc9", "output", 2) == "--shard: no operator is called 'fc9'; those that can be split: 'fc'"

    def test_too_many_shards(self) -> None:
        assert self.refusal("fc", "input", 251) == "--shard: 'fc' can be split by input into 2 to 250 shards, not 251"

    def test_impossible_method(self) -> None:
        assert self.refusal("fc", "spatial", 2) == "Gemm 'fc' cannot be split spatially: only Conv can be"
        assert self.refusal("relu", "output", 2).startswith("Relu 'relu' cannot be split: only Gemm")

    def test_too_few_shards_for_the_budget(self) -> None:
        requested = RequestedShard(operator="fc", method="output", count=2)
        error = does_not_fit(wide_layer(), Request(shards=(requested,), budget_bytes=START_BYTES + 1_000_000))
        assert error.operator == "fc/shard2of2"
        assert error.smallest_budget_bytes is not None
        assert plan(wide_layer(), Request(shards=(requested,), budget_bytes=error.smallest_budget_bytes)).plan.changes


def test_every_shard_and_cut_has_its_reason() -> None:
    model = wide_layer(1, "Relu")
    planned = plan(model, Request(budget_bytes=PROCESS_BYTES + 10_000_000, split="mandatory"))
    reasons = [str(partition.reason) for partition in planned.plan.partitions]
    assert reasons[0] == "first: starts at the model's input"
    (change,) = planned.plan.changes
    assert set(reasons[1:]) == {f"{change.why}: {len(reasons)} shards"}


@pytest.mark.parametrize(
    ("max_params", "shards"), [(8_004_001, 1), (8_004_000, 2), (4_002_001, 2), (4_002_000, 3), (100_000, 84)]
)
def test_max_params_threshold(max_params: int, shards: int) -> None:
    """An operator with as many parameters as the threshold is split, into the fewest shards that are below it."""
    planned = plan(wide_layer(), Request(max_params=max_params, split="mandatory"))
    assert len(planned.plan.partitions) == shards
    if shards > 1:
        (change,) = planned.plan.changes
        assert change.why == f"mandatory: fc has 8,004,000 parameters, --max-params is {max_params:,}"


def test_max_params_and_a_budget_count_both() -> None:
    request = Request(max_params=4_002_001, budget_bytes=PROCESS_BYTES + 10_000_000, split="mandatory")
    assert shard_count(plan(wide_layer(), request).plan.changes[0].what) >= 4
    request = Request(max_params=1_000_000, budget_bytes=PROCESS_BYTES + 10_000_000, split="mandatory")
    assert shard_count(plan(wide_layer(), request).plan.changes[0].what) >= 9


def test_max_params_of_what_cannot_be_split() -> None:
    error = does_not_fit(lookup(), Request(max_params=1_000_000))
    assert str(error) == (
        "'columns' has 4,194,304 parameters, --max-params is 1,000,000, and Gather 'columns' cannot be split: only Gemm, "
        "MatMul, convolutions and their 8-bit forms can be; raise --max-params"
    )
    assert (error.operator, error.smallest_budget_bytes) == ("columns", None)


def test_max_params_beyond_the_finest_split_is_left_whole() -> None:
    """An operator is left whole where no number of shards is below the threshold."""
    assert plan(wide_layer(), Request(max_params=100)).plan.changes == ()


class TestExactness:
    """Tests that a plan says when its result may differ in the last bits, and why."""

    def reason(self, model: Model, request: Request) -> str:
        reason = plan(model, request).plan.inexact_reason
        assert reason is not None
        return reason

    def test_two_convolutions_and_their_sum(self) -> None:
        """onnxruntime fuses the sum into one of the two, and it is not known which; so no shard takes the sum."""
        net = Net()
        net.input("x", 1, 256, 8, 8)
        net.node("Conv", "x", net.absent("w", 512, 256, 3, 3), to="c")
        net.node("Conv", "x", net.absent("v", 512, 256, 3, 3), to="d")
        net.node("Relu", net.node("Add", "c", "d", to="a"), to="y")
        net.output("y")
        model = net.model()
        requested = (RequestedShard(operator="c", method="output", count=2),)
        assert self.reason(model, Request(shards=requested, split="layers")) == (
            "'c' is split, 'a' is not, and onnxruntime would compute them as one"
        )
        assert plan(model, Request(split="layers")).plan.exact

    def test_cut_inside_a_fusion(self) -> None:
        """Seven filters are too few for shards, and the budget holds only one of the two convolutions."""
        net = Net()
        net.input("x", 1, 12, 129, 131)
        net.node("Conv", "x", net.absent("w", 7, 12, 127, 128), to="c")
        net.node("Conv", "x", net.absent("v", 7, 12, 127, 128), to="d")
        net.node("Relu", net.node("Add", "c", "d", to="a"), to="y")
        net.output("y")
        model = net.model()
        assert self.reason(model, Request(budget_bytes=smallest(model, "auto"))) == (
            "a cut separates 'c' and 'd', which onnxruntime would compute as one"
        )

    def test_split_of_an_odd_width(self) -> None:
        net = Net()
        net.input("x", 1, 2000)
        net.node("Gemm", "x", net.absent("w", 2000, 1001), to="fc")
        net.output("fc")
        request = Request(max_params=1_500_000)
        assert self.reason(net.model(), request) == "'fc' has 1001 outputs, no multiple of 8, and is split"

    @pytest.mark.parametrize(
        ("rows", "threads", "max_params", "exact"),
        [(4, 1, 200_000, True), (4, 1, 150_000, False), (1, 1, 20_000, True), (4, 2, 200_000, False), (4, 2, 400_000, True)],
    )
    def test_narrow_shards(self, rows: int, threads: int, max_params: int, exact: bool) -> None:
        request = Request(max_params=max_params, threads=threads)
        planned = plan(wide_layer(rows), request)
        columns = min(4000 // len(planned.plan.partitions) // 8 * 8, 4000)
        assert planned.plan.exact == exact
        if not exact:
            assert planned.plan.inexact_reason is not None
            assert planned.plan.inexact_reason == (
                f"'fc' is split to {columns} columns, which onnxruntime adds up in another order"
            )

    def test_split_of_a_product_and_its_sum(self, tmp_path: Path) -> None:
        """onnxruntime adds a computed operand within the product, and every shard adds its part."""
        net = Net()
        net.input("x", 2, 600)
        net.input("r", 2, 512)
        net.node("MatMul", "x", net.weight("w", 600, 512), to="m")
        net.node("Add", "m", "r", to="y")
        net.output("y")
        model = net.model(tmp_path)
        planned = plan(model, Request(max_params=200_000))
        assert len(planned.plan.partitions) > 1
        assert_computes_the_same(model, planned, tmp_path)

    def test_split_of_a_product_from_its_sum(self, tmp_path: Path) -> None:
        """A computed row that is added to every row stays after the Concat; onnxruntime adds it within the whole product."""
        net = Net()
        net.input("x", 2, 600)
        net.input("r", 1, 512)
        net.node("MatMul", "x", net.weight("w", 600, 512), to="m")
        net.node("Add", "m", "r", to="y")
        net.output("y")
        model = net.model(tmp_path)
        planned = plan(model, Request(max_params=200_000))
        assert planned.plan.inexact_reason == "'m' is split, 'y' is not, and onnxruntime would compute them as one"
        feeds = random_feeds(model)
        whole = run(model, feeds, tmp_path)
        assert not same_bits(run_partitions(planned.model, planned.plan.partitions, feeds, tmp_path), whole)

    def test_operators_that_were_not_measured(self) -> None:
        net = Net()
        net.input("x", 1, 64)
        net.node("Gemm", net.node("Erf", "x", to="e"), net.weight("w", 64, 64), to="y")
        net.output("y")
        model = net.model()
        reason = self.reason(model, Request(split="layers"))
        assert reason == "it is not known whether cuts leave every bit of Erf as it is"
        assert plan(model, Request()).plan.exact, "nothing is cut"

    def test_sixteen_bit_floats(self) -> None:
        net = Net()
        net.input("x", 1, 64, data_type=TensorProto.FLOAT16)
        net.node("Relu", net.node("Add", "x", "x", to="a"), to="y")
        net.output("y", data_type=TensorProto.FLOAT16)
        model = net.model()
        reason = self.reason(model, Request(split="layers"))
        assert reason == "onnxruntime computes 16-bit floats in 32 bits from operator to operator, and a cut rounds them"
        assert plan(model, Request()).plan.exact, "nothing is cut"

    def test_split_with_activation_is_exact(self, tmp_path: Path) -> None:
        net = Net()
        net.input("x", 2, 600)
        net.node("Gemm", "x", net.weight("w", 600, 512), to="g")
        net.node("Softplus", "g", to="y")
        net.output("y")
        model = net.model(tmp_path)
        planned = plan(model, Request(max_params=200_000))
        assert len(planned.plan.partitions) > 1
        assert_computes_the_same(model, planned, tmp_path)


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
