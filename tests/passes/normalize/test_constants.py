"""Reshaped constants become constants, by reference, and what onnxruntime computes stays the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from hyps.passes.cost.fusion import fusion_groups
from hyps.passes.graph import view
from hyps.passes.normalize.constants import FoldReshapes
from hyps.passes.rewrite import run_rewrites
from hyps.passes.shapes import infer_shapes
from hyps.passes.weights import Model, Weight, placeholder
from hyps.runtime.execution.session import session_options


def scaled_convolution(*, scale_is_output: bool = False) -> Model:
    """Return Conv, Mul and Add with constants that Unsqueeze gives the channels' shape, as exporters of Caffe models do."""
    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.standard_normal((8, 3, 3, 3)),
        "scale": rng.standard_normal(8),
        "shift": rng.standard_normal(8),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], "conv"),
        helper.make_node("Unsqueeze", ["scale", "axes"], ["s"], "unsqueeze_scale"),
        helper.make_node("Mul", ["c", "s"], ["m"], "mul"),
        helper.make_node("Unsqueeze", ["shift", "axes"], ["t"], "unsqueeze_shift"),
        helper.make_node("Add", ["m", "t"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 4, 4])]
    if scale_is_output:
        outputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, [8, 1, 1]))
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    constants.append(numpy_helper.from_array(np.array([1, 2], np.int64), "axes"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])]
    graph = helper.make_graph(nodes, "scaled", inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return infer_shapes(Model(proto=proto, weights={}))


def run(model: Model) -> np.ndarray:
    session = ort.InferenceSession(model.proto.SerializeToString(), session_options(1))
    pixels = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    values: np.ndarray = session.run(["y"], {"x": pixels})[0]
    return values


def test_reshaped_constants_are_constants_and_fuse() -> None:
    model = scaled_convolution()
    folded = run_rewrites(model, [FoldReshapes()])
    assert {change.operator for change in folded.changes} == {"unsqueeze_scale", "unsqueeze_shift"}
    graph = view(folded.model)
    assert [operator.op_type for operator in graph.operators] == ["Conv", "Mul", "Add", "Relu"]
    assert fusion_groups(graph) == ((0, 1, 2, 3),)
    assert {name: weight.shape for name, weight in graph.weights.items() if name in "st"} == {"s": (8, 1, 1), "t": (8, 1, 1)}
    np.testing.assert_array_equal(run(folded.model), run(model))


def test_a_reshaped_constant_that_is_an_output_stays_computed() -> None:
    folded = run_rewrites(scaled_convolution(scale_is_output=True), [FoldReshapes()])
    assert {change.operator for change in folded.changes} == {"unsqueeze_shift"}


def test_without_reshaped_constants_nothing_changes() -> None:
    once = run_rewrites(scaled_convolution(), [FoldReshapes()]).model
    again = FoldReshapes()(once)
    assert not again.modified and again.model is once


@pytest.mark.parametrize("operator", ["Identity", "Flatten"])
def test_a_reference_keeps_its_place(operator: str) -> None:
    nodes = [
        helper.make_node(operator, ["w"], ["v"], "reshape"),
        helper.make_node("MatMul", ["x", "v"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256])],
        [placeholder("w", TensorProto.FLOAT, (256, 256))],
    )
    weight = Weight(path=str(Path("weights.bin")), offset=64, row_bytes=4 * 256 * 256)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folded = run_rewrites(infer_shapes(Model(proto=proto, weights={"w": weight})), [FoldReshapes()])
    assert dict(folded.model.weights) == {"v": weight}
    assert [node.op_type for node in folded.model.proto.graph.node] == ["MatMul"]
