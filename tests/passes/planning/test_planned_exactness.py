"""A plan says when its result may differ in the last bits, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import Request, RequestedShard
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits
from tests.passes.planning.plans import assert_computes_the_same, smallest, wide_layer


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
