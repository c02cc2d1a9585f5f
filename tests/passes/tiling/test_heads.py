"""Tiles of heads against the whole model in onnxruntime, bit for bit."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from hyps.passes.graph import view
from hyps.passes.rewrite import run_rewrites
from hyps.passes.tiling import head_rules
from hyps.passes.tiling.rewrite import TileRegion, TileRegions
from hyps.passes.tiling.tileable import tiling_rules
from hyps.passes.weights import Model
from tests.passes.attentions import Attention
from tests.passes.nets import Net, random_feeds, run, same_bits


def tileable(model: Model, threads: int = 1) -> list[str]:
    return list(tiling_rules(model, view(model), threads)["heads"])


def tiled(model: Model, count: int, *, threads: int = 1) -> Model:
    """Return the model with all that can be tiled along the heads in ``count`` tiles."""
    region = TileRegion(operators=tuple(tileable(model, threads)), tiles=count, tile_axis="heads", reason="asked for")
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


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("count", [2, 5, 12])
@pytest.mark.parametrize("mask", ["none", "shared"])
def test_attention_of_a_thousand_tokens(mask: str, count: int, threads: int, tmp_path: Path) -> None:
    model = Attention(heads=12, tokens=1000, keys=1000, size=64, mask=mask).model()
    assert_same(model, count, tmp_path, threads=threads)


def test_what_a_tile_is(tmp_path: Path) -> None:
    """Query, key and value are sliced before they are transposed, so that onnxruntime fuses the same operators."""
    changed = assert_same(Attention(turned=True, mask="shared").model(), 2, tmp_path)
    kinds = [node.op_type for node in changed.proto.graph.node if "/tile1of2" in node.name]
    turned = ["Slice", "Transpose"]
    assert kinds == [*turned, *turned, "Transpose", "MatMul", "Mul", "Add", "Softmax", *turned, "MatMul", "Transpose"]
    sliced = {node.input[0] for node in changed.proto.graph.node if node.op_type == "Slice"}
    assert sliced == {"q.heads", "k.heads", "v.heads"}
    assert [node.input[1] for node in changed.proto.graph.node if node.op_type == "Add"] == ["mask"] * 2
    assert "query/tile1of2/q.heads/heads0to2" in {node.name for node in changed.proto.graph.node}


@pytest.mark.parametrize("moved", ["q.heads", "k.heads", "v.heads", "bias"])
def test_a_slice_of_other_heads_is_noticed(moved: str, tmp_path: Path) -> None:
    model = Attention(mask="each").model()
    changed = tiled(model, 4)
    feeds = random_feeds(model)
    for tensor in changed.proto.graph.initializer:
        if f"/tile2of4/{moved}/" in tensor.name and tensor.name.endswith(("/start", "/stop")):
            values = numpy_helper.to_array(tensor) + 1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert not same_bits(run(changed, feeds, tmp_path), run(model, feeds, tmp_path))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86-64: other kernels sum otherwise")
def test_long_sums_of_few_columns_do_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows why products are refused: two threads share its 129 columns, each adds up longer blocks than one would."""
    attention = Attention(heads=12, tokens=64, keys=129, size=256)
    model = attention.model()
    assert "scores" not in tileable(model, 2)
    assert "scores" in tileable(model, 1)
    for allowed in (replace(attention, size=128), replace(attention, tokens=129), replace(attention, keys=160)):
        assert "scores" in tileable(allowed.model(), 2)
    monkeypatch.setattr(head_rules, "BLOCK_DEPTH", 1 << 30)
    feeds, changed = random_feeds(model), tiled(model, 12, threads=2)
    assert not same_bits(run(changed, feeds, tmp_path, threads=2), run(model, feeds, tmp_path, threads=2))


def tileable_after_scores(*steps: str, opset: int = 17, **attributes: Any) -> list[str]:
    """Return which of these operators ("kind operand"), placed after an attention's scores, can be tiled along its heads."""
    net = Net(opset=opset)
    value = net.node("MatMul", net.input("a", 1, 4, 9, 8), net.input("b", 1, 4, 8, 9), to="scores")
    net.weight("all", 1, 4, 1, 1)
    net.weight("one", 1)
    net.input("other", 4, 9, 9)
    for index, step in enumerate(steps):
        kind, *operands = step.split()
        value = net.node(kind, value, *operands, to=f"{index}", **(attributes if index == len(steps) - 1 else {}))
    net.output(value)
    return [name for name in tileable(net.model()) if name != "scores"]


def test_what_is_left_out() -> None:
    assert tileable_after_scores("Mul one", "Softmax", axis=-1) == ["0", "1"]
    assert tileable_after_scores("Softmax") == ["0"]
    assert tileable_after_scores("Softmax", axis=3, opset=11) == ["0"]
    assert tileable_after_scores("Softmax", opset=11) == []  # over heads and tokens together
    assert tileable_after_scores("Softmax", axis=1) == []
    assert tileable_after_scores("Softmax", axis=2) == []
    assert tileable_after_scores("Mul all") == []  # a weight of each head
    assert tileable_after_scores("Add other") == []  # of fewer axes
    assert tileable_after_scores("Elu") == []
    assert tileable_after_scores("Abs", "Transpose") == ["0", "1"]
    assert tileable_after_scores("Abs", "Transpose", perm=[3, 1, 0, 2]) == ["0", "1"]


def test_products_of_other_heads_are_left_out() -> None:
    net = Net()
    net.input("x", 2, 4, 9, 8)
    net.node("MatMul", "x", net.weight("w", 8, 8), to="weighed")
    net.node("MatMul", "x", net.input("shared", 1, 1, 8, 9), to="broadcast")
    net.node("MatMul", "x", net.input("vector", 8), to="vector.y")
    net.node("MatMul", "x", net.input("column", 2, 4, 8, 1), to="column.y")
    net.output("weighed", "broadcast", "vector.y", "column.y")
    assert tileable(net.model()) == []
