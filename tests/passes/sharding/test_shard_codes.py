"""Parity shards replace any lost shards within the stated bound, and a wrong coefficient is noticed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from hyps.passes.errors import UnsupportedModel
from hyps.passes.sharding.coded import check_code, coded_count, is_codable, keeps_bound
from hyps.passes.sharding.coefficients import LARGEST_ERROR, amplification, code_coefficients, decoding_rows
from tests.passes.convolutions import convolutions
from tests.passes.nets import Net, random_feeds, run, same_bits
from tests.passes.products import products
from tests.passes.sharding.coded import decoded, gemm, losses, output_option, run_coded, worst_error
from tests.passes.splitting import TOLERANCE, difference, max_shards

SEEDED = settings(derandomize=True, deadline=None, max_examples=30)


@pytest.mark.parametrize(
    ("shards", "parity", "figure"), [(4, 1, 4), (8, 1, 8), (4, 2, 6.0), (8, 2, 24), (4, 3, 9.7), (8, 3, 98), (3, 4, 20)]
)
def test_errors_grow_as_little_as_a_search_can_reach(shards: int, parity: int, figure: float) -> None:
    coefficients = np.array(code_coefficients(shards, parity))
    assert coefficients.shape == (parity, shards)
    assert amplification(coefficients) <= figure * 1.02


def test_the_search_is_seeded() -> None:
    found = code_coefficients(4, 2)
    code_coefficients.cache_clear()
    assert code_coefficients(4, 2) == found


def test_amplification_is_the_worst_over_all_losses() -> None:
    """Of a Vandermonde code of 4 + 2, the loss of the last two shards: 4 x (1 + 1 + 1 + 1) + 1 x (1 + 2 + 3 + 4)."""
    assert amplification(np.array([[1.0, 1, 1, 1], [1, 2, 3, 4]])) == pytest.approx(26)
    assert amplification(np.array([[1.0, 1, 1], [1, 1, 2]])) == float("inf")


def test_decoding_rows_solve_every_pattern() -> None:
    coefficients = np.array(code_coefficients(5, 3))
    values = np.random.default_rng(0).standard_normal((5, 7))
    parity = coefficients @ values
    rows = iter(decoding_rows(coefficients))
    for lost in range(1, 4):
        patterns = [(gone, used) for gone, used in losses(5, 3) if len(gone) == lost]
        for gone, used in sorted(patterns, key=lambda each: (each[1], each[0])):
            kept = [index for index in range(5) if index not in gone]
            right = parity - coefficients[:, kept] @ values[kept]
            for index in gone:
                assert np.allclose(next(rows) @ right, values[index]), (gone, used)


def assert_decodes(net: Net, name: str, data: st.DataObject, reference: int = 512) -> None:
    """Any lost shards are decoded within the bound, and without losses the result is the whole model's."""
    parity = data.draw(st.integers(1, 4), "parity")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = net.model(folder, reference=reference)
        assume(max_shards(model, name, "output") > 1)
        option = output_option(model, name)
        assume(is_codable(option, parity))
        counts = [count for count in range(2, 7) if keeps_bound(option, count, parity)]
        assume(counts)
        made = run_coded(model, name, data.draw(st.sampled_from(counts), "shards"), parity, folder)
        whole = run(model, random_feeds(model), folder)
    assert len({shard.shape for shard in (*made.shards, *made.parity)}) == 1
    assert difference(made.outputs, whole) <= TOLERANCE
    assert worst_error(made) <= made.code.error_bound


@settings(SEEDED, max_examples=15)  # each takes a second
@given(products(), st.data(), st.sampled_from([512, 1 << 30]))
def test_any_product_is_decoded(net: Net, data: st.DataObject, reference: int) -> None:
    assert_decodes(net, "p", data, reference)


@SEEDED
@given(convolutions(groups=(1, 1, 2, 5, 12)), st.data())
def test_any_convolution_is_decoded(net: Net, data: st.DataObject) -> None:
    assert_decodes(net, "c", data)


@SEEDED
@given(convolutions(kind="ConvTranspose", groups=(1, 1, 2, 5)), st.data())
def test_any_transposed_convolution_is_decoded(net: Net, data: st.DataObject) -> None:
    assert_decodes(net, "c", data)


def test_shards_without_losses_keep_every_bit(tmp_path: Path) -> None:
    """Bias and all: shards end before the activation, not before the bias, and are as wide as a multiple of eight."""
    model = gemm(1, 300, 96).model(tmp_path, reference=512)
    made = run_coded(model, "g", 4, 2, tmp_path)
    assert same_bits(made.outputs, run(model, random_feeds(model), tmp_path))
    kinds = [node.op_type for node in made.model.proto.graph.node]
    assert kinds == ["Gemm"] * 6 + ["Concat", "Relu"]


@pytest.mark.parametrize(("rows", "depth"), [(1, 64), (1, 4096), (1, 25_088), (20, 4096)])
@pytest.mark.parametrize(("shards", "parity"), [(2, 1), (8, 1), (4, 2), (8, 2), (4, 3)])
def test_the_bound_of_errors_holds(rows: int, depth: int, shards: int, parity: int, tmp_path: Path) -> None:
    """Products of up to as many numbers as VGG16's fc6, whose inputs are all positive after a Relu."""
    model = gemm(rows, depth, 8 * shards).model(tmp_path, reference=512)
    for seed in range(3):
        made = run_coded(model, "g", shards, parity, tmp_path, seed)
        assert worst_error(made) <= made.code.error_bound <= LARGEST_ERROR


@pytest.mark.parametrize("change", [lambda number: -number, lambda number: number * 1.001, lambda number: number + 0.01])
@pytest.mark.parametrize(("shards", "parity"), [(4, 1), (4, 2), (5, 3)])
def test_every_wrong_coefficient_is_noticed(change: Any, shards: int, parity: int, tmp_path: Path) -> None:
    made = run_coded(gemm(1, 200, 8 * shards).model(tmp_path, reference=512), "g", shards, parity, tmp_path)
    assert worst_error(made) <= made.code.error_bound
    largest = max(float(np.abs(shard).max()) for shard in made.shards)
    for row in range(parity):
        for column in range(shards):
            wrong = np.array(made.code.coefficients)
            wrong[row, column] = change(wrong[row, column])
            errors = []
            for gone, used in losses(shards, parity):
                found = decoded(made.shards, made.parity, wrong.tolist(), gone, used)
                errors += [np.abs(value - made.shards[index]).max() for value, index in zip(found, gone, strict=True)]
            assert max(errors) / largest > made.code.error_bound, (row, column)


def refused(net: Net, operator: str, parity: int = 1) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        check_code(output_option(net.model(), operator), parity)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_depthwise_convolutions_are_refused() -> None:
    net = Net()
    net.input("x", 1, 32, 8, 8)
    net.output(net.conv("x", "c", (32, 1, 3, 3), group=32))
    assert refused(net, "c").startswith("Conv 'c' can have no code: each of its channels reads another one")


def test_a_prime_number_of_outputs_is_refused() -> None:
    net = Net()
    net.input("x", 1, 32)
    net.node("Gemm", "x", net.weight("w", 32, 8191), to="y")
    net.output("y")
    assert "are not 2 or more shards of equal width" in refused(net, "y")


def test_half_floats_are_refused() -> None:
    net = Net()
    net.input("x", 1, 32, data_type=TensorProto.FLOAT16)
    net.node("MatMul", "x", net.constant("w", np.ones((32, 32)), np.float16), to="y")
    net.output("y", data_type=TensorProto.FLOAT16)
    assert refused(net, "y").endswith("sums of float16 are too coarse to decode; give the model in float32")


@pytest.mark.parametrize(
    ("width", "needed", "count"), [(96, 2, 2), (96, 5, 6), (1000, 4, 5), (1000, 2, 2), (30, 4, 5), (17, 2, 17), (4096, 3, 4)]
)
def test_shards_are_of_equal_width(width: int, needed: int, count: int) -> None:
    """Multiples of eight are preferred, unless they take twice as many shards."""
    assert coded_count(output_option(gemm(1, 16, width).model(), "g"), needed, 1) == count


def _dequantised_product() -> Net:
    net = Net()
    net.input("x", 1, 32)
    stored = [net.constant("w", np.ones((32, 32)), np.int8), net.constant("scale", 0.1, np.float32)]
    net.node("MatMul", "x", net.node("DequantizeLinear", *stored, to="d"), to="y")
    net.output("y")
    return net


def _computed_bias() -> Net:
    net = Net()
    net.input("x", 1, 32)
    net.input("b", 1)
    net.node("Gemm", "x", net.weight("w", 32, 32), "b", to="y")
    net.output("y")
    return net


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (
            _dequantised_product,
            "its weight is stored in another type and dequantised; give the model that was not quantised",
        ),
        (_computed_bias, "its bias 'b' is computed; run it on two boards"),
    ],
    ids=["dequantised", "a computed bias"],
)
def test_what_is_not_linear_in_its_weights_is_refused(net: Any, reason: str) -> None:
    assert reason in refused(net(), "y")


def test_too_many_parity_shards_are_refused() -> None:
    """Of 25,088 products in 7 shards at least, errors would grow too much."""
    net = gemm(1, 25_088, 49)
    assert "can have no code with 4 parity shards: decoding might be wrong by" in refused(net, "g", 4)


def test_double_precision_has_a_bound_of_its_own(tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 64, data_type=TensorProto.DOUBLE)
    net.node("MatMul", "x", net.constant("w", np.random.default_rng(0).standard_normal((64, 32)), np.float64), to="y")
    net.output("y", data_type=TensorProto.DOUBLE)
    made = run_coded(net.model(tmp_path, reference=512), "y", 4, 2, tmp_path)
    assert 0 < worst_error(made) <= made.code.error_bound < 1e-13
