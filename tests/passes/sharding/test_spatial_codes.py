"""Convolutions in row tiles with a code: lost tiles are decoded within the bound, and a wrong coefficient is noticed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from hyps.passes.device import DeviceRates
from hyps.passes.errors import UnsupportedModel
from hyps.passes.sharding import spatial_codes
from hyps.passes.sharding.coded import check_code, is_codable, keeps_bound, usual_count
from hyps.passes.sharding.spatial_codes import encoding_cost
from tests.passes.convolutions import convolutions
from tests.passes.nets import Net, random_feeds, run, same_bits
from tests.passes.sharding.coded import CodedRun, decoded, losses, output_option, run_coded, worst_error
from tests.passes.splitting import TOLERANCE, difference, is_exact, kinds, max_shards

SEEDED = settings(derandomize=True, deadline=None, max_examples=100)


@SEEDED
@given(convolutions(groups=(1, 1, 2, 12)), st.data(), st.sampled_from([64, 1 << 30]))
def test_any_lost_tiles_are_decoded(net: Net, data: st.DataObject, reference: int) -> None:
    """Of any strides, dilations, pads, groups and dimensions; without losses the result is the whole model's."""
    parity = data.draw(st.integers(1, 4), "parity")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = net.model(folder, reference=reference)
        assume(_can_be_split(model))
        option = output_option(model, "c", "spatial")
        assume(is_codable(option, parity))
        counts = [count for count in range(2, 9) if keeps_bound(option, count, parity)]
        assume(counts)
        count = data.draw(st.sampled_from(counts), "tiles")
        made = run_coded(model, "c", count, parity, folder, method="spatial")
        whole = run(model, random_feeds(model), folder)
    assert len({shard.shape for shard in (*made.shards, *made.parity)}) == 1
    assert made.shards[0].shape[2] * count == option.layout.width
    if (
        is_exact(model, "c", "spatial", count, 1)
        and option.broken_fusion is None
        and kinds(model) in (["Conv"], ["Conv", "Relu"])
    ):
        assert same_bits(made.outputs, whole)
    assert difference(made.outputs, whole) <= TOLERANCE
    assert worst_error(made) <= made.code.error_bound


def _can_be_split(model: Any) -> bool:
    try:
        return max_shards(model, "c", "spatial") > 1
    except UnsupportedModel:
        return False


def convolution(**attributes: Any) -> Net:
    """Return a convolution ``c`` of 16 channels and 12 rows, with a bias and pads, and a Relu after it."""
    net = Net()
    net.input("x", 1, 16, 12, 10)
    net.output(net.node("Relu", net.conv("x", "c", (24, 16, 3, 3), pads=[1] * 4, **attributes), to="y"))
    return net


def test_the_steps_of_a_code(tmp_path: Path) -> None:
    """Tiles are cut first, then come parity shards, which pad the two at the edges and add all up."""
    made = run_coded(convolution().model(tmp_path), "c", 3, 1, tmp_path, method="spatial")
    assert kinds(made.model) == ["Slice"] * 3 + ["Pad", "Pad", "Sum", "Conv"] + ["Conv"] * 3 + ["Concat", "Relu"]


@pytest.mark.parametrize("change", [lambda number: -number, lambda number: number * 1.001])
@pytest.mark.parametrize(("tiles", "parity"), [(4, 1), (4, 2), (3, 3)])
def test_every_wrong_coefficient_of_tiles_is_noticed(change: Any, tiles: int, parity: int, tmp_path: Path) -> None:
    made = run_coded(convolution().model(tmp_path), "c", tiles, parity, tmp_path, method="spatial")
    assert worst_error(made) <= made.code.error_bound
    for row in range(parity):
        for column in range(tiles):
            wrong = np.array(made.code.coefficients)
            wrong[row, column] = change(wrong[row, column])
            assert _error(made, wrong) > made.code.error_bound, (row, column)


def _error(made: CodedRun, rows: Any) -> float:
    """Return the largest error of a decoded value with these coefficients, as a part of the largest result."""
    largest, errors = max(float(np.abs(shard).max()) for shard in made.shards), []
    for gone, used in losses(len(made.shards), len(made.parity)):
        found = decoded(made.shards, made.parity, rows.tolist(), gone, used)
        errors += [float(np.abs(value - made.shards[index]).max()) for value, index in zip(found, gone, strict=True)]
    return max(errors) / largest


MUTATIONS: dict[str, tuple[str, Any]] = {
    "the bias is not scaled": ("_scaled", lambda editor, name, bias, factor: bias),
    "no padding before": ("_row_pads", lambda node: (0, sum((node.attrs["pads"][0], node.attrs["pads"][2])))),
}


@pytest.mark.parametrize(("function", "wrong"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_broken_encoder_is_noticed(function: str, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spatial_codes, function, wrong)
    made = run_coded(convolution().model(tmp_path), "c", 4, 1, tmp_path, method="spatial")
    assert worst_error(made) > made.code.error_bound


@pytest.mark.parametrize(("inputs", "rows"), [(16, 64), (64, 16), (512, 8)])
@pytest.mark.parametrize(("tiles", "parity"), [(2, 1), (8, 1), (4, 2), (8, 2), (4, 3)])
def test_the_bound_of_errors_of_tiles_holds(inputs: int, rows: int, tiles: int, parity: int, tmp_path: Path) -> None:
    """Inputs are all positive in every other run, as after a Relu: sums of tiles are then large."""
    net = Net()
    net.input("x", 1, inputs, rows, 8)
    net.output(net.conv("x", "c", (16, inputs, 3, 3), pads=[1] * 4))
    model = net.model(tmp_path, reference=512)
    for seed in range(4):
        feeds = random_feeds(model, seed)
        feeds = {"x": np.abs(feeds["x"])} if seed % 2 else feeds
        made = run_coded(model, "c", tiles, parity, tmp_path, feeds=feeds, method="spatial")
        assert worst_error(made) <= made.code.error_bound


def refused(net: Net, parity: int = 1) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        check_code(output_option(net.model(), "c", "spatial"), parity)
    return str(caught.value)


def test_a_prime_number_of_rows_is_refused_with_several_losses() -> None:
    net = Net()
    net.input("x", 1, 16, 8192, 1)
    net.output(net.conv("x", "c", (16, 16, 2, 1)))
    assert "its 8191 rows are not 2 or more shards of equal height" in refused(net)


def test_half_floats_in_tiles_are_refused() -> None:
    net = Net()
    net.input("x", 1, 16, 12, 8, data_type=TensorProto.FLOAT16)
    net.node("Conv", "x", net.constant("w", np.ones((16, 16, 3, 3)), np.float16), to="c")
    net.output("c", data_type=TensorProto.FLOAT16)
    assert refused(net).endswith("sums of float16 are too coarse to decode; give the model in float32")


def test_computed_filters_are_refused() -> None:
    net = Net()
    net.input("x", 1, 16, 12, 8)
    net.input("w", 16, 16, 3, 3)
    net.output(net.node("Conv", "x", "w", to="c"))
    assert "its weight is computed" in refused(net)


def test_integers_and_products_have_no_tiles() -> None:
    net = Net()
    net.input("x", 1, 16, data_type=TensorProto.FLOAT)
    net.output(net.node("MatMul", "x", net.weight("w", 16, 16), to="c"))
    assert refused(net) == "MatMul 'c' cannot be split spatially: only Conv can be"


def test_depthwise_convolutions_can_be_coded_by_rows(tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 32, 12, 8)
    net.output(net.conv("x", "c", (32, 1, 3, 3), group=32))
    made = run_coded(net.model(tmp_path), "c", 2, 2, tmp_path, method="spatial")
    assert worst_error(made) <= made.code.error_bound


def test_the_estimate_counts_what_is_encoded_and_sent() -> None:
    """4 tiles of 5 of 12 rows, 640 bytes each: 12,800 bytes, read and written; and a quarter of the result, 11,520 bytes."""
    option = output_option(convolution().model(), "c", "spatial")
    assert usual_count(option, 1) == 4
    device = DeviceRates(memory_bytes_per_s=1e6, network_bytes_per_s=1e5)
    one, two = (encoding_cost(option, 4, parity, 0.2, device) for parity in (1, 2))
    assert one.encoding_s == pytest.approx(2 * 12_800 / 1e6)
    assert one.sending_s == pytest.approx((12_800 + 2_880) / 1e5)
    assert two.sending_s == 2 * one.sending_s
    assert (one.pays, two.pays) == (True, False)
