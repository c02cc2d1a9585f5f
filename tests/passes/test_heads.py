"""Tiles of heads against the whole model in onnxruntime, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hyps.passes.graph import view
from hyps.passes.rewrite import run_rewrites
from hyps.passes.tile_rewrite import TileRegion, TileRegions
from hyps.passes.tileable import sweeps
from hyps.passes.weights import Model
from tests.passes.attentions import Attention
from tests.passes.nets import random_feeds, run, same_bits


def tileable(model: Model, threads: int = 1) -> list[str]:
    return list(sweeps(model, view(model), threads)["heads"])


def tiled(model: Model, count: int, *, threads: int = 1) -> Model:
    """All that can be tiled along the heads, in ``count`` tiles."""
    region = TileRegion(operators=tuple(tileable(model, threads)), tiles=count, along="heads", reason="asked for")
    return run_rewrites(model, [TileRegions(regions=(region,), threads=threads)]).model


def assert_same(model: Model, count: int, folder: Path, *, threads: int = 1) -> Model:
    changed = tiled(model, count, threads=threads)
    feeds = random_feeds(model)
    assert same_bits(run(changed, feeds, folder, threads=threads), run(model, feeds, folder, threads=threads))
    return changed


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    return Attention(
        heads=draw(st.sampled_from([2, 3, 4, 6, 12])),
        tokens=draw(st.sampled_from([2, 7, 50, 64, 197, 300])),
        keys=draw(st.sampled_from([2, 9, 77, 128, 197, 330])),
        size=draw(st.sampled_from([2, 16, 32, 64, 80, 144])),
        batch=draw(st.sampled_from([None, 1, 1, 2])),
        scale=draw(st.sampled_from(["Mul", "Div", "before", "none"])),
        mask=draw(st.sampled_from(["none", "shared", "each", "chosen"])),
        turned=draw(st.booleans()),
        back=draw(st.booleans()),
        opset=draw(st.sampled_from([11, 13, 17, 18])),
    )


@settings(max_examples=150, deadline=None)
@given(attentions(), st.sampled_from([2, 3, 4, 6, 12]), st.sampled_from([1, 2, 4]))
def test_any_attention_keeps_every_bit(drawn: Attention, count: int, threads: int) -> None:
    model = drawn.model()
    names = [operator.name for operator in view(model).operators[3:-1]]
    assume(count <= drawn.heads and tileable(model, threads) == names)
    with tempfile.TemporaryDirectory() as folder:
        assert_same(model, count, Path(folder), threads=threads)
