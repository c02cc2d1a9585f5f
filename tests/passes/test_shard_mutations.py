"""Each method, broken on purpose in one place, no longer computes the whole model's numbers: the comparison notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hyps.passes import cutting, shard_input, shard_output, shard_spatial, summation, tails
from hyps.passes.fold import FoldBatchNormalization
from hyps.passes.layouts import Method, Window
from hyps.passes.rewrite import PassFailed
from hyps.passes.weights import Weight
from tests.passes.nets import Net
from tests.passes.splitting import assert_split_is_whole

Break = Callable[[pytest.MonkeyPatch], None]


def convolution(**attributes: Any) -> Net:
    net = Net()
    net.input("x", 1, 32, 16, 16)
    net.conv("x", "c", (64, 32 // attributes.get("group", 1), 3, 3), **attributes)
    net.node("Add", "c", net.weight("z", 64, 1, 1), to="a")
    net.output("a")
    return net


def product() -> Net:
    net = Net()
    net.input("x", 3, 64)
    net.node("Gemm", "x", net.weight("w", 64, 32), net.weight("b", 32), to="c", beta=0.5)
    net.output("c")
    return net


def first_part(module: Any) -> Break:
    """Every shard takes the first elements."""

    def parts(operator: str, widths: Any) -> list[cutting.Part]:
        return [replace(part, start=0, stop=part.stop - part.start) for part in cutting.parts(operator, widths)]

    return lambda patch: patch.setattr(module, "parts", parts)


def one_row_off(patch: pytest.MonkeyPatch) -> None:
    """The halo reaches up too far, and down not far enough."""
    reads = Window.reads

    def wrong(self: Window, start: int, stop: int) -> tuple[int, int, tuple[int, ...]]:
        first, last, pads = reads(self, start, stop)
        return (first - 1, last - 1, pads) if first else (first, last, pads)

    patch.setattr(Window, "reads", wrong)


def pads_everywhere(patch: pytest.MonkeyPatch) -> None:
    """Every shard has the whole convolution's pads, and so another height."""
    reads = Window.reads
    patch.setattr(Window, "reads", lambda self, start, stop: (*reads(self, start, stop)[:2], self.pads))


def whole_channels(patch: pytest.MonkeyPatch) -> None:
    """What is added to the result is the first channels' for all shards."""
    cut = tails._cut
    patch.setattr(tails, "_cut", lambda *arguments: cut(*arguments[:5], replace(arguments[5], start=0, stop=16), arguments[6]))


CASES: dict[str, tuple[Break, Method, Callable[[], Net]]] = {
    "output: columns of another shard": (first_part(shard_output), "output", product),
    "channel: filters of another shard": (first_part(shard_output), "output", convolution),
    "channel: groups of another shard": (first_part(shard_output), "output", lambda: convolution(group=4)),
    "channel: a residual's other channels": (whole_channels, "output", convolution),
    "input: columns of another shard": (first_part(shard_input), "input", product),
    "filter: channels of another shard": (first_part(shard_input), "input", convolution),
    "spatial: rows of another shard": (first_part(shard_spatial), "spatial", lambda: convolution(pads=[1] * 4)),
    "spatial: the halo one row off": (one_row_off, "spatial", lambda: convolution(pads=[1] * 4)),
    "spatial: pads between shards": (pads_everywhere, "spatial", lambda: convolution(pads=[1] * 4)),
}


@pytest.mark.parametrize(("broken", "method", "net"), CASES.values(), ids=CASES)
def test_is_caught(broken: Break, method: Method, net: Callable[[], Net], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_split_is_whole(net(), method, "c", 4)
    broken(monkeypatch)
    with pytest.raises((AssertionError, PassFailed)):
        assert_split_is_whole(net(), method, "c", 4)
