"""8-bit operators, and float operators with 8-bit weights, keep every bit when they are split by output or channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.graph import view
from hyps.passes.planning.planner import plan
from hyps.passes.planning.request import Request
from hyps.passes.sharding.layouts import ConstantValues
from hyps.passes.sharding.split_layout import split_layout
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits
from tests.passes.splitting import assert_split_is_whole, kinds

SEEDED = settings(derandomize=True, deadline=None, max_examples=60)
TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


class Quantised:
    """A source of 8-bit constants and of scales: one for all, or one for each channel."""

    def __init__(self, data: st.DataObject, net: Net, channels: int) -> None:
        self._random = np.random.default_rng(data.draw(st.integers(0, 9)))
        self._net = net
        self._channels = channels
        self.per_channel = data.draw(st.booleans())
        self.dtype = data.draw(st.sampled_from([np.int8, np.uint8]))

    def input(self, *shape: int) -> NDArray[Any]:
        """Add an 8-bit input ``x``; return values for it."""
        self._net.input("x", *shape, data_type=TensorProto.UINT8)
        return self._random.integers(0, 256, shape).astype(np.uint8)

    def weight(self, *shape: int) -> str:
        """Return 8-bit weights."""
        low = 0 if self.dtype is np.uint8 else -128
        return self._net.constant("w", self._random.integers(low, low + 256, shape), self.dtype)

    def scale(self) -> str:
        """Return the weight's scales."""
        size = (self._channels,) if self.per_channel else ()
        return self._net.constant("w.scale", self._random.uniform(0.001, 0.01, size), np.float32)

    def zero(self, *, varies: bool = True) -> str:
        """Return the weight's zero points; onnxruntime requires them to be equal for a convolution."""
        shape = (self._channels,) if self.per_channel else ()
        low = 0 if self.dtype is np.uint8 else -20
        values = self._random.integers(low, low + 40, shape) if varies else np.full(shape, 3)
        return self._net.constant("w.zero", values, self.dtype)

    def rest(self) -> tuple[str, str, str, str]:
        """Return the scale and zero point of the input, then those of the result."""
        return (
            self._net.constant("x.scale", 0.02, np.float32),
            self._net.constant("x.zero", 120, np.uint8),
            self._net.constant("y.scale", 0.5, np.float32),
            self._net.constant("y.zero", 100, np.uint8),
        )


@SEEDED
@given(st.data(), st.sampled_from([1, 1, 4, 16]), st.integers(2, 4), st.integers(1, 3))
def test_qlinear_conv(data: st.DataObject, groups: int, count: int, threads: int) -> None:
    net, inputs, outputs = Net(), 16, 64
    coded = Quantised(data, net, outputs)
    x = coded.input(1, inputs, 9, 8)
    weight = coded.weight(outputs, inputs // groups, 3, 3)
    scale, zero, result_scale, result_zero = coded.rest()
    bias = [net.constant("b", np.arange(outputs), np.int32)] if data.draw(st.booleans()) else []
    operands = ["x", scale, zero, weight, coded.scale(), coded.zero(varies=False), result_scale, result_zero, *bias]
    net.node("QLinearConv", *operands, to="y", group=groups, pads=[1, 1, 0, 1])
    net.output("y", data_type=TensorProto.UINT8)
    after = assert_split_is_whole(net, "output", "y", count, threads=threads, feeds={"x": x})
    assert (kinds(after).count("QLinearConv"), kinds(after).count("Slice")) == (count, count if groups > 1 else 0)


@SEEDED
@given(st.data(), st.integers(2, 4), st.integers(1, 3))
def test_qlinear_matmul(data: st.DataObject, count: int, threads: int) -> None:
    net, depth, columns = Net(), 40, 48
    coded = Quantised(data, net, columns)
    x = coded.input(3, depth)
    weight, (scale, zero, result_scale, result_zero) = coded.weight(depth, columns), coded.rest()
    net.node("QLinearMatMul", "x", scale, zero, weight, coded.scale(), coded.zero(), result_scale, result_zero, to="y")
    net.output("y", data_type=TensorProto.UINT8)
    assert_split_is_whole(net, "output", "y", count, threads=threads, feeds={"x": x})


@SEEDED
@given(st.data(), st.integers(2, 4), st.integers(1, 3))
def test_matmul_integer(data: st.DataObject, count: int, threads: int) -> None:
    net, depth, columns = Net(), 40, 48
    coded = Quantised(data, net, columns)
    x = coded.input(2, 3, depth)
    zeros = [coded.rest()[1], coded.zero()][: data.draw(st.integers(0, 2))]
    net.node("MatMulInteger", "x", coded.weight(depth, columns), *zeros, to="y")
    net.output("y", data_type=TensorProto.INT32)
    assert_split_is_whole(net, "output", "y", count, threads=threads, feeds={"x": x})


@SEEDED
@given(st.data(), st.sampled_from([1, 4]), st.integers(2, 4), st.integers(1, 3))
def test_conv_integer(data: st.DataObject, groups: int, count: int, threads: int) -> None:
    net, inputs, outputs = Net(), 8, 32
    coded = Quantised(data, net, outputs)
    coded.dtype, coded.per_channel = np.uint8, False  # the only form that onnxruntime computes
    x = coded.input(1, inputs, 7, 7)
    zeros = [coded.rest()[1], coded.zero()][: data.draw(st.integers(0, 2))]
    net.node("ConvInteger", "x", coded.weight(outputs, inputs // groups, 3, 3), *zeros, to="y", group=groups, pads=[1] * 4)
    net.output("y", data_type=TensorProto.INT32)
    assert_split_is_whole(net, "output", "y", count, threads=threads, feeds={"x": x})


def dequantised(data: st.DataObject, kind: str, quantise: bool) -> tuple[Net, NDArray[Any]]:
    """Return a net of one float operator with an 8-bit weight, as exporters write it, and values for its input.

    With ``quantise`` its input, bias and result are 8-bit, too.
    """
    net, outputs = Net(), 48
    coded = Quantised(data, net, outputs)
    coded.dtype = np.int8
    conv, transposed = kind == "Conv", kind == "Gemm" and data.draw(st.booleans())
    shape = (outputs, 16, 3, 3) if conv else (outputs, 40) if transposed else (40, outputs)
    axis = 0 if conv or transposed else 1
    x_shape = (1, 16, 9, 9) if conv else (3, 40)
    scale, zero, result_scale, result_zero = coded.rest()
    zeros = [net.constant("w.zero", np.zeros((outputs,) if coded.per_channel else ()), np.int8)]
    weight = net.node("DequantizeLinear", coded.weight(*shape), coded.scale(), *zeros, to="wf", axis=axis)
    if quantise:
        x = coded.input(*x_shape)
        source = net.node("DequantizeLinear", "x", scale, zero, to="xf")
    else:
        net.input("x", *x_shape)
        x = np.random.default_rng(0).standard_normal(x_shape).astype(np.float32)
        source = "x"
    bias = []
    if kind != "MatMul" and data.draw(st.booleans()):
        scales = np.full((outputs,) if coded.per_channel else (), 0.0001)
        stored = [net.constant("b", np.arange(outputs), np.int32), net.constant("b.scale", scales, np.float32)]
        bias = [net.node("DequantizeLinear", *stored, to="bf", axis=0)]
    attributes: dict[str, Any] = {"transB": 1} if transposed else {}
    value = net.node(kind, source, weight, *bias, to="y", **attributes)
    if data.draw(st.booleans()):
        value = net.node("Relu", value, to="r")
    if quantise:
        value = net.node("QuantizeLinear", value, result_scale, result_zero, to="q")
    net.output(value, data_type=TensorProto.UINT8 if quantise else TensorProto.FLOAT)
    return net, x


@pytest.mark.parametrize("kind", ["Conv", "Gemm", "MatMul"])
@pytest.mark.parametrize("quantise", [True, False], ids=["8-bit", "weights alone"])
def test_dequantised_weight(kind: str, quantise: bool) -> None:
    """Every shard has its own DequantizeLinear, which onnxruntime fuses with it, as in the whole model."""

    @SEEDED
    @given(st.data(), st.integers(2, 4), st.integers(1, 3))
    def check(data: st.DataObject, count: int, threads: int) -> None:
        net, x = dequantised(data, kind, quantise)
        after = assert_split_is_whole(net, "output", "y", count, threads=threads, feeds={"x": x})
        assert kinds(after).count(kind) == count
        assert kinds(after).count("QuantizeLinear") == (count if quantise else 0)
        assert kinds(after)[-1] == "Concat"

    check()


def test_dequantised_weight_that_exceeds_the_budget(tmp_path: Path) -> None:
    """There are two of them; the plan's partitions, shard after shard, compute what the whole model does."""
    net = Net()
    random = np.random.default_rng(0)
    net.input("x", 1, 64, 12, 12)
    value = "x"
    for name in ("a", "b"):
        scales = [net.constant(f"{name}.s", 0.03, np.float32), net.constant(f"{name}.z", 0, np.int8)]
        values = random.integers(-128, 128, (512, 64 if name == "a" else 512, 3, 3))
        per_channel = net.constant(f"{name}.w.s", random.uniform(0.001, 0.002, 512), np.float32)
        source = net.node(
            "DequantizeLinear", net.node("QuantizeLinear", value, *scales, to=f"{name}.q"), *scales, to=f"{name}.d"
        )
        weight = net.node(
            "DequantizeLinear", net.constant(f"{name}.w", values, np.int8), per_channel, to=f"{name}.wf", axis=0
        )
        value = net.node("Relu", net.node("Conv", source, weight, to=f"{name}.c", pads=[1] * 4), to=f"{name}.r")
    last = [net.constant("y.s", 0.05, np.float32), net.constant("y.z", 0, np.int8)]
    net.node("DequantizeLinear", net.node("QuantizeLinear", value, *last, to="q"), *last, to="y")
    net.output("y")
    model = net.model(tmp_path)
    whole = plan(model, Request())
    assert whole.plan.smallest_budget_bytes < whole.plan.whole_peak_bytes - 15_000_000
    planned = plan(model, Request(budget_bytes=whole.plan.smallest_budget_bytes + 1_000_000))
    assert [change.what for change in planned.plan.changes][-1].startswith("split by channel into ")
    assert planned.plan.exact
    feeds = random_feeds(model)
    found = run_partitions(planned.model, planned.plan.partitions, feeds, tmp_path)
    assert same_bits(found, run(model, feeds, tmp_path))


def test_packed_weight_is_refused() -> None:
    net = Net(opset=21)
    net.input("x", 3, 64)
    net.node("DequantizeLinear", net.constant("w", np.ones((64, 32)), ml_dtypes.int4), net.weight("s", 1), to="wf")
    net.node("MatMul", "x", "wf", to="y")
    net.output("y")
    model = net.model()
    with pytest.raises(UnsupportedModel, match="'y' cannot be split by output: its weight is packed"):
        split_layout(model.proto.graph.node[-1], "output", ConstantValues.of(view(model)))
