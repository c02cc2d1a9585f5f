"""Multiply-adds follow the operators' definitions; an operator's seconds are those of its slowest part."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hyps.passes.cost.compute import compute_s, multiply_adds
from hyps.passes.device import DeviceRates
from hyps.passes.graph import view
from tests.passes.nets import Net, vgg16_structure


def conv(net: Net) -> None:
    net.input("x", 2, 8, 10, 10)
    net.node("Conv", "x", net.weight("w", 16, 8, 3, 3), net.weight("b", 16), to="y")


def grouped(net: Net) -> None:
    net.input("x", 1, 8, 10, 10)
    net.node("Conv", "x", net.weight("w", 16, 2, 3, 3), to="y", group=4, strides=[2, 2], pads=[1] * 4)


def one_dimension(net: Net) -> None:
    net.input("x", 1, 8, 10)
    net.node("Conv", "x", net.weight("w", 16, 8, 3), to="y")


def computed_kernel(net: Net) -> None:
    net.input("x", 1, 8, 10, 10)
    net.input("w", 16, 8, 3, 3)
    net.node("Conv", "x", "w", net.weight("b", 16), to="y")


def transposed(net: Net) -> None:
    net.input("x", 1, 8, 10, 10)
    net.node("ConvTranspose", "x", net.weight("w", 8, 16, 2, 2), to="y", strides=[2, 2])


def gemm(net: Net) -> None:
    net.input("x", 3, 50)
    net.node("Gemm", "x", net.weight("w", 20, 50), net.weight("b", 20), to="y", transB=1)


def gemm_transposed(net: Net) -> None:
    net.input("x", 50, 3)
    net.input("c", 3, 20)
    net.node("Gemm", "x", net.weight("w", 50, 20), "c", to="y", transA=1)


def batches(net: Net) -> None:
    net.input("a", 2, 4, 5, 6)
    net.input("b", 4, 6, 7)
    net.node("MatMul", "a", "b", to="y")


def sequence(net: Net) -> None:
    net.input("x", 2, 5, 6)
    net.node("MatMul", "x", net.weight("w", 6, 7), to="y")


def weights_first(net: Net) -> None:
    net.input("x", 6, 7)
    net.node("MatMul", net.weight("w", 5, 6), "x", to="y")


def vector(net: Net) -> None:
    net.input("x", 6)
    net.node("MatMul", "x", net.weight("w", 6, 7), to="y")


def squared(net: Net) -> None:
    net.input("x", 6, 6)
    net.node("MatMul", "x", "x", to="y")


def relu(net: Net) -> None:
    net.input("x", 1, 1000)
    net.node("Relu", "x", to="y")


@pytest.mark.parametrize(
    ("fill", "macs"),
    [
        (conv, 2 * 16 * 8 * 8 * 8 * 9),
        (grouped, 16 * 5 * 5 * 2 * 9),
        (one_dimension, 16 * 8 * 8 * 3),
        (computed_kernel, 16 * 8 * 8 * 8 * 9),
        (transposed, 8 * 10 * 10 * 16 * 4),
        (gemm, 3 * 50 * 20),
        (gemm_transposed, 3 * 50 * 20),
        (batches, 2 * 4 * 5 * 6 * 7),
        (sequence, 2 * 5 * 6 * 7),
        (weights_first, 5 * 6 * 7),
        (vector, 6 * 7),
        (squared, 6 * 6 * 6),
        (relu, 0),
    ],
)
def test_multiply_adds(fill: Callable[[Net], None], macs: int) -> None:
    net = Net(opset=13)
    fill(net)
    net.output("y")
    graph = view(net.model())
    assert multiply_adds(graph, graph.operators[0]) == macs


def test_vgg16_has_its_published_multiply_adds() -> None:
    """They are 15.3 billion in its convolutions, 124 million in its Gemms (Simonyan and Zisserman's network D)."""
    graph = view(vgg16_structure())
    by_kind = {kind: [op for op in graph.operators if op.op_type == kind] for kind in ("Conv", "Gemm")}
    assert sum(multiply_adds(graph, operator) for operator in by_kind["Conv"]) == 15_346_630_656
    assert sum(multiply_adds(graph, operator) for operator in by_kind["Gemm"]) == 123_633_664


@pytest.mark.parametrize(
    ("fill", "device", "seconds"),
    [
        (conv, DeviceRates(conv_macs_per_s=1e3), 2 * 16 * 8 * 8 * 8 * 9 / 1e3),
        (conv, DeviceRates(memory_bytes_per_s=1e3, gemv_bytes_per_s=1), 4 * (2 * 8 * 100 + 2 * 16 * 64) / 1e3),
        (vector, DeviceRates(gemv_bytes_per_s=1e3), 4 * 6 * 7 / 1e3),
        (gemm, DeviceRates(conv_macs_per_s=1e3), 3 * 50 * 20 / 1e3),
        (relu, DeviceRates(memory_bytes_per_s=1e3), 8 * 1000 / 1e3),
    ],
)
def test_the_slowest_part_counts(fill: Callable[[Net], None], device: DeviceRates, seconds: float) -> None:
    net = Net(opset=13)
    fill(net)
    net.output("y")
    assert compute_s(view(net.model()), device) == pytest.approx([seconds])
