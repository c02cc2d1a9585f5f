"""Row tiles against the whole model in onnxruntime, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import view
from hyps.passes.rewrite import run_rewrites
from hyps.passes.shapes import infer_shapes
from hyps.passes.tiling.rewrite import TileRegion, TileRegions
from hyps.passes.tiling.tileable import tiling_rules
from hyps.passes.tiling.tiles import tiles_of
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, same_bits


def tiled(model: Model, count: int, *, threads: int = 1) -> Model:
    """Return the model with all operators but the last in ``count`` tiles."""
    names = tuple(operator.name for operator in view(model).operators[:-1])
    region = TileRegion(operators=names, tiles=count, reason="asked for")
    return run_rewrites(model, [TileRegions(regions=(region,), threads=threads)]).model


def can_be_tiled(model: Model, count: int, *, threads: int = 1) -> bool:
    graph = view(model)
    return tiles_of(graph, tiling_rules(model, graph, threads)["rows"], graph.operators[:-1], count) is not None


def finish(net: Net, value: str) -> Model:
    """End a net with an operator that is no part of the region."""
    net.node("Transpose", value, to="y", perm=[0, 1, 3, 2])
    net.output("y")
    return net.model()


def assert_same(model: Model, count: int, folder: Path, *, threads: int = 1) -> Model:
    feeds = random_feeds(model)
    try:
        whole = run(model, feeds, folder, threads=threads)
    except InvalidArgument:  # a window is one larger than its input: onnx infers one position too many
        reject()
    changed = tiled(model, count, threads=threads)
    assert same_bits(run(changed, feeds, folder, threads=threads), whole)
    return changed


class _Drawn:
    """A region of operators, drawn one by one."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.net = Net(opset=draw(st.sampled_from([13, 17, 18])), seed=draw(st.integers(0, 9)))
        self.channels = draw(st.sampled_from([1, 4, 16, 32]))
        self.count = 0
        self.value = self.net.input("x", 1, self.channels, draw(st.integers(20, 50)), draw(st.integers(6, 40)))

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def conv(self, value: str, *, same: bool = False) -> str:
        draw = self.draw
        kernel = draw(st.sampled_from([1, 3, 5] if same else [1, 2, 3, 5]))
        dilation = draw(st.sampled_from([1, 1, 2]))
        filters = self.channels if same else draw(st.sampled_from([1, 8, 16, 40]))
        groups = self.channels if same and draw(st.booleans()) else 1
        attributes: dict[str, Any] = {}
        if same:
            attributes = {"pads": [dilation * (kernel // 2)] * 4, "dilations": [dilation] * 2}
        elif draw(st.booleans()):
            attributes = {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))}
        else:
            attributes = {"pads": draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)), "dilations": [dilation] * 2}
        if not same:
            attributes["strides"] = draw(st.sampled_from([[1, 1], [2, 2], [1, 2], [3, 1]]))
        shape = (filters, self.channels // groups, kernel, kernel)
        self.channels = filters
        return self.net.conv(value, self.name(), shape, bias=draw(st.booleans()), group=groups, **attributes)

    def pool(self, value: str) -> str:
        kernel = [self.draw(st.integers(1, 4)), self.draw(st.integers(1, 4))]
        pads = [self.draw(st.integers(0, taps - 1)) for taps in (*kernel, *kernel)]
        kind = self.draw(st.sampled_from(["MaxPool", "AveragePool"]))
        counted: dict[str, Any] = {"count_include_pad": self.draw(st.integers(0, 1))} if kind == "AveragePool" else {}
        return self.net.node(
            kind,
            value,
            to=self.name(),
            kernel_shape=kernel,
            pads=pads,
            strides=self.draw(st.sampled_from([[1, 1], [2, 2], [2, 1], [3, 3]])),
            ceil_mode=self.draw(st.integers(0, 1)),
            **counted,
        )

    def pointwise(self, value: str) -> str:
        net, to = self.net, self.name()
        kind = self.draw(
            st.sampled_from(["Relu", "LeakyRelu", "Clip", "SiLU", "Tanh", "Mul", "Add", "Norm", "PRelu", "Pad"])
        )
        if kind == "SiLU":
            return net.node("Mul", value, net.node("Sigmoid", value, to=f"{to}.s"), to=to)
        if kind == "Clip":
            low, high = net.constant(f"{to}.low", -0.5, np.float32), net.constant(f"{to}.high", 0.8, np.float32)
            return net.node("Clip", value, low, high, to=to)
        if kind == "Norm":
            return net.norm(value, to, self.channels)
        if kind == "Pad":
            amounts = net.constant(f"{to}.pads", [0, 0, 1, 2, 0, 0, 2, 0], np.int64)
            return self.conv(net.node("Pad", value, amounts, to=to))  # onnxruntime fuses the two
        if kind in {"Mul", "Add", "PRelu"}:
            return net.node(kind, value, net.weight(f"{to}.k", self.channels, 1, 1), to=to)
        return net.node(kind, value, to=to)

    def branch(self, value: str) -> str:
        side = self.conv(value, same=True)
        for _ in range(self.draw(st.integers(0, 2))):
            side = self.conv(self.net.node("Relu", side, to=self.name()), same=True)
        if self.draw(st.booleans()):
            return self.net.node("Add", *self.draw(st.permutations([side, value])), to=self.name())
        self.channels *= 2
        return self.net.node("Concat", side, value, to=self.name(), axis=1)


@st.composite
def regions(draw: st.DrawFn) -> Model:
    """Draw a model of tileable operators, with branches that join, and one operator after them."""
    drawn = _Drawn(draw)
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from([drawn.conv, drawn.conv, drawn.pool, drawn.pointwise, drawn.pointwise, drawn.branch]))
        drawn.value = step(drawn.value)
    try:
        return finish(drawn.net, drawn.value)
    except UnsupportedModel:  # a window is larger than its input
        reject()


@settings(max_examples=150, deadline=None)
@given(regions(), st.integers(2, 6), st.sampled_from([1, 2, 4]))
def test_any_region_keeps_every_bit(model: Model, count: int, threads: int) -> None:
    assume(all(min(tensor.shape) > 0 for tensor in view(model).tensors.values()))
    assume(can_be_tiled(model, count, threads=threads))
    with tempfile.TemporaryDirectory() as folder:
        changed = assert_same(model, count, Path(folder), threads=threads)
    kinds = [node.op_type for node in changed.proto.graph.node]
    assert kinds[-2:] == ["Concat", "Transpose"]
    assert len(kinds) >= count * (len(model.proto.graph.node) - 1)


def vgg_block(opset: int = 17) -> Model:
    net = Net(opset=opset)
    value = net.input("x", 1, 3, 32, 20)
    for index, channels in enumerate((3, 14)):  # sums of 126: any tile will do
        value = net.node("Relu", net.conv(value, f"c{index}", (14, channels, 3, 3), pads=[1] * 4), to=f"r{index}")
    return finish(net, net.node("MaxPool", value, to="p", kernel_shape=[2, 2], strides=[2, 2]))


@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize("opset", [7, 9, 13, 22])
def test_a_block(opset: int, count: int, tmp_path: Path) -> None:
    kinds = [node.op_type for node in assert_same(vgg_block(opset), count, tmp_path).proto.graph.node]
    assert kinds == ["Slice", "Conv", "Relu", "Conv", "Relu", "MaxPool"] * count + ["Concat", "Transpose"]


def test_weights_are_shared(tmp_path: Path) -> None:
    before, after = vgg_block(), tiled(vgg_block(), 4)
    own = {tensor.name for tensor in before.proto.graph.initializer}
    added = [tensor for tensor in after.proto.graph.initializer if tensor.name not in own]
    assert own <= {tensor.name for tensor in after.proto.graph.initializer}
    assert all(tensor.data_type == TensorProto.INT64 and list(tensor.dims) == [1] for tensor in added)


@pytest.mark.parametrize("moved", [-1, 1])
@pytest.mark.parametrize("tile", [2, 3, 4])
def test_a_halo_that_is_off_by_a_row_is_noticed(tile: int, moved: int, tmp_path: Path) -> None:
    model = vgg_block()
    changed = tiled(model, 4)
    feeds = random_feeds(model)
    for tensor in changed.proto.graph.initializer:
        if f"/tile{tile}of4" in tensor.name and tensor.name.endswith(("/start", "/stop")):
            value = numpy_helper.to_array(tensor) + moved
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    if tile == 4 and moved == 1:
        return  # Slice clamps: the tile has a row less and the model is refused
    assert not same_bits(run(changed, feeds, tmp_path), run(model, feeds, tmp_path))


def test_rows_that_only_some_tiles_pad(tmp_path: Path) -> None:
    net = Net()
    value = net.conv(net.input("x", 1, 4, 40, 24), "c", (8, 4, 5, 5), pads=[4, 1, 3, 2], strides=[2, 1])
    assert_same(finish(net, value), 8, tmp_path)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_padding_that_onnxruntime_fuses_with_a_pooling(kind: str, tmp_path: Path) -> None:
    net = Net()
    amounts = net.constant("amounts", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    value = net.node("Pad", net.input("x", 1, 4, 24, 24), amounts, to="p")
    assert_same(finish(net, net.node(kind, value, to="m", kernel_shape=[3, 3], strides=[2, 2])), 4, tmp_path)


def test_one_dimension_and_three(tmp_path: Path) -> None:
    net = Net()
    assert_same(finish_flat(net, net.conv(net.input("x", 1, 8, 200), "c", (16, 8, 5), pads=[2, 2])), 3, tmp_path)
    net = Net()
    value = net.conv(net.input("x", 1, 4, 12, 9, 9), "c", (8, 4, 3, 3, 3), pads=[1] * 6)
    value = net.node("MaxPool", value, to="p", kernel_shape=[2, 2, 2], strides=[2, 1, 2])
    assert_same(finish_flat(net, value), 3, tmp_path)


def test_two_regions_that_read_the_same_rows_of_one_tensor(tmp_path: Path) -> None:
    """Dense networks have such regions; each has its own slice."""
    net = Net()
    shared = net.conv(net.input("x", 1, 4, 32, 16), "s", (4, 4, 1, 1))
    for name in ("a", "b"):
        net.node("MaxPool", net.conv(shared, f"{name}c", (4, 4, 3, 3), pads=[1] * 4), to=name, kernel_shape=[2, 2])
    net.output("a", "b")
    model = net.model()
    regions = tuple(TileRegion(operators=(f"{name}c", name), tiles=2, reason="test") for name in ("a", "b"))
    run_rewrites(model, [TileRegions(regions=regions, threads=1)])


def finish_flat(net: Net, value: str) -> Model:
    net.node("Flatten", value, to="y")
    net.output("y")
    return net.model()


def test_an_input_that_is_broadcast_is_read_entirely(tmp_path: Path) -> None:
    net = Net()
    value = net.conv(net.input("x", 2, 8, 24, 16), "c", (8, 8, 3, 3), pads=[1] * 4)
    value = net.node("Mul", value, net.input("gate", 2, 8, 1, 1), to="m")
    changed = assert_same(finish(net, value), 3, tmp_path)
    read = [node.input[1] for node in changed.proto.graph.node if node.op_type == "Mul"]
    assert read == ["gate"] * 3


def assert_refused(
    *nodes: NodeProto, constants: dict[str, Any] | None = None, shape: tuple[int, ...] = (1, 4, 16, 16)
) -> None:
    """Check that none of these operators, which lead from x to y, is tileable."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in (constants or {}).items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "refused", inputs, outputs, tensors), opset_imports=[helper.make_opsetid("", 17)]
    )
    model = infer_shapes(Model(proto=proto, weights={}))
    rules = tiling_rules(model, view(model), 1)["rows"]
    assert not {node.name for node in nodes} & set(rules)


def test_what_is_left_out() -> None:
    def node(kind: str, *inputs: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, ["x", *inputs], ["y"], kind, **attributes)

    weight = {"w": np.zeros((4, 4, 3, 3), np.float32)}
    assert_refused(node("Softplus"))
    assert_refused(node("Elu"))
    assert_refused(node("LRN", size=3))
    assert_refused(node("GlobalAveragePool"))
    assert_refused(node("Conv", "w", auto_pad="SAME_UPPER", dilations=[2, 2]), constants=weight)
    assert_refused(node("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_LOWER", dilations=[2, 2]))
    assert_refused(node("Pad", "p", mode="reflect"), constants={"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])})
    assert_refused(node("Pad", "p"), constants={"p": np.array([0, 0, -1, 1, 0, 0, 1, 1])})
    assert_refused(node("Add", "k"), constants={"k": np.zeros((16, 16), np.float32)})
    assert_refused(node("Concat", "x", axis=2))
    assert_refused(node("Relu"), shape=(4, 16))
    many = {"w": np.zeros((4, 64, 3, 3), np.float32)}  # sums of 576, too few columns for one block size
    assert_refused(node("Conv", "w", pads=[1] * 4), constants=many, shape=(1, 64, 7, 7))


def test_a_sum_of_two_convolutions_is_left_out() -> None:
    net = Net()
    net.input("x", 1, 4, 16, 16)
    one, other = (net.conv("x", name, (4, 4, 1, 1)) for name in "ab")
    model = finish(net, net.node("Relu", net.node("Add", one, other, to="s"), to="r"))
    assert not tiling_rules(model, view(model), 1)["rows"].keys() & {"a", "b", "s", "r"}


def test_a_region_with_two_results_is_refused() -> None:
    net = Net()
    first = net.node("Relu", net.input("x", 1, 4, 16, 16), to="a")
    net.node("Neg", first, to="b")
    model = finish(net, net.node("Abs", first, to="c"))
    with pytest.raises(ValueError, match="cannot be computed in 2 tiles"):
        tiled(model, 2)
