"""Operators split by input (convolutions: by filter) compute the whole model's numbers but for the last bits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.convolutions import convolutions
from tests.passes.nets import Net
from tests.passes.splitting import assert_split_is_whole, most

SEEDED = settings(derandomize=True, deadline=None, max_examples=150)


@SEEDED
@given(convolutions(), st.data(), st.integers(1, 3))
def test_conv(net: Net, data: st.DataObject, threads: int) -> None:
    limit = most(net.model(), "c", "input")
    assert_split_is_whole(net, "input", "c", data.draw(st.integers(2, limit), "count"), threads=threads)
