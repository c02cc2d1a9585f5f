"""Convolutions split spatially compute the whole model's numbers, bit for bit where that is promised."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.passes.convolutions import convolutions
from tests.passes.nets import Net
from tests.passes.splitting import assert_split_is_whole, max_shards

SEEDED = settings(derandomize=True, deadline=None, max_examples=150)


@SEEDED
@given(convolutions(groups=(1, 2, 12)), st.data(), st.integers(1, 3))
def test_conv(net: Net, data: st.DataObject, threads: int) -> None:
    limit = max_shards(net.model(), "c", "spatial")
    assume(limit > 1)
    assert_split_is_whole(net, "spatial", "c", data.draw(st.integers(2, limit), "count"), threads=threads)
