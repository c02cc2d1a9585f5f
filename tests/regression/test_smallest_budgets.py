"""Small networks of the kinds that once took more than their plans: at six budgets, and with much room.

They are few and small, so that ``make budgets`` can run them with several versions of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.passes.nets import Net
from tests.regression.budgets import compiled, inputs, measured_bytes, peaks

pytestmark = pytest.mark.regression

#: More than the whole network needs, so that glibc uses huge pages.
ROOM_BYTES = 200_000_000


def wide_product() -> Net:
    """The last layers of a recogniser, 18,385 classes at 40 positions: hundreds of shards where the budget is small."""
    net = Net()
    net.input("x", 1, 40, 120)
    net.node("MatMul", "x", net.weight("w", 120, 18_385), to="m")
    net.node("Add", "m", net.weight("b", 18_385), to="a")
    net.node("Softmax", "a", to="y", axis=2)
    return net


def wide_gemm() -> Net:
    """A classifier of 40,000 classes over 16 positions."""
    net = Net()
    net.input("x", 16, 256)
    net.node("Gemm", "x", net.weight("w", 256, 40_000), net.weight("b", 40_000), to="g")
    net.node("Relu", "g", to="y")
    return net


def encoder(layers: int = 3, width: int = 256, heads: int = 4, positions: int = 64) -> Net:
    """A transformer: many operators with many small weights, and products that onnxruntime fuses with their Add."""
    net = Net()
    net.input("ids", 1, positions, data_type=TensorProto.INT64)
    x = net.node("Gather", net.weight("table", 2000, width), "ids", to="embedded")
    split = net.constant("split", [1, positions, heads, width // heads], np.int64)
    joined = net.constant("joined", [1, positions, width], np.int64)
    scale = net.constant("scale", (width / heads) ** 0.5, np.float32)

    def dense(name: str, source: str, columns: int, rows: int = width) -> str:
        net.node("MatMul", source, net.weight(f"{name}.w", rows, columns), to=f"{name}.product")
        return net.node("Add", f"{name}.product", net.weight(f"{name}.b", columns), to=name)

    def normalised(name: str, source: str) -> str:
        ones = net.constant(f"{name}.scale", np.ones(width, np.float32))
        return net.node("LayerNormalization", source, ones, net.weight(f"{name}.shift", width), to=name)

    for layer in range(layers):
        parts = {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            rows = net.node("Reshape", dense(f"{part}{layer}", x, width), split, to=f"{part}{layer}.rows")
            parts[part] = net.node("Transpose", rows, to=f"{part}{layer}.heads", perm=order)
        scores = net.node("MatMul", parts["query"], parts["key"], to=f"scores{layer}")
        weights = net.node("Softmax", net.node("Div", scores, scale, to=f"scaled{layer}"), to=f"weights{layer}")
        mixed = net.node("MatMul", weights, parts["value"], to=f"mixed{layer}")
        back = net.node("Transpose", mixed, to=f"back{layer}", perm=[0, 2, 1, 3])
        attended = net.node("Reshape", back, joined, to=f"attended{layer}")
        x = normalised(f"first{layer}", net.node("Add", attended, x, to=f"added{layer}"))
        hidden = net.node("Relu", dense(f"hidden{layer}", x, 2 * width), to=f"relu{layer}")
        narrow = dense(f"narrow{layer}", hidden, width, rows=2 * width)
        x = normalised(f"second{layer}", net.node("Add", narrow, x, to=f"sum{layer}"))
    net.node("Identity", x, to="y")
    return net


def deep(layers: int = 200, width: int = 128) -> Net:
    """Many small layers: one session for all of them, or a step for each."""
    net = Net()
    x = net.input("x", 1, width)
    for layer in range(layers):
        net.node("Gemm", x, net.weight(f"w{layer}", width, width), net.weight(f"b{layer}", width), to=f"g{layer}")
        x = net.node("Relu", f"g{layer}", to=f"r{layer}" if layer + 1 < layers else "y")
    return net


def dense_blocks(layers: int = 40, growth: int = 12) -> Net:
    """Convolutions that each read all results before them: many tensors cross every cut."""
    net = Net()
    x, channels = net.input("x", 1, 16, 28, 28), 16
    for layer in range(layers):
        net.conv(x, f"c{layer}", (growth, channels, 3, 3), pads=[1] * 4)
        net.node("Relu", f"c{layer}", to=f"r{layer}")
        x = net.node("Concat", x, f"r{layer}", to=f"x{layer}" if layer + 1 < layers else "y", axis=1)
        channels += growth
    return net


def many_outputs(count: int = 60) -> Net:
    """A product with a weight and an output of its own, many times."""
    net = Net()
    net.input("x", 8, 256)
    for number in range(count):
        weight, bias = net.weight(f"w{number}", 256, 500), net.weight(f"b{number}", 500)
        net.node("Gemm", "x", weight, bias, to=f"y{number}")
    return net


KINDS: Mapping[str, Callable[[], Net]] = {
    kind.__name__: kind for kind in (wide_product, wide_gemm, encoder, deep, dense_blocks, many_outputs)
}


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    net = KINDS[request.param]()
    outputs = [f"y{number}" for number in range(60)] if request.param == "many_outputs" else ["y"]
    net.output(*outputs)
    path = tmp_path / "model.onnx"
    onnx.save(net.model().proto, path)
    return path


@pytest.mark.parametrize("model", KINDS, indirect=True)
def test_six_budgets(model: Path, tmp_path: Path) -> None:
    found = list(peaks(model, tmp_path))
    assert found
    assert all(each.measured_bytes <= each.predicted_bytes <= each.budget_bytes for each in found), found


@pytest.mark.parametrize("split", ["auto", "layers"])
@pytest.mark.parametrize("model", KINDS, indirect=True)
def test_much_room(model: Path, split: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    summary = compiled(model, bundle, ROOM_BYTES, "--split", split)
    assert summary is not None
    assert measured_bytes(bundle, inputs(bundle, tmp_path, 2)) <= summary["peak_bytes"]
