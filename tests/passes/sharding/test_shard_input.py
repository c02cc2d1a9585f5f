"""Operators split by input (convolutions: by filter) compute the whole model's numbers except for the last bits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.convolutions import convolutions
from tests.passes.nets import Net
from tests.passes.products import products
from tests.passes.splitting import assert_split_is_whole, kinds, max_shards

SEEDED = settings(derandomize=True, deadline=None, max_examples=150)


@SEEDED
@given(convolutions(), st.data(), st.integers(1, 3))
def test_conv(net: Net, data: st.DataObject, threads: int) -> None:
    limit = max_shards(net.model(), "c", "input")
    assert_split_is_whole(net, "input", "c", data.draw(st.integers(2, limit), "count"), threads=threads)


@SEEDED
@given(products(), st.data(), st.integers(1, 3), st.sampled_from([512, 1 << 30]))
def test_product(net: Net, data: st.DataObject, threads: int, reference: int) -> None:
    limit = max_shards(net.model(), "p", "input")
    count = data.draw(st.integers(2, limit), "count")
    after = assert_split_is_whole(net, "input", "p", count, threads=threads, reference=reference)
    assert kinds(after)[0] == "Slice"


def test_the_sum_so_far_is_all_that_is_kept() -> None:
    """A Gemm reads the sum so far as its third operand, with a factor of 1; the first shard has the bias."""
    net = Net()
    net.input("x", 3, 32)
    net.node("Gemm", "x", net.weight("w", 32, 8), net.weight("b", 8), to="y", alpha=0.5, beta=2.0)
    net.output("y")
    after = assert_split_is_whole(net, "input", "y", 3)
    products = [node for node in after.proto.graph.node if node.op_type == "Gemm"]
    betas = [next(attribute.f for attribute in node.attribute if attribute.name == "beta") for node in products]
    assert [node.input[2] for node in products] == ["b", "y/shard1of3", "y/shard2of3"]
    assert betas == [2.0, 1.0, 1.0]
    assert kinds(after) == ["Slice", "Gemm"] * 3
