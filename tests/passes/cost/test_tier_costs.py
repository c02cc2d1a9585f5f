"""The arena's region, what onnxruntime's copies of weights take, and the peak of a stock step."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from hyps.passes.cost.costs import Costs, costs
from hyps.passes.cost.footprint import footprints
from hyps.passes.cost.tiers import (
    REGION_BYTES,
    STOCK_OPENING_LESS_BYTES,
    STOCK_RUNNING_LESS_BYTES,
    arena_region_bytes,
    can_use_arena,
    fresh_pages_s,
    padded_bytes,
    stock_memory,
)
from hyps.passes.graph import Graph, Tensor, view
from tests.passes.nets import Net, drawn

PROCESS_BYTES = 50_000_000


def tensor(*shape: int, dtype: str = "float32") -> Tensor:
    count = 1
    for size in shape:
        count *= size
    return Tensor(name="w", dtype=dtype, shape=shape, nbytes=4 * count)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((100,), (100,), id="a vector is not copied"),
        pytest.param((64, 32, 3, 3), (64, 32, 3, 3), id="whole blocks"),
        pytest.param((20, 12, 3, 3), (32, 16, 3, 3), id="filters and channels are padded"),
        pytest.param((20, 3, 3, 3), (32, 3, 3, 3), id="few channels are not"),
        pytest.param((32, 1, 3, 3), (32, 1, 3, 3), id="one channel of a group is not"),
        pytest.param((100, 10), (112, 16), id="a product"),
        pytest.param((2, 100, 30), (2, 112, 32), id="a recurrent operator of two directions"),
    ],
)
def test_copies_are_padded(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert padded_bytes(tensor(*shape)) == tensor(*expected).nbytes


@pytest.mark.parametrize(
    ("activation_bytes", "expected"), [(0, REGION_BYTES), (10_000_000, 15_000_000 + REGION_BYTES), (2 * 10**9, None)]
)
def test_region(activation_bytes: int, expected: int | None) -> None:
    found = arena_region_bytes(activation_bytes)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert expected <= found < expected + 4096
        assert found % 4096 == 0
        assert found <= (arena_region_bytes(activation_bytes, steps=2) or 0)


def products() -> tuple[Graph, Costs]:
    """Two products of 4 MB of weights each."""
    net = Net()
    net.input("x", 1, 1024)
    net.node("Gemm", net.node("Gemm", "x", net.weight("a", 1024, 1024), to="g"), net.weight("b", 1024, 1024), to="y")
    net.output("y")
    graph = view(net.model())
    return graph, costs(graph, footprints(graph, 1), PROCESS_BYTES)


def test_stock_memory_is_that_of_the_copies_and_the_largest_original() -> None:
    graph, found = products()
    memory = stock_memory(graph, found, 20_000)
    assert memory is not None
    weights = 4 * 1024 * 1024
    opening, running = PROCESS_BYTES - STOCK_OPENING_LESS_BYTES, PROCESS_BYTES - STOCK_RUNNING_LESS_BYTES
    assert 3 * weights < memory.opening_bytes - opening < 3 * weights + 100_000
    assert 2 * weights < memory.running_bytes - running < 2 * weights + 100_000
    assert 2 * weights < memory.packed_bytes < 2 * weights + 10_000
    assert memory.alone_bytes(0) == memory.opening_bytes
    assert memory.alone_bytes(100 * weights) == memory.running_bytes + 100 * weights


def test_a_small_budget_gets_a_region_hardly_larger_than_what_the_activations_take() -> None:
    graph, found = products()
    memory = stock_memory(graph, found, 10_000_000, [("a", 12_000_000)])
    assert memory is not None
    assert 12_000_000 < memory.tight_region_bytes < 14_000_000 < memory.region_bytes


def test_a_table_of_rows_is_not_copied() -> None:
    net = Net()
    net.input("x", 1, data_type=TensorProto.INT64)
    net.node("Gather", net.weight("table", 1024, 1024), "x", to="y")
    net.output("y")
    graph = view(net.model())
    memory = stock_memory(graph, costs(graph, footprints(graph, 1), PROCESS_BYTES), 20_000)
    assert memory is not None
    assert memory.running_bytes - PROCESS_BYTES + STOCK_RUNNING_LESS_BYTES < 5_000_000


def test_shared_weights_stay_next_to_their_copies() -> None:
    net = Net()
    net.input("x", 1, 1024)
    weight = net.weight("a", 1024, 1024)
    net.node("Gemm", net.node("Gemm", "x", weight, to="g"), weight, to="y")
    net.output("y")
    graph = view(net.model())
    memory = stock_memory(graph, costs(graph, footprints(graph, 1), PROCESS_BYTES), 20_000)
    assert memory is not None
    running = PROCESS_BYTES - STOCK_RUNNING_LESS_BYTES
    assert 2 * 4 * 1024 * 1024 < memory.running_bytes - running < 2 * 4 * 1024 * 1024 + 100_000


def test_strings_are_not_onnxruntimes_own() -> None:
    text = drawn("a Identity x -> y", inputs="x", outputs="y")
    assert can_use_arena(text)
    strings = {name: Tensor(name=name, dtype="str", shape=(1,), nbytes=4) for name in text.tensors}
    other = Graph(operators=text.operators, tensors=strings, weights=text.weights, inputs=text.inputs, outputs=text.outputs)
    assert not can_use_arena(other)
    assert stock_memory(other, costs(other, footprints(other, 1)), 0) is None


def test_results_that_overwrite_their_input_take_no_fresh_pages() -> None:
    graph = drawn("c Conv x W -> a\nr Relu a -> y", inputs="x", outputs="y", sizes={"a": 10**6, "y": 10**6})
    found = costs(graph, footprints(graph, 1))
    assert fresh_pages_s(graph, found, [1], 1e9) == 0
    assert fresh_pages_s(graph, found, [0], 1e9) > 0
