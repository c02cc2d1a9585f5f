"""An operator's bytes: those that onnxruntime maps, copies while it loads, and needs while it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hyps.passes.cost.footprint import (
    FUSED_MATMUL_BYTES,
    INITIALIZER_BYTES,
    PACKED_BYTES,
    Footprint,
    footprints,
    is_in_file,
    mapped_bytes,
    resident_bytes,
)
from hyps.passes.graph import Tensor, view
from hyps.passes.mlas import THREAD_BUFFER_BYTES
from hyps.passes.weights import Weight
from tests.passes.nets import Net, drawn

BUFFER = THREAD_BUFFER_BYTES


def footprints_of(net: Net, *, threads: int = 1) -> Mapping[str, Footprint]:
    net.output("y")
    return footprints(view(net.model()), threads)


def convolution(side: int, filters: tuple[int, ...], *, threads: int = 1, **attributes: Any) -> Footprint:
    net = Net()
    net.input("x", 1, filters[1] * attributes.get("group", 1), side, side)
    net.conv("x", "y", filters, bias=False, **attributes)
    return footprints_of(net, threads=threads)["y"]


@pytest.mark.parametrize(
    ("nbytes", "resident"),
    [(0, 0), (4, 8), (65_535, 131_070), (65_536, 65_536), (65_537, 131_072), (1_000_000, 1_048_576)],
)
def test_mapped_bytes(nbytes: int, resident: int) -> None:
    """Large weights take multiples of 64 KiB of their file; small ones lie in the model's file and in onnxruntime's copy."""
    assert mapped_bytes(nbytes, in_file=nbytes >= 65_536) == INITIALIZER_BYTES + resident


@pytest.mark.parametrize(("nbytes", "resident"), [(0, 0), (1, 64), (64, 64), (26_880, 26_880), (65_535, 65_536)])
def test_a_small_part_of_a_large_weight_is_held_once(nbytes: int, resident: int) -> None:
    """It lies in the weights file, packed: a shard of 120 x 56 floats once took 64 KiB."""
    assert PACKED_BYTES == 64
    weight = Tensor(
        name="w", dtype="float32", shape=(nbytes // 4,), nbytes=nbytes, storage=Weight(path="w", offset=0, row_bytes=nbytes)
    )
    assert is_in_file(weight)
    assert resident_bytes(weight) == INITIALIZER_BYTES + resident


@pytest.mark.parametrize(
    ("shape", "follower", "fused"),
    [((1, 4, 8), "Add", True), ((4, 8), "Add", False), ((1, 4, 8), "Relu", False), ((1, 4, 8), "Mul", False)],
)
def test_a_product_that_is_fused_with_its_add(shape: tuple[int, ...], follower: str, fused: bool) -> None:
    net = Net()
    net.input("x", *shape)
    net.node("MatMul", "x", net.weight("w", 8, 8), to="m")
    net.node(follower, "m", *([] if follower == "Relu" else [net.weight("b", 8)]), to="y")
    assert footprints_of(net)["m"].copied_bytes == (FUSED_MATMUL_BYTES if fused else 0)


@pytest.mark.parametrize(
    ("side", "filters", "attributes", "nbytes"),
    [
        (32, (8, 4, 3, 3), {}, BUFFER),
        (6, (64, 4, 3, 3), {}, 4 * 16 * 36 + BUFFER),
        (6, (64, 4, 3, 3), {"pads": [1] * 4}, 4 * 36 * 36 + BUFFER),
        (6, (16, 4, 3, 3), {}, BUFFER),
        (6, (17, 4, 3, 3), {}, 4 * 16 * 36 + BUFFER),
        (6, (64, 4, 1, 1), {}, BUFFER),
        (6, (64, 4, 1, 1), {"strides": [2, 2]}, 4 * 9 * 4 + BUFFER),
        (6, (64, 1, 3, 3), {"group": 4}, BUFFER),
        (6, (68, 1, 3, 3), {"group": 4}, 4 * 16 * 9 + BUFFER),
        (6, (64, 1, 3, 3), {"group": 64}, BUFFER),
    ],
    ids=[
        "more positions than filters",
        "more filters than positions: all patches",
        "padded: more positions",
        "as many filters as positions",
        "one filter more",
        "pointwise",
        "pointwise with a stride",
        "grouped: filters of one group count",
        "grouped: more filters in a group than positions",
        "depthwise",
    ],
)
def test_workspace_of_a_convolution(side: int, filters: tuple[int, ...], attributes: dict[str, Any], nbytes: int) -> None:
    assert convolution(side, filters, **attributes).workspace_bytes == nbytes


def test_every_thread_has_its_buffer() -> None:
    assert convolution(32, (8, 4, 3, 3), threads=4).workspace_bytes == 4 * BUFFER


def test_convolution_in_three_dimensions() -> None:
    net = Net()
    net.input("x", 1, 2, 4, 4, 4)
    net.conv("x", "y", (16, 2, 3, 3, 3), bias=False)
    assert footprints_of(net)["y"].workspace_bytes == 4 * 8 * 2 * 27 + BUFFER


def test_convolution_whose_kernel_is_computed() -> None:
    net = Net()
    net.input("x", 1, 4, 6, 6)
    net.input("w", 64, 4, 3, 3)
    net.node("Conv", "x", "w", net.weight("b", 64), to="y")
    assert footprints_of(net)["y"].workspace_bytes == 4 * 16 * 36 + BUFFER


def test_workspace_of_a_transposed_convolution() -> None:
    net = Net()
    net.input("x", 1, 4, 6, 6)
    net.node("ConvTranspose", "x", net.weight("w", 4, 8, 3, 3), to="y")
    assert footprints_of(net)["y"].workspace_bytes == 4 * 8 * 9 * 36


@pytest.mark.parametrize(
    ("kind", "nbytes"),
    [("Relu", 0), ("Gemm", 0), ("MaxPool", 0), ("Concat", 0), ("Softmax", 0), ("ReduceMean", 104), ("Resize", 104)],
)
def test_workspace_of_others(kind: str, nbytes: int) -> None:
    """It is none where it was measured to be none; else it is as much as the inputs and outputs."""
    graph = drawn(f"a {kind} x -> a", inputs="x", outputs="a", sizes={"x": 100, "a": 4})
    assert footprints(graph, 1)["a"].workspace_bytes == nbytes


def test_inputs_outputs_and_weights() -> None:
    sizes = {"x": 10, "z": 20, "a": 3, "b": 4, "W": 70_000, "V": 100}
    graph = drawn("n Gemm x z W V -> a b", inputs="x z", outputs="a b", sizes=sizes)
    footprint = footprints(graph, 1)["n"]
    assert (footprint.input_bytes, footprint.output_bytes) == (30, 7)
    assert footprint.weight_bytes == 2 * 65536 + 200 + 2 * INITIALIZER_BYTES


@pytest.mark.parametrize(
    ("text", "outputs", "reused"),
    [
        ("a Conv x -> a\ny Relu a -> y", "y", "a"),
        ("a Conv x -> a\ny Add a x -> y", "y", "a"),
        ("a Conv x -> a\ny Add x a -> y", "y", "a"),
        ("a Conv x -> a\ny Reshape a S -> y", "y", "a"),
        ("a Conv x -> a\ny Relu a -> y", "y a", None),
        ("a Conv x -> a\nb Neg a -> b\ny Add a b -> y", "y", "b"),
        ("a Conv x -> a\ny MaxPool a -> y", "y", None),
        ("a Conv x -> a\ny Concat a -> y", "y", None),
    ],
    ids=[
        "activation",
        "first operand",
        "second operand",
        "alias",
        "an output is kept",
        "an operand that is read elsewhere is kept",
        "pooling",
        "concatenation",
    ],
)
def test_buffers_are_reused(text: str, outputs: str, reused: str | None) -> None:
    sizes = dict.fromkeys("aby", 64) | {"x": 32}
    footprint = footprints(drawn(text, inputs="x", outputs=outputs, sizes=sizes), 1)["y"]
    assert (footprint.in_place_input, footprint.in_place_bytes) == (reused, 64 if reused else 0)


def test_an_operand_of_another_size_is_not_reused() -> None:
    graph = drawn("a Conv x -> a\ny Add a x -> y", inputs="x", outputs="y", sizes={"x": 32, "a": 4, "y": 64})
    assert footprints(graph, 1)["y"].in_place_input is None


def copies(net: Net, name: str) -> int:
    return footprints_of(net)[name].copied_bytes


def test_referenced_float_weights_are_not_copied() -> None:
    net = Net()
    net.input("x", 1, 4096)
    net.node("Gemm", "x", net.absent("w", 4096, 1024), to="g")
    net.node("Relu", "g", to="y")
    assert copies(net, "g") == 0


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 2), ("bfloat16", 2), ("float32", 0), ("int8", 0)])
def test_half_precision_weights_are_widened(dtype: str, factor: int) -> None:
    """onnxruntime has few kernels for them on CPUs: it holds a float32 copy, twice as large."""
    graph = drawn("a Gemm x W B -> a", inputs="x", outputs="a", sizes={"W": 1000, "B": 10})
    weights = {name: replace(weight, dtype=dtype) for name, weight in graph.weights.items()}
    assert footprints(replace(graph, weights=weights), 1)["a"].copied_bytes == factor * 1010


def test_folded_constants_are_weights_too() -> None:
    net = Net()
    net.input("x", 4, 16)
    net.node("Transpose", net.weight("w", 8, 16), to="t")
    net.node("MatMul", "x", "t", to="y")
    assert copies(net, "t") == 4 * 8 * 16


@pytest.mark.parametrize("kind", ["Mul", "Add", "BatchNormalization", "MatMul + BatchNormalization"])
def test_weights_that_a_fusion_rewrites_are_copied(kind: str) -> None:
    net = Net()
    if kind.startswith("MatMul"):
        net.input("x", 4, 8)
        net.node("MatMul", "x", net.weight("c.w", 8, 8), to="c")
    else:
        net.input("x", 1, 8, 9, 9)
        net.conv("x", "c", (8, 8, 3, 3), bias=False)
    if kind.endswith("BatchNormalization"):
        net.norm("c", "y", 8)
    else:
        net.node(kind, "c", net.weight("s", 8, 1, 1), to="y")
    prints = footprints_of(net)
    assert prints["c"].copied_bytes == 4 * 8 * 8 * (1 if kind.startswith("MatMul") else 9)
    assert prints["y"].copied_bytes == 0


def gated(net: Net) -> None:
    net.node("Sigmoid", "x", to="gate")
    net.node("Mul", "c", "gate", to="y")


def read_twice(net: Net) -> None:
    net.node("Mul", "c", net.weight("s", 8, 1, 1), to="m")
    net.node("Add", "m", "c", to="y")


def an_output(net: Net) -> None:
    net.node("Mul", "c", net.weight("s", 8, 1, 1), to="y")
    net.output("c")


def activated(net: Net) -> None:
    net.node("Relu", "c", to="y")


@pytest.mark.parametrize("fill", [gated, read_twice, an_output, activated], ids=lambda fill: fill.__name__)
def test_weights_that_no_fusion_rewrites_are_not_copied(fill: Any) -> None:
    net = Net()
    net.input("x", 1, 8, 9, 9)
    net.conv("x", "c", (8, 8, 1, 1), bias=False)
    fill(net)
    assert copies(net, "c") == 0
