"""Pairs of QuantizeLinear and DequantizeLinear are merged as onnxruntime merges them, so that cuts change no bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyps.passes.cost.fusion import fused_positions
from hyps.passes.graph import view
from hyps.passes.normalize.quantized_pairs import MergeQuantizedPairs
from hyps.passes.rewrite import run_rewrites
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_cut, same_bits

#: (scale, zero point) of pairs, and what stands between two of them.
Chain = Sequence[tuple[float, int] | str]


def chain(*parts: tuple[float, int] | str, dtype: Any = np.uint8, shape: tuple[int, ...] = (), opset: int = 17) -> Model:
    """Return a net of pairs and operators, one after the other; ``y`` is the output."""
    net = Net(opset=opset)
    value = net.input("x", 4, 64)
    for index, part in enumerate(parts):
        if isinstance(part, str):
            value = net.node(part, value, to=f"o{index}")
            continue
        scales = [net.constant(f"s{index}", np.full(shape, part[0]), np.float32)]
        scales.append(net.constant(f"z{index}", np.full(shape, part[1]), dtype))
        codes = net.node("QuantizeLinear", value, *scales, to=f"q{index}")
        value = net.node("DequantizeLinear", codes, *scales, to=f"d{index}")
    net.output(net.node("Identity", value, to="y"))
    return net.model()


A, B, C = (0.031, 128), (0.027, 120), (0.02, 140)
MERGED: dict[str, Model] = {
    "next to each other": chain(A, B),
    "the narrower first": chain(B, A),
    "Identity between": chain(A, "Identity", B),
    "Dropout and Identity between": chain(A, "Dropout", "Identity", B),
    "three": chain(A, B, C),
    "three, Identity between the first two": chain(A, "Identity", B, C),
    "three, Identity between the last two": chain(C, A, "Identity", B),
    "three, of which the order matters": chain((0.0276, 127), "Identity", (0.03, 166), (0.027, 165)),
    "the same scale twice": chain(A, A),
    "signed": chain((0.031, 3), (0.027, -9), dtype=np.int8),
    "constants of one element": chain(A, B, shape=(1,)),
    "opset 10": chain(A, B, opset=10),
    "opset 21": chain(A, B, opset=21),
    "after a product of numbers": chain("Sigmoid", A, "Identity", B, "Tanh"),
}


@pytest.mark.parametrize("model", MERGED.values(), ids=MERGED)
def test_one_pair_is_left_and_cuts_change_no_bit(model: Model, tmp_path: Path) -> None:
    merged = run_rewrites(model, [MergeQuantizedPairs()])
    graph = view(merged.model)
    assert [operator.op_type for operator in graph.operators].count("QuantizeLinear") == 1
    assert {change.what.split()[0] for change in merged.changes} == {"merged"}
    feeds = {"x": 4 * random_feeds(model)["x"]}
    whole = run(model, feeds, tmp_path)
    assert same_bits(run(merged.model, feeds, tmp_path), whole)
    cuts = set(range(1, len(graph.operators))) - fused_positions(graph)
    assert cuts
    for position in cuts:
        assert same_bits(run_cut(merged.model, (position,), feeds, tmp_path), whole)


def test_a_cut_between_pairs_that_are_not_merged_rounds_twice(tmp_path: Path) -> None:
    """It shows why they are merged."""
    model = chain(A, B)
    feeds = random_feeds(model)
    whole, found = run(model, feeds, tmp_path)["y"], run_cut(model, (2,), feeds, tmp_path)["y"]
    assert 0.005 < float(np.abs(found - whole).max() / np.abs(whole).max()) < 0.1


def read_twice() -> Model:
    net = Net()
    net.input("x", 4, 64)
    one, two = (
        (net.constant(f"s{i}", s, np.float32), net.constant(f"z{i}", z, np.uint8)) for i, (s, z) in enumerate((A, B))
    )
    taken = net.node("DequantizeLinear", net.node("QuantizeLinear", "x", *one, to="q"), *one, to="d")
    again = net.node("DequantizeLinear", net.node("QuantizeLinear", taken, *two, to="r"), *two, to="e")
    net.output(net.node("Add", taken, again, to="y"))
    return net.model()


KEPT: dict[str, Model] = {
    "a result that is read twice": read_twice(),
    "an operator that computes between": chain(A, "Relu", B),
    "disjoint ranges": chain((0.01, 255), (0.01, 0)),
    "16 bits": chain(A, B, dtype=np.uint16, opset=21),
    "a pool after pairs with Identity between": chain(A, "Identity", B, "Squeeze"),
    "no pairs": chain("Relu"),
}


@pytest.mark.parametrize("model", KEPT.values(), ids=KEPT)
def test_what_onnxruntime_leaves_or_moves_is_left(model: Model) -> None:
    kept = run_rewrites(model, [MergeQuantizedPairs()])
    assert not kept.modified and kept.model is model


def test_pairs_that_stay_are_not_cut_apart() -> None:
    """onnxruntime copies their scales past the Squeeze before it merges them."""
    graph = view(chain(A, "Identity", B, "Squeeze"))
    kinds = [operator.op_type for operator in graph.operators]
    assert fused_positions(graph) >= set(range(1, kinds.index("Squeeze") + 1))
