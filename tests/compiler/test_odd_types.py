"""Compile weights and tensors of types that numpy lacks: 4-bit integers, 8-bit floats, bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from hyps.compiler.validate import random_inputs
from hyps.runtime.execution.batch import run_batch
from hyps.runtime.execution.engine import GroupTiming, Observer, in_memory
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.spill import TensorStore
from tests.compiler.conftest import Compile
from tests.compiler.graphs import scalar
from tests.compiler.onnxes import model, node, value

KINDS = ("INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
#: What the runtime has a buffer for and onnxruntime reads there; the others it maps as well.
LISTED = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "BFLOAT16")


def tensor(name: str, kind: int, values: NDArray[Any]) -> TensorProto:
    return helper.make_tensor(name, kind, values.shape, values.ravel())


def quantised(kind: int) -> ModelProto:
    """Return a product with a quantised weight, whose quantised result crosses a cut."""
    values = np.random.default_rng(0).integers(0, 7, 512 * 512)
    return model(
        [
            node("DequantizeLinear", "w scale", "d"),
            node("MatMul", "x d", "m"),
            node("Relu", "m", "r"),
            node("QuantizeLinear", "r scale zero", "q"),
            node("DequantizeLinear", "q scale zero", "f"),
            node("Tanh", "f", "y"),
        ],
        [value("x", 4, 512)],
        [value("y", 4, 512)],
        [
            helper.make_tensor("w", kind, [512, 512], values),
            helper.make_tensor("zero", kind, [], [0]),
            scalar("scale", 0.25),
        ],
        opset=21,
        ir_version=10,
    )


def halved() -> ModelProto:
    """Return a model with a bfloat16 weight and a bfloat16 tensor that crosses cuts."""
    values = np.random.default_rng(0).standard_normal(512 * 512)
    kind = TensorProto.BFLOAT16
    return model(
        [
            node("Relu", "x", "r"),
            node("Cast", "r", "b", to=kind),
            node("Reshape", "b shape", "c"),
            node("Cast", "c", "f", to=TensorProto.FLOAT),
            node("Cast", "w", "v", to=TensorProto.FLOAT),
            node("MatMul", "f v", "y"),
        ],
        [value("x", 4, 512)],
        [value("y", 2, 2, 512)],
        [
            helper.make_tensor("w", kind, [512, 512], values),
            helper.make_tensor("shape", TensorProto.INT64, [3], [2, 2, 512]),
        ],
        opset=21,
        ir_version=10,
    )


@pytest.mark.parametrize("kind", [*KINDS, "BFLOAT16"])
def test_computes_the_same_at_once_and_spilled(kind: str, compiled: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    number = TensorProto.DataType.Value(kind)
    made = compiled(halved() if kind == "BFLOAT16" else quantised(number), split="layers")
    manifest = made.compiled.manifest
    assert [step.weights.tensors != () for step in manifest.steps if step.weights] == [kind in LISTED]
    samples = list(random_inputs(manifest, 2))
    whole = open_session(made.model, 1)
    expected = [to_numpy(whole.run(["y"], sample)["y"]) for sample in samples]
    executor = load_executor(made.folder, threads=1)
    at_once = [executor.run(sample)["y"] for sample in samples]
    set_limit, timings = TensorStore.set_limit, list[GroupTiming]()
    monkeypatch.setattr(TensorStore, "set_limit", lambda store, nbytes: set_limit(store, 0))
    observer = Observer()
    monkeypatch.setattr(observer, "group_done", timings.append)
    spilled = [result.outputs["y"] for result in run_batch(executor, in_memory(samples), observer)]
    np.testing.assert_array_equal(at_once, expected)
    np.testing.assert_array_equal(spilled, expected)
    assert timings[0].spilled_bytes > 0


def test_what_is_mapped_beside_the_buffer_is_counted_twice(compiled: Compile) -> None:
    four = compiled(quantised(TensorProto.INT4)).compiled.plan.partitions[0].weight_bytes
    eight = compiled(quantised(TensorProto.FLOAT8E4M3FN), force=True).compiled.plan.partitions[0].weight_bytes
    assert four == eight
