"""A split that is broken on purpose in one place computes other numbers than the whole model, and the comparison notices."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyps.passes.errors import PassFailed
from hyps.passes.normalize.batch_normalization import FoldBatchNormalization
from hyps.passes.receptive_field import InputRows, Rows, SlidingWindow
from hyps.passes.rewrite import run_rewrites
from hyps.passes.sharding import fused_followers, shard_builder, shard_input, shard_output, shard_spatial, summation
from hyps.passes.sharding.layouts import Method
from hyps.passes.weights import Weight
from tests.passes.nets import Net, random_feeds, run, same_bits
from tests.passes.splitting import TOLERANCE, assert_split_is_whole, difference, is_exact, split

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
    """Return a break by which every shard takes the first elements."""

    def parts(operator: str, widths: Any) -> list[shard_builder.Part]:
        return [replace(part, start=0, stop=part.stop - part.start) for part in shard_builder.shard_parts(operator, widths)]

    return lambda patch: patch.setattr(module, "shard_parts", parts)


def one_row_off(patch: pytest.MonkeyPatch) -> None:
    """Shift the halo by a row: up too far, and down not far enough."""
    input_rows = SlidingWindow.input_rows

    def wrong(self: SlidingWindow, rows: Rows, height: int) -> InputRows | None:
        read = input_rows(self, rows, height)
        assert read is not None
        start, stop = read.rows
        return replace(read, rows=(start - 1, stop - 1)) if start else read

    patch.setattr(SlidingWindow, "input_rows", wrong)


def pads_everywhere(patch: pytest.MonkeyPatch) -> None:
    """Give every shard the whole convolution's pads, and so another height."""
    input_rows = SlidingWindow.input_rows

    def wrong(self: SlidingWindow, rows: Rows, height: int) -> InputRows | None:
        read = input_rows(self, rows, height)
        assert read is not None
        return replace(read, pads=self.pads)

    patch.setattr(SlidingWindow, "input_rows", wrong)


def first_channels(patch: pytest.MonkeyPatch) -> None:
    """Add the first channels of the residual to the result of every shard."""
    cut = fused_followers._operand

    def wrong(shard: shard_builder.ShardBuilder, member: Any, operand: Any, source: Any, axis: int) -> Any:
        part = shard.part
        shard.part = replace(part, start=0, stop=part.stop - part.start)
        result = cut(shard, member, operand, source, axis)
        shard.part = part
        return result

    patch.setattr(fused_followers, "_operand", wrong)


def first_factors(patch: pytest.MonkeyPatch) -> None:
    """Give every shard the first channels' factors of a folded batch normalisation."""
    cut = Weight.slice

    def wrong(self: Weight, axis: int, start: int, stop: int, shape: tuple[int, ...]) -> Weight:
        return replace(cut(self, axis, start, stop, shape), row_scale=self.row_scale)

    patch.setattr(Weight, "slice", wrong)


CASES: dict[str, tuple[Break, Method, Callable[[], Net]]] = {
    "output: columns of another shard": (first_part(shard_output), "output", product),
    "channel: filters of another shard": (first_part(shard_output), "output", convolution),
    "channel: groups of another shard": (first_part(shard_output), "output", lambda: convolution(group=4)),
    "channel: a residual's other channels": (first_channels, "output", convolution),
    "input: columns of another shard": (first_part(shard_input), "input", product),
    "filter: channels of another shard": (first_part(shard_input), "input", convolution),
    "spatial: rows of another shard": (first_part(shard_spatial), "spatial", lambda: convolution(pads=[1] * 4)),
    "spatial: the halo one row off": (one_row_off, "spatial", lambda: convolution(pads=[1] * 4)),
    "spatial: pads between shards": (pads_everywhere, "spatial", lambda: convolution(pads=[1] * 4)),
}


@pytest.mark.parametrize(("broken", "method", "net"), CASES.values(), ids=CASES)
def test_a_broken_split_is_noticed(
    broken: Break, method: Method, net: Callable[[], Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_split_is_whole(net(), method, "c", 4)
    broken(monkeypatch)
    with pytest.raises((AssertionError, PassFailed)):
        assert_split_is_whole(net(), method, "c", 4)


def test_factors_of_a_folded_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factor of each channel goes with its filters; the comparison notices when it does not."""
    net = Net()
    net.input("x", 1, 32, 9, 9)
    net.norm(net.conv("x", "c", (64, 32, 3, 3)), "n", 64)
    net.output("n")
    model = run_rewrites(net.model(tmp_path, reference=512), [FoldBatchNormalization()]).model
    assert model.weights["c.w"].row_scale is not None
    feeds = random_feeds(model)
    whole = run(model, feeds, tmp_path)
    assert same_bits(run(split(model, "output", {"c": 3}), feeds, tmp_path), whole)
    assert difference(run(split(model, "input", {"c": 3}), feeds, tmp_path), whole) <= TOLERANCE
    first_factors(monkeypatch)
    assert not same_bits(run(split(model, "output", {"c": 3}), feeds, tmp_path), whole)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64: other kernels sum otherwise")
def test_narrow_segments_do_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows why `sharding.summation` is needed: four threads have 49 positions each, and longer blocks than the whole."""
    net = Net()
    net.input("x", 1, 64, 16, 16)
    net.conv("x", "c", (512, 64, 3, 3))
    net.output("c")
    assert not is_exact(net.model(), "c", "output", 4, 4)
    assert_split_is_whole(net, "output", "c", 4, threads=4)
    monkeypatch.setattr(summation, "has_wide_segments", lambda columns, threads: True)
    with pytest.raises(AssertionError, match="of the largest output"):
        assert_split_is_whole(net, "output", "c", 4, threads=4)
