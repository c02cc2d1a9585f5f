"""Folding a batch normalisation gives the numbers of onnxruntime's own folding, bit for bit, or is left to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hyps.passes.normalize.batch_normalization import FoldBatchNormalization
from hyps.passes.rewrite import Rewritten, run_rewrites
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, same_bits

#: The least bytes of a referenced weight: with 100, kernels are referenced and vectors of 16 are not.
LARGE, NONE = 100, 1 << 30


def folded(model: Model) -> Rewritten:
    return run_rewrites(model, [FoldBatchNormalization()])


def assert_folds(net: Net, folder: Path, *operators: str, reference: int = LARGE) -> Model:
    """Check that these convolutions alone have a normalisation folded in, and that onnxruntime computes the same bits."""
    model = net.model(folder, reference=reference)
    result = folded(model)
    assert tuple(change.operator for change in result.changes) == operators
    feeds = random_feeds(model)
    assert same_bits(run(result.model, feeds, folder), run(model, feeds, folder))
    return result.model


def kinds(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


def image_net(channels: int = 8, *, opset: int = 17, seed: int = 0) -> Net:
    net = Net(opset=opset, seed=seed)
    net.input("x", 1, channels, 13, 13)
    return net


@pytest.mark.parametrize("reference", [LARGE, NONE], ids=["large and referenced", "small and inline"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("group", [1, 2, 8], ids=["dense", "grouped", "depthwise"])
@pytest.mark.parametrize("epsilon", [None, 1e-5, 1e-3, 0.25], ids=lambda epsilon: f"epsilon {epsilon}")
def test_folding(epsilon: float | None, group: int, bias: bool, reference: int, tmp_path: Path) -> None:
    net = image_net(seed=group)
    net.conv("x", "c", (16, 8 // group, 3, 3), bias=bias, group=group)
    net.norm("c", "n", 16, **({} if epsilon is None else {"epsilon": epsilon}))
    net.node("Relu", "n", to="y")
    net.output("y")
    model = assert_folds(net, tmp_path, "c", reference=reference)
    assert kinds(model) == ["Conv", "Relu"]
    assert {tensor.name for tensor in model.proto.graph.initializer} == {"c.w", "n/bias"}
    assert set(model.weights) == ({"c.w"} if reference == LARGE else set())


@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_dimensions(dimensions: int, tmp_path: Path) -> None:
    net = Net()
    net.input("x", 1, 8, *[9] * dimensions)
    net.conv("x", "c", (16, 8, *[3] * dimensions))
    net.norm("c", "y", 16)
    net.output("y")
    assert_folds(net, tmp_path, "c")


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_other_opsets(opset: int, tmp_path: Path) -> None:
    net = image_net(opset=opset)
    net.conv("x", "c", (16, 8, 3, 3))
    net.norm("c", "y", 16)
    net.output("y")
    assert_folds(net, tmp_path, "c")


def test_a_single_filter(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (1, 8, 3, 3))
    net.norm("c", "y", 1)
    net.output("y")
    assert_folds(net, tmp_path, "c")


def test_several_convolutions(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (16, 8, 3, 3))
    net.norm("c", "n", 16)
    net.node("Relu", "n", to="a")
    net.conv("a", "d", (16, 16, 3, 3), bias=False)
    net.norm("d", "y", 16)
    net.output("y")
    assert kinds(assert_folds(net, tmp_path, "c", "d")) == ["Conv", "Relu", "Conv"]


def test_output_of_the_normalisation_keeps_its_name(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (16, 8, 3, 3))
    net.norm("c", "y", 16)
    net.output("y")
    model = assert_folds(net, tmp_path, "c")
    assert [node.output[0] for node in model.proto.graph.node] == ["y"]


def test_normalisation_with_two_readers(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (16, 8, 3, 3))
    net.norm("c", "n", 16)
    net.node("Relu", "n", to="a")
    net.node("Add", "a", "n", to="y")
    net.output("y")
    assert kinds(assert_folds(net, tmp_path, "c")) == ["Conv", "Relu", "Add"]


def test_a_second_normalisation_is_left(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (16, 8, 3, 3))
    net.norm("c", "n", 16)
    net.norm("n", "y", 16)
    net.output("y")
    assert kinds(assert_folds(net, tmp_path, "c")) == ["Conv", "BatchNormalization"]


def test_bias_that_others_read_is_not_changed(tmp_path: Path) -> None:
    net = image_net()
    net.weight("b", 16)
    net.node("Conv", "x", net.weight("w", 16, 8, 3, 3), "b", to="c")
    net.norm("c", "n", 16)
    net.node("Conv", "n", net.weight("v", 16, 16, 3, 3), "b", to="y")
    net.output("y")
    assert {tensor.name for tensor in assert_folds(net, tmp_path, "c").proto.graph.initializer} >= {"b", "n/bias"}


def shared_kernel(net: Net) -> None:
    net.weight("w", 8, 8, 3, 3)
    net.node("Conv", "x", "w", to="c")
    net.norm("c", "n", 8)
    net.node("Conv", "n", "w", to="y")


def training(net: Net) -> None:
    net.conv("x", "c", (8, 8, 3, 3))
    names = [net.weight(f"n.{part}", 8) for part in ("scale", "shift", "mean")]
    variance = net.constant("v", np.ones(8, np.float32))
    net.node("BatchNormalization", "c", *names, variance, to=["y", "mean", "variance"], training_mode=1)


def convolution_read_twice(net: Net) -> None:
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "n", 8)
    net.node("Add", "n", "c", to="y")


def convolution_is_output(net: Net) -> None:
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "y", 8)
    net.output("c")


def computed_kernel(net: Net) -> None:
    net.input("w", 8, 8, 3, 3)
    net.node("Conv", "x", "w", net.weight("b", 8), to="c")
    net.norm("c", "y", 8)


def computed_bias(net: Net) -> None:
    net.input("b", 8)
    net.node("Conv", "x", net.weight("w", 8, 8, 3, 3), "b", to="c")
    net.norm("c", "y", 8)


def nameless_bias(net: Net) -> None:
    """onnxruntime does not fold here either: folding would change the numbers."""
    net.node("Conv", "x", net.weight("w", 8, 8, 3, 3), "", to="c")
    net.norm("c", "y", 8)


def computed_scale(net: Net) -> None:
    net.conv("x", "c", (8, 8, 3, 3))
    net.input("scale", 8)
    names = [net.weight(f"n.{part}", 8) for part in ("shift", "mean")]
    net.node("BatchNormalization", "c", "scale", *names, net.constant("v", np.ones(8, np.float32)), to="y")


def something_between(net: Net) -> None:
    net.conv("x", "c", (8, 8, 3, 3))
    net.node("Relu", "c", to="a")
    net.norm("a", "y", 8)


def transposed(net: Net) -> None:
    net.node("ConvTranspose", "x", net.weight("w", 8, 8, 3, 3), to="c")
    net.norm("c", "y", 8)


NOT_FOLDED = [
    shared_kernel,
    training,
    convolution_read_twice,
    convolution_is_output,
    computed_kernel,
    computed_bias,
    nameless_bias,
    computed_scale,
    something_between,
    transposed,
]


@pytest.mark.parametrize("fill", NOT_FOLDED, ids=lambda fill: fill.__name__.replace("_", " "))
def test_not_folded(fill: Callable[[Net], None], tmp_path: Path) -> None:
    net = image_net()
    fill(net)
    net.output("y")
    assert_folds(net, tmp_path)


def test_statistics_of_every_position_are_not_folded(tmp_path: Path) -> None:
    """Opset 7 has spatial = 0: a mean for every position, not only for every channel."""
    net = Net(opset=7)
    net.input("x", 1, 8, 5, 5)
    net.conv("x", "c", (8, 8, 3, 3))
    names = [net.weight(f"n.{part}", 8, 3, 3) for part in ("scale", "shift", "mean")]
    net.node("BatchNormalization", "c", *names, net.constant("v", np.ones((8, 3, 3), np.float32)), to="y", spatial=0)
    net.output("y")
    assert not folded(net.model(tmp_path)).modified


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_are_not_folded(dtype: str) -> None:
    data_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    net = Net()
    net.input("x", 1, 2, 5, 5, data_type=data_type)
    net.node("Conv", "x", net.constant("w", np.ones((2, 2, 3, 3)), dtype), to="c")
    names = [net.constant(f"n{part}", np.ones(2), dtype) for part in range(4)]
    net.node("BatchNormalization", "c", *names, to="y")
    net.output("y", data_type=data_type)
    assert not folded(net.model()).modified


def test_convolution_that_a_branch_reads_is_not_folded() -> None:
    """The other reader is in the branch of an If."""
    shape = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 8, 11, 11])
    then = helper.make_graph([helper.make_node("Relu", ["c"], ["r"])], "then", [], [shape])
    other = helper.make_graph([helper.make_node("Neg", ["n"], ["r"])], "other", [], [shape])
    net = image_net()
    net.input("flag", data_type=TensorProto.BOOL)
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "n", 8)
    net.node("If", "flag", to="y", then_branch=then, else_branch=other)
    net.output("y")
    assert not folded(net.model()).modified


def test_numbers_are_the_formula() -> None:
    """weight * scale / sqrt(variance + epsilon), and the shift that belongs to it."""
    net = Net()
    net.input("x", 1, 1, 1, 1)
    net.node("Conv", "x", net.constant("w", [[[[2.0]]]], np.float32), net.constant("b", [3.0], np.float32), to="c")
    values = [("scale", 5.0), ("shift", 7.0), ("mean", 1.0), ("variance", 0.75)]
    names = [net.constant(name, [value], np.float32) for name, value in values]
    net.node("BatchNormalization", "c", *names, to="y", epsilon=0.25)
    net.output("y")
    constants = {t.name: numpy_helper.to_array(t).item() for t in folded(net.model()).model.proto.graph.initializer}
    factor = 5.0 / math.sqrt(0.75 + 0.25)
    assert constants == {"w": 2.0 * factor, "y/bias": (3.0 - 1.0) * factor + 7.0}


def test_changes_tell_what_and_why() -> None:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "y", 8)
    net.output("y")
    (change,) = folded(net.model()).changes
    assert (change.operator, change.what) == ("c", "batch normalisation y folded in")
    assert change.why == "onnxruntime would do so while loading and copy the weights into memory"


def test_the_given_model_is_not_changed(tmp_path: Path) -> None:
    net = image_net()
    net.conv("x", "c", (8, 8, 3, 3))
    net.norm("c", "y", 8)
    net.output("y")
    for reference in (LARGE, NONE):
        model = net.model(tmp_path, reference=reference)
        before = ModelProto()
        before.CopyFrom(model.proto)
        weights = dict(model.weights)
        assert folded(model).modified
        assert (model.proto, model.weights) == (before, weights)
