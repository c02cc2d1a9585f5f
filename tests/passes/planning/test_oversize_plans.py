"""Operators that are too large are split, and each split has its reason; what cannot be split is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from onnx import TensorProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import Policy, Request, RequestedShard
from hyps.passes.sharding.layouts import Method
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions
from tests.passes.planning.plans import (
    PROCESS_BYTES,
    START_BYTES,
    assert_computes_the_same,
    does_not_fit,
    smallest,
    wide_layer,
)
from tests.passes.splitting import difference


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
    found = re.fullmatch(r"split .* into (\d+) shards", what)
    assert found
    return int(found[1])


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
