"""A quantised model in codes, and one of 16-bit floats in 32, as stock onnxruntime computes them."""

from __future__ import annotations

import numpy as np
import pytest

from hyps.passes.cost.computed_types import coded_view, is_coded, widened_view
from hyps.passes.graph import Graph, view
from tests.passes.nets import Net


def quantised(*, ends_in_codes: bool = True, code: type[np.integer] = np.uint8, activation: str = "") -> Graph:
    """A convolution between codes, perhaps with an activation behind it, or one whose result stays floats."""
    net = Net()
    scale = net.constant("scale", np.float32(0.1))
    zero, kernel_zero = net.constant("zero", code(0)), net.constant("kernel_zero", np.int8(0))
    codes = net.node("QuantizeLinear", net.input("x", 1, 16, 32, 32), scale, zero, to="codes")
    source = net.node("DequantizeLinear", codes, scale, zero, to="source")
    weight = net.constant("w", np.ones((32, 16, 3, 3), np.int8))
    kernel = net.node("DequantizeLinear", weight, scale, kernel_zero, to="kernel")
    result = net.node("Conv", source, kernel, to="result")
    result = net.node(activation, result, to="activated") if activation else result
    net.node("QuantizeLinear", result, scale, zero, to="y") if ends_in_codes else net.node("Abs", result, to="y")
    net.output("y", data_type=1 if not ends_in_codes else 2 if code is np.uint8 else 3)
    return view(net.model())


@pytest.mark.parametrize("code", [np.uint8, np.int8])
def test_between_codes_there_are_no_floats(code: type[np.integer]) -> None:
    graph = quantised(code=code)
    assert is_coded(graph)
    found, prints = coded_view(graph, 1)
    assert [found.tensors[name].nbytes for name in ("source", "kernel", "result")] == [0, 0, 0]
    assert found.tensors["codes"].nbytes == 16 * 32 * 32
    (conv,) = (operator.name for operator in graph.operators if operator.op_type == "Conv")
    assert prints[conv].workspace_bytes > 4 * 32 * 30 * 30  # its sums
    assert all(each.copied_bytes == 0 for each in prints.values())


def test_a_result_in_floats_needs_weights_in_floats() -> None:
    graph = quantised(ends_in_codes=False)
    found, _ = coded_view(graph, 1)
    assert found.tensors == graph.tensors


def test_an_activation_may_stay_and_then_all_are_floats() -> None:
    """onnxruntime removes it for some zero points alone; a model whose Relu stayed took 105 MB of a budget of 90."""
    graph = quantised(activation="Relu")
    found, _ = coded_view(graph, 1)
    assert found.tensors == graph.tensors


def test_half_floats_count_twice() -> None:
    net = Net()
    net.node("Add", net.input("x", 4, data_type=10), net.constant("w", np.ones(4, np.float16)), to="y")
    net.output("y", data_type=10)
    graph = view(net.model())
    found = widened_view(graph)
    assert [found.tensors["y"].nbytes, found.weights["w"].nbytes] == [16, 16]
    assert not is_coded(graph)
