"""Compile and run models with empty tensors, with shapes that are computed, and with outputs without a shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from hyps.runtime.execution.session import session_options
from tests.compiler.conftest import Bundle, Command, Compile
from tests.compiler.graphs import ints
from tests.compiler.onnxes import model, node, saved, value, weight

Feeds = dict[str, NDArray[np.float32]]


def run(bundle: Bundle, feeds: Feeds, hyps_run: Command, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return what the bundle computes."""
    np.savez(folder / "in.npz", **feeds)  # type: ignore[arg-type]
    result = hyps_run(bundle.folder, folder / "in.npz", "--save", folder / "out.npz")
    assert (result.returncode, result.stderr) == (0, "")
    with np.load(folder / "out.npz") as arrays:
        return dict(arrays)


def whole(path: Path, feeds: Feeds) -> dict[str, NDArray[np.float32]]:
    session = ort.InferenceSession(path, session_options(2), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def decoder() -> ModelProto:
    """Return a decoder's step: keys of ``past`` and of new tokens, all of them an output."""
    return model(
        [
            node("Concat", "past new", "present", axis=2),
            node("Transpose", "present", "t", perm=[0, 1, 3, 2]),
            node("MatMul", "new t", "y"),
            node("Mul", "past past", "squares"),
            node("ReduceSum", "past", "sum", keepdims=0),
        ],
        [value("past", "b", 4, "p", 16), value("new", "b", 4, "s", 16)],
        [value("present", "b", 4, "q", 16), value("y", "b", 4, "s", "q"), value("squares", "b", 4, "p", 16), value("sum")],
    )


@pytest.mark.parametrize("past", [0, 5])
def test_empty_past(past: int, hypsc_here: Command, hyps_run: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", decoder())
    shapes = ["--input-shape", f"past:1,4,{past},16", "--input-shape", "new:1,4,3,16"]
    for split in ("mandatory", "layers"):
        result = hypsc_here("compile", path, "--memory", "1GB", "-o", "bundle", "--force", "--split", split, *shapes)
        assert (result.returncode, result.stderr) == (0, "")
        rng = np.random.default_rng(0)
        feeds = {
            name: rng.standard_normal((1, 4, size, 16)).astype(np.float32) for name, size in (("past", past), ("new", 3))
        }
        np.savez(tmp_path / "in.npz", **feeds)  # type: ignore[arg-type]
        ran = hyps_run(tmp_path / "bundle", tmp_path / "in.npz", "--save", tmp_path / "out.npz")
        assert (ran.returncode, ran.stderr) == (0, "")
        expected = whole(path, feeds)
        with np.load(tmp_path / "out.npz") as found:
            assert set(found) == set(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)


def recogniser() -> ModelProto:
    """Return two Gemms with Reshapes whose shapes are computed before, between and after them."""
    joined = [node("Concat", "tb k", "flat", axis=0), node("Concat", "t b m", "full", axis=0)]
    return model(
        [
            node("Shape", "x", "s"),
            node("Slice", "s zero one", "t"),
            node("Slice", "s one two", "b"),
            node("Mul", "t b", "tb"),
            *joined,
            node("Reshape", "x flat", "r"),
            node("Gemm", "r w1", "g", transB=1),
            node("Reshape", "g full", "h"),
            node("Relu", "h", "i"),
            node("MatMul", "i w2", "j"),
            node("Reshape", "j full", "y"),
        ],
        [value("x", "t", 1, 1024)],
        [value("y", "t", 1, 4096)],
        [
            weight("w1", 4096, 1024),
            weight("w2", 4096, 4096),
            *(ints(name, number) for name, number in (("zero", 0), ("one", 1), ("two", 2), ("k", 1024), ("m", -1))),
        ],
    )


def test_computed_shapes_behind_splits(compiled: Compile, hyps_run: Command, tmp_path: Path) -> None:
    proto = recogniser()
    proto.graph.output[0].metadata_props.add(key="name", value="linear")
    bundle = compiled(proto, budget_bytes=75_000_000, input_shapes={"x": (16, 1, 1024)})
    assert {shard.name for shard in bundle.compiled.sharded if shard} >= {"j"}
    feeds = {"x": np.random.default_rng(0).standard_normal((16, 1, 1024)).astype(np.float32)}
    found, expected = run(bundle, feeds, hyps_run, tmp_path), whole(bundle.model, feeds)
    np.testing.assert_allclose(found["y"], expected["y"], atol=1e-5 * float(abs(expected["y"]).max()))


@pytest.mark.parametrize("has_type", [True, False])
def test_output_without_a_shape(has_type: bool, compiled: Compile) -> None:
    proto = model([node("Relu", "x", "y")], [value("x", 1, 8)], [value("y", 1, 8)])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    if not has_type:
        proto.graph.output[0].ClearField("type")
    assert compiled(proto).compiled.manifest.tensors["y"].shape == (1, 8)
