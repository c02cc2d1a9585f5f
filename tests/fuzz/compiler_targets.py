"""Give the compiler damaged ONNX files: to the walk over their bytes, and to the whole path from a file to a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hyps import HypsError
from hyps.compiler.api import compile_model
from hyps.compiler.model_io.wire_format import read_structure
from tests.fuzz.model_mutation import damaged_model
from tests.fuzz.target import Read, Target

_BUDGET_BYTES, _LARGE_BUDGET_BYTES = 72_000_000, 2_000_000_000


def _network() -> onnx.ModelProto:
    """Return a convolution, a pooling and two Gemms, the second with weights of 256 KB."""
    draw = np.random.default_rng(0)
    weights = {"w": (4, 3, 3, 3), "b": (4,), "g": (256, 256), "c": (256,), "h": (256, 10)}
    initializers = [
        numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("MaxPool", ["relu"], ["pool"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "g", "c"], ["dense"], name="dense"),
        helper.make_node("Gemm", ["dense", "h"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["classes"], name="classes", axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])
    classes = helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 10])
    return _model(nodes, [image], [classes], initializers)


def _language() -> onnx.ModelProto:
    """Return an embedding, a MatMul with its Transpose, and a branch."""
    table = numpy_helper.from_array(np.ones((50, 8), np.float32), "table")
    halves = [
        helper.make_graph(
            [helper.make_node("Mul", ["rows", "rows"], [f"{name}_y"], name=f"{name}_mul")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 6, 8])],
        )
        for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="rows"),
        helper.make_node("If", ["flag"], ["chosen"], name="if", then_branch=halves[0], else_branch=halves[1]),
        helper.make_node("Transpose", ["chosen"], ["turned"], name="turned", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["chosen", "turned"], ["y"], name="matmul"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 6])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    return _model(nodes, [ids, flag], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 6])], [table])


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[TensorProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@cache
def small_bundle(scratch: Path) -> Path:
    """Return a bundle of several steps, which takes pictures; its budget has room for a process that has the compiler."""
    model, bundle = scratch / "network.onnx", scratch / "bundle"
    onnx.save(_network(), model)
    compile_model(model, bundle, memory_bytes=_LARGE_BUDGET_BYTES, split="layers", preprocess="raw", force=True)
    return bundle


def _model_seeds(scratch: Path) -> Sequence[bytes]:
    return [_network().SerializeToString(), _language().SerializeToString()]


def _wire_reader(scratch: Path) -> Read:
    path = scratch / "damaged.onnx"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_structure(path)

    return read


def _model_reader(scratch: Path) -> Read:
    path = scratch / "damaged.onnx"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        compile_model(path, scratch / "damaged", memory_bytes=_BUDGET_BYTES, force=True)

    return read


TARGETS: Mapping[str, Target] = {
    "wire": Target(seeds=_model_seeds, reader=_wire_reader, mendable=(HypsError,)),
    "model": Target(
        seeds=_model_seeds,
        reader=_model_reader,
        mendable=(HypsError,),
        damaged=damaged_model,
        seconds=60.0,
        grown_bytes=400_000_000,
    ),
}
