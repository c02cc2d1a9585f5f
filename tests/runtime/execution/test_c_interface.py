"""Sessions through onnxruntime's C library compute what its Python module computes, and say the same of faults."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hyps.runtime.bundle.records.element_types import STORAGE_TYPES
from hyps.runtime.bundle.records.steps import ActivationsRecord
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import BundleError, InputError, LibraryError
from hyps.runtime.execution.c_api import library as c_library
from hyps.runtime.execution.c_api.library import find_library
from hyps.runtime.execution.c_api.memory_reuse import disable_memory_reuse
from hyps.runtime.execution.c_api.session import CSession, Runtime
from hyps.runtime.execution.interface import ActivationArenaFull, session_settings
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.tensor import RawTensor, numbers_of

VERBOSE = 0


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    path = find_library()
    if path is None:
        pytest.skip("the installed onnxruntime has no C library of a version that was tried")
    return Runtime(path)


def tensor(array: NDArray[Any]) -> RawTensor:
    return RawTensor(array.dtype.name, array.shape, memoryview(bytearray(array.tobytes())))


def saved(path: Path, nodes: list[onnx.NodeProto], data_type: int = TensorProto.FLOAT, shape: Any = (2, 3)) -> Path:
    typed = [helper.make_tensor_value_info(name, data_type, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", typed[:1], typed[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def by_c(
    runtime: Runtime, path: Path, weights: Mapping[str, RawTensor] | None = None, *, reuse_memory: bool = True
) -> CSession:
    return runtime.open_session(path, 1, weights or {}, reuse_memory=reuse_memory, optimize=True)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_every_type_goes_through(dtype: str, shape: tuple[int, ...], runtime: Runtime, tmp_path: Path) -> None:
    """A step's result is the next step's input without a copy."""
    kind = STORAGE_TYPES[dtype]
    path = saved(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], kind.onnx, shape)
    content = bytearray(b"\1" * (kind.item_bytes * int(np.prod(shape))))
    session = by_c(runtime, path)
    first = session.run(["y"], {"x": RawTensor(dtype, shape, memoryview(content))})["y"]
    second = session.run(["y"], {"x": first})["y"]
    assert (second.dtype, second.shape, second.tobytes()) == (dtype, shape, bytes(content))


@pytest.mark.parametrize("reuse_memory", [True, False])
def test_bits_are_those_of_the_python_module(reuse_memory: bool, runtime: Runtime, tmp_path: Path) -> None:
    """A convolution, a pooling and a product; the weights lie in memory of ours."""
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    path = network(tmp_path / "m.onnx")
    weights = {name: tensor(arrays[name]) for name in ("w", "g")}
    expected = open_session(path, 1, weights, reuse_memory=reuse_memory).run(["y", "p"], {"x": arrays["x"]})
    found = by_c(runtime, path, weights, reuse_memory=reuse_memory).run(["y", "p"], {"x": tensor(arrays["x"])})
    for name, value in expected.items():
        assert found[name].tobytes() == to_numpy(value).tobytes()
        assert found[name].shape == to_numpy(value).shape
        assert list(numbers_of(found[name])) == to_numpy(value).ravel().tolist()


SHAPES = {"x": (1, 3, 16, 16), "w": (8, 3, 3, 3), "g": (8 * 8 * 8, 20)}


def network(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "g"], ["y"]),
    ]
    typed = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in SHAPES.items()}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "p")]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, SHAPES[name], np.zeros(SHAPES[name], np.float32).tobytes(), raw=True)
        for name in ("w", "g")
    ]
    graph = helper.make_graph(nodes, "g", [typed["x"]], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def test_faults_are_worded_alike(runtime: Runtime, tmp_path: Path) -> None:
    broken, strange = tmp_path / "broken.onnx", tmp_path / "strange.onnx"
    broken.write_bytes(b"no model")
    saved(strange, [helper.make_node("Strange", ["x"], ["y"], domain="nowhere")])
    for path in (broken, strange, tmp_path / "missing.onnx"):
        with pytest.raises(BundleError) as expected:
            open_session(path, 1)
        with pytest.raises(BundleError) as found:
            by_c(runtime, path)
        assert str(found.value) == str(expected.value)
    reshaped = saved(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])])
    wrong = np.zeros((2, 4), np.float32)
    with pytest.raises(InputError) as refused:
        open_session(reshaped, 1).run(["y"], {"x": wrong})
    with pytest.raises(InputError, match="onnxruntime cannot run") as found_refused:
        by_c(runtime, reshaped).run(["y"], {"x": tensor(wrong)})
    assert str(found_refused.value) == str(refused.value)


@pytest.mark.own_process
def test_everything_is_released(runtime: Runtime, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])], shape=(1000, 1000))
    content = tensor(np.ones((1000, 1000), np.float32))

    def many(count: int) -> int:
        for _ in range(count):
            result = by_c(runtime, path).run(["y"], {"x": content})["y"]
            assert numbers_of(result)[-1] == -1
        del result
        gc.collect()
        return memory().anonymous_bytes

    most, least = many(60), many(20)
    assert most - least < 20_000_000  # a lost result of each run would be 160 MB


def test_a_result_outlives_its_session(runtime: Runtime, tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])])
    result = by_c(runtime, path).run(["y"], {"x": tensor(np.arange(6, dtype=np.float32).reshape(2, 3))})["y"]
    gc.collect()
    assert list(numbers_of(result)) == [0, -1, -2, -3, -4, -5]


@pytest.mark.parametrize(("stock", "arena"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("reuse_memory", [True, False])
def test_options_are_the_recipes(
    reuse_memory: bool, stock: bool, arena: bool, runtime: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime itself prints what a session was opened with."""
    path = saved(tmp_path / "m.onnx", [helper.make_node("Neg", ["x"], ["y"])])
    settings = session_settings(reuse_memory=reuse_memory, stock=stock, arena=arena)
    options = runtime.options(3, settings)
    runtime.library.call("SetSessionLogSeverityLevel", options.pointer, VERBOSE)
    runtime.register_arena(ActivationsRecord(region_bytes=1 << 20))
    environment = runtime.library.pointer("CreateEnv", VERBOSE, b"test")
    runtime.library.made("Session", "CreateSession", environment, str(path).encode(), options.pointer)
    printed = dict(re.findall(r"(\w+): ?(\w+)", capfd.readouterr().err))
    shown = {key: printed[key] for key in ("enable_mem_reuse", "enable_mem_pattern", "enable_cpu_mem_arena")}
    assert shown == {
        "enable_mem_reuse": str(int(reuse_memory and not arena)),
        "enable_mem_pattern": str(int(stock and arena)),
        "enable_cpu_mem_arena": "0",
    }


@pytest.mark.own_process
@pytest.mark.parametrize("folds", [False, True])
def test_the_arena_holds_activations_and_is_bounded(folds: bool, runtime: Runtime, tmp_path: Path) -> None:
    """Also where onnxruntime has folded a constant, whose memory it takes beyond the arena's limit."""
    runtime.register_arena(ActivationsRecord(region_bytes=4 << 20))
    for side, fits in ((500, True), (2000, False)):
        nodes = [helper.make_node("Neg", ["x"], ["y"])]
        if folds:
            nodes = [
                helper.make_node("Constant", [], ["two"], value_float=2.0),
                helper.make_node("Neg", ["two"], ["less"]),
                helper.make_node("Div", ["x", "two"], ["half"]),
                helper.make_node("Mul", ["half", "less"], ["y"]),
            ]
        path = saved(tmp_path / "m.onnx", nodes, shape=(side, side))
        options = {"reuse_memory": True, "optimize": True, "arena": True}
        session = runtime.open_session(path, 1, {}, **options)
        if fits:
            assert numbers_of(session.run(["y"], {"x": tensor(np.ones((side, side), np.float32))})["y"])[-1] == -1
        else:
            with pytest.raises(ActivationArenaFull):
                session.run(["y"], {"x": tensor(np.ones((side, side), np.float32))})


def test_other_options_than_those_known_are_refused(runtime: Runtime) -> None:
    options = runtime.options(1, session_settings())  # what is searched for is switched off already
    with pytest.raises(LibraryError, match="has other session options"):
        disable_memory_reuse(runtime.library, options)


@pytest.mark.parametrize(
    ("name", "is_known"),
    [
        ("libonnxruntime.so.1.32.0", True),
        ("libonnxruntime.so.1.23.2", True),
        ("libonnxruntime.so.1.22.0", False),
        ("libonnxruntime.so.1.33.0", False),
        ("libonnxruntime.so.1", False),
        ("libonnxruntime.so.2.30.0", False),
        ("onnxruntime.dll", False),
    ],
)
def test_only_versions_that_were_tried(name: str, is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / name).touch()
    spec = ModuleSpec("onnxruntime", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(c_library, "find_spec", lambda _: spec)
    assert find_library() == (tmp_path / "capi" / name if is_known else None)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_library, "find_spec", lambda _: None)
    assert find_library() is None


def test_handles_are_released_once() -> None:
    released: list[int] = []
    handle = c_library.Handle(7, released.append, ctypes.c_char())
    assert released == []
    del handle
    assert released == [7]
