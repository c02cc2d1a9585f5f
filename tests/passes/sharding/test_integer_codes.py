"""8-bit operators with a code: lost shards are decoded without any error, and without losses every bit is the whole's."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hyps.passes.errors import UnsupportedModel
from hyps.passes.sharding.coded import check_code, coded_count, is_codable, keeps_bound
from hyps.passes.sharding.integer_codes import integer_code
from hyps.passes.weights import byte_plane
from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.codes.decoding import decode
from hyps.runtime.errors import InputError
from tests.passes.nets import Net, run, same_bits
from tests.passes.sharding.coded import CodedRun, output_option, run_coded
from tests.passes.splitting import kinds
from tests.saturation import without_saturation

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)
KINDS = ["ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "Conv", "MatMul"]
Feeds = dict[str, NDArray[Any]]


def numbers(random: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return numbers of an 8-bit type; the extremes are frequent."""
    limits = np.iinfo(dtype)
    drawn = random.integers(limits.min, limits.max + 1, shape)
    return np.where(random.random(shape) < 0.2, random.choice([limits.min, limits.max], shape), drawn).astype(dtype)


def integer_net(draw: st.DataObject, kind: str) -> tuple[Net, Feeds]:
    """Return an 8-bit operator ``y`` with drawn types, zero points, scales and attributes, and values for its input.

    A Conv or MatMul is between DequantizeLinear and QuantizeLinear, and onnxruntime computes it in 8 bits.
    """
    random, net = np.random.default_rng(draw.draw(st.integers(0, 999), "seed")), Net()
    source, weight = draw.draw(st.sampled_from([(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]), "types")
    channels, convolves = draw.draw(st.sampled_from([16, 24, 40]), "channels"), "Conv" in kind
    groups = draw.draw(st.sampled_from([1, 1, 2, 4]), "groups") if convolves else 1
    dimensions = draw.draw(st.integers(1, 3), "dimensions") if convolves else 0
    x_shape = (2, 8, *[7] * dimensions) if convolves else draw.draw(st.sampled_from([(1, 30), (5, 30), (2, 3, 30)]), "x")
    w_shape = (channels, 8 // groups, *[3] * dimensions) if convolves else (30, channels)
    net.input("x", *x_shape, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(source)))
    w = net.constant("w", without_saturation(numbers(random, weight, w_shape)))
    attributes: dict[str, Any] = {}
    if convolves:
        attributes = {"group": groups, "pads": [draw.draw(st.integers(0, 2), "pad")] * 2 * dimensions}
        attributes["strides"] = [draw.draw(st.integers(1, 2), "stride")] * dimensions
        attributes["dilations"] = [draw.draw(st.integers(1, 2), "dilation")] * dimensions
    x_zero = net.constant("x.zero", numbers(random, source, ()))
    zero = random.integers(100)
    if kind.endswith("Integer"):
        zeros = [x_zero, net.constant("w.zero", zero, weight)][: draw.draw(st.integers(0, 2), "zeros")]
        net.node(kind, "x", w, *zeros, to="y", **attributes)
        net.output("y", data_type=TensorProto.INT32)
        return net, {"x": numbers(random, source, x_shape)}
    vector = (channels,) if draw.draw(st.booleans(), "a scale for each channel") else ()
    x_scale, w_scale = (
        np.float32(random.choice([2.0**-5, 0.021])),
        np.asarray(random.uniform(1e-3, 1e-2, vector), np.float32),
    )
    given_x = ["x", net.constant("x.scale", x_scale), x_zero]
    given_w = [w, net.constant("w.scale", w_scale), net.constant("w.zero", np.full(vector, zero), weight)]
    given_y = [net.constant("y.scale", random.choice([0.5, 0.25, 1.7]), np.float32)]
    given_y += [net.constant("y.zero", numbers(random, source, ()))]
    biases = [net.constant("b", random.integers(-9999, 9999, channels), np.int32)] * (convolves and draw.draw(st.booleans()))
    if kind.startswith("QLinear"):
        net.node(kind, *given_x, *given_w, *given_y, *biases, to="y", **attributes)
    else:
        operands = [net.node("DequantizeLinear", *given_x, to="xf")]
        operands += [net.node("DequantizeLinear", *given_w, to="wf", axis=0 if convolves else 1)]
        scale = net.constant("b.scale", x_scale * w_scale)
        operands += [net.node("DequantizeLinear", bias, scale, to="bf", axis=0) for bias in biases]
        net.node("QuantizeLinear", net.node(kind, *operands, to="c", name="y", **attributes), *given_y, to="y", name="q")
    net.output("y", data_type=helper.np_dtype_to_tensor_dtype(np.dtype(source)))
    return net, {"x": numbers(random, source, x_shape)}


def wrong_patterns(made: CodedRun, rows: Any) -> int:
    """Return in how many patterns of losses the cluster's decoder does not return every bit of the lost shards."""
    answers = [*made.shards, *made.parity]
    code = CodeRecord(
        name="y",
        shards=tuple(f"s{index}" for index in range(len(made.shards))),
        parity=tuple(f"p{index}" for index in range(len(made.parity))),
        coefficients=tuple(map(tuple, rows)),
        amplification=made.code.amplification,
        error_bound=0.0,
    )
    record, wrong = TensorRecord(dtype="int32", shape=answers[0].shape), 0
    for present in itertools.combinations(range(len(answers)), len(made.shards)):
        missing = [number for number in range(len(made.shards)) if number not in present]
        try:
            found = decode(code, record, {number: answers[number].tobytes() for number in present}, missing)
        except InputError:  # wrong coefficients may have a part without an inverse
            wrong += 1
            continue
        wrong += any(found[number] != answers[number].tobytes() for number in missing)
    return wrong


@pytest.mark.parametrize("kind", KINDS)
def test_lost_shards_are_decoded_bit_for_bit(kind: str) -> None:
    """With random shards, parity shards, types and attributes, of small and of referenced weights."""

    @SEEDED
    @given(st.data(), st.sampled_from([64, 1 << 30]))
    def check(data: st.DataObject, reference: int) -> None:
        net, feeds = integer_net(data, kind)
        parity = data.draw(st.integers(1, 4), "parity")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            model = net.model(folder, reference=reference)
            option = output_option(model, "y")
            assume(is_codable(option, parity))
            counts = [count for count in range(2, 9) if keeps_bound(option, count, parity)]
            made = run_coded(model, "y", data.draw(st.sampled_from(counts), "shards"), parity, folder, feeds=feeds)
            assert same_bits(made.outputs, run(model, feeds, folder))
            assert not {"Conv", "MatMul", "QLinearConv", "QLinearMatMul"} & {*kinds(made.model)}
        assert {shard.dtype.name for shard in (*made.shards, *made.parity)} == {"int32"}
        assert wrong_patterns(made, made.code.coefficients) == 0

    check()


@pytest.mark.parametrize("parity", [1, 3])
@pytest.mark.parametrize("change", [lambda number: -number, lambda number: number + 1], ids=["sign", "one more"])
def test_every_wrong_coefficient_changes_what_is_decoded(change: Any, parity: int, tmp_path: Path) -> None:
    made = run_coded(_product(np.int8).model(tmp_path), "y", 4, parity, tmp_path)
    assert wrong_patterns(made, made.code.coefficients) == 0
    for row, column in itertools.product(range(parity), range(4)):
        wrong = np.array(made.code.coefficients)
        wrong[row, column] = change(wrong[row, column])
        assert wrong_patterns(made, wrong.tolist()) > 0, (row, column)


@pytest.mark.parametrize(("shards", "parity"), [(8, 1), (8, 2), (8, 3), (5, 4)])
def test_any_shards_may_be_lost(shards: int, parity: int) -> None:
    """Every square part of the coefficients has an inverse."""
    code = integer_code(shards, parity)
    assert np.isfinite(code.amplification)
    assert code.error_bound == 0
    assert {number for row in code.coefficients for number in row if number != int(number)} == set()


def test_planes_make_up_every_number() -> None:
    values = np.arange(-32_896, 32_640)
    high, low = (byte_plane(values, plane).astype(int) for plane in ("high", "low"))
    assert (256 * (high - 128) + low - 128 == values).all()
    assert (byte_plane(np.arange(-128, 128), "low") == np.arange(256)).all()


def _product(dtype: Any, depth: int = 64, columns: int = 32, zero: Any = 0) -> Net:
    net = Net()
    net.input("x", 3, depth, data_type=TensorProto.UINT8)
    w = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (depth, columns))
    zeros = [net.constant("x.zero", 128, np.uint8), net.constant("w.zero", zero, dtype)]
    net.node("MatMulInteger", "x", net.constant("w", w, dtype), *zeros, to="y")
    net.output("y", data_type=TensorProto.INT32)
    return net


def refusal(net: Net, parity: int = 1) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        check_code(output_option(net.model(), "y"), parity)
    return str(caught.value)


def test_sums_of_more_than_32_bits_are_refused() -> None:
    """Two shards of int8 weights: 128 x (2 x 128 + 128) x products are 2^31 for 43,690 products and a bias."""
    told = "its sums might be up to 2,147,549,184, and 32 bits hold 2,147,483,647; run it on two boards"
    assert told in refusal(_product(np.int8, 43_691, 16))
    check_code(output_option(_product(np.int8, 43_689, 16).model(), "y"), 1)


def test_more_shards_are_refused_where_their_sum_would_be_too_large() -> None:
    option = output_option(_product(np.int8, 20_000, 32).model(), "y")
    assert [count for count in (2, 4, 8) if keeps_bound(option, count, 1)] == [2, 4]
    assert coded_count(option, 8, 1) is None


def test_weights_of_more_than_16_bits_are_refused() -> None:
    option = output_option(_product(np.uint8, 8, 256).model(), "y")
    assert [count for count in (64, 128, 256) if keeps_bound(option, count, 1)] == [64]


def test_zero_points_that_differ_are_refused() -> None:
    assert "its weight's zero point differs from channel to channel" in refusal(_product(np.uint8, zero=np.arange(32)))


def test_computed_scales_are_refused() -> None:
    net = Net()
    net.input("x", 3, 32, data_type=TensorProto.UINT8)
    net.input("s")
    one, zero = net.constant("one", 1, np.float32), net.constant("zero", 0, np.uint8)
    w = net.constant("w", np.ones((32, 32)), np.uint8)
    net.node("QLinearMatMul", "x", "s", zero, w, one, zero, one, zero, to="y")
    net.output("y", data_type=TensorProto.UINT8)
    assert refusal(net).startswith("QLinearMatMul 'y' can have no code: its input's scale is computed; run it on two")
