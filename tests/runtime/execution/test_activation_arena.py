"""Bundles whose activations are in an arena compute the same bits; a process has one arena; a full one is given up."""

from __future__ import annotations

import gc
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import ActivationsRecord
from hyps.runtime.device.process_memory import keep_lean
from hyps.runtime.errors import BundleError
from hyps.runtime.execution.engine import Observer, in_memory
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.local_engine import LocalEngine
from hyps.runtime.execution.session import open_session, session_options, to_numpy
from tests.compiler.onnxes import saved
from tests.passes.nets import Net

SIDE = 64
Outputs = dict[str, NDArray[Any]]


def network() -> Net:
    """Three convolutions of 64 channels, one after the other, with a sum: 1 MB each."""
    net = Net()
    net.input("x", 1, 3, SIDE, SIDE)
    first = net.node("Relu", net.conv("x", "c0", (64, 3, 3, 3), pads=[1] * 4), to="r0")
    second = net.node("Relu", net.conv(first, "c1", (64, 64, 3, 3), pads=[1] * 4), to="r1")
    total = net.node("Add", net.conv(second, "c2", (64, 64, 3, 3), pads=[1] * 4), first, to="sum")
    net.output(net.node("GlobalAveragePool", total, to="y"))
    return net


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "m.onnx", network().proto())


@pytest.fixture(scope="module")
def made(model: Path) -> Path:
    """A bundle of several steps, with an arena."""
    bundle = model.parent / "bundle"
    request = Request(budget_bytes=10**9, split="layers", threads=1)
    compile_file(Compilation(model=model, output=bundle, request=request, target_name="test"))
    return bundle


@pytest.fixture
def load(made: Path) -> Iterator[Callable[..., Executor]]:
    opened: list[Executor] = []

    def call(activations: ActivationsRecord | None = None) -> Executor:
        def adapt(manifest: Manifest) -> Manifest:
            return msgspec.structs.replace(manifest, activations=activations) if activations else manifest

        opened.append(load_executor(made, adapt=adapt))
        return opened[-1]

    yield call
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def sample() -> Outputs:
    return {"x": np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)}


@pytest.fixture(scope="module")
def expected(model: Path, sample: Outputs) -> NDArray[Any]:
    found: NDArray[Any] = to_numpy(open_session(model, 1).run(["y"], sample)["y"])
    return found


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_an_arena_changes_no_bit(load: Callable[..., Executor], sample: Outputs, expected: NDArray[Any]) -> None:
    executor = load()
    assert executor.has_arena
    assert {step.session.tier for step in executor.manifest.steps} == {"arena"}
    for _ in range(3):
        np.testing.assert_array_equal(executor.run(sample, again=True)["y"], expected)


def test_activations_keep_their_pages(load: Callable[..., Executor], sample: Outputs) -> None:
    executor = load()
    for _ in range(3):
        executor.run(sample, again=True)
    before = page_faults()
    for _ in range(5):
        executor.run(sample, again=True)
    assert page_faults() - before < 5 * 256  # one activation alone has as many pages


def test_a_full_arena_is_given_up(load: Callable[..., Executor], sample: Outputs, expected: NDArray[Any]) -> None:
    executor = load(ActivationsRecord(region_bytes=1 << 20))
    assert (executor.has_arena, executor.outgrew_arena) == (True, False)
    done: list[object] = []
    np.testing.assert_array_equal(executor.run(sample, done.append)["y"], expected)
    assert (executor.has_arena, executor.outgrew_arena) == (False, True)
    np.testing.assert_array_equal(executor.run(sample)["y"], expected)


def test_a_full_arena_is_told(load: Callable[..., Executor], sample: Outputs) -> None:
    warnings: list[str] = []

    class Listener(Observer):
        def warning(self, message: str) -> None:
            warnings.append(message)

    [*LocalEngine(load(ActivationsRecord(region_bytes=1 << 20))).run(in_memory([sample]), Listener())]
    assert [each for each in warnings if each.startswith("activations did not fit into the planned arena")]


def test_a_process_has_one_arena(load: Callable[..., Executor], sample: Outputs, expected: NDArray[Any]) -> None:
    first, second = load(), load()
    assert (first.has_arena, second.has_arena) == (True, False)
    np.testing.assert_array_equal(second.run(sample)["y"], expected)
    np.testing.assert_array_equal(first.run(sample)["y"], expected)
    first.close()
    assert load().has_arena


def test_an_executor_that_nobody_refers_to_has_no_arena(made: Path) -> None:
    executor = load_executor(made)
    assert executor.has_arena
    del executor
    gc.collect()
    other = load_executor(made)
    assert other.has_arena
    other.close()


@pytest.mark.own_process
def test_room_is_made_of_the_arena(load: Callable[..., Executor], sample: Outputs, expected: NDArray[Any]) -> None:
    keep_lean()  # as hyps-run does: glibc gives the region back
    executor = load()
    executor.run(sample)
    before = executor.room_bytes()
    executor.make_room()
    assert executor.room_bytes() > before + 2 * 64 * SIDE * SIDE * 4
    np.testing.assert_array_equal(executor.run(sample)["y"], expected)


def test_stock_options_are_onnxruntimes_own() -> None:
    """All but its unbounded arena, which changes no bit. The memory pattern needs an arena."""
    own, stock = ort.SessionOptions(), session_options(1, stock=True)
    assert stock.graph_optimization_level == own.graph_optimization_level
    assert not stock.enable_cpu_mem_arena
    assert not stock.enable_mem_pattern
    assert session_options(1, stock=True, arena=True).enable_mem_pattern
    with pytest.raises(RuntimeError):
        stock.get_session_config_entry("session.disable_prepacking")


def test_a_changed_weights_file_of_a_stock_step_is_refused(model: Path, tmp_path: Path) -> None:
    """onnxruntime reads it while it is checked; nothing is computed, however often that is tried."""
    bundle = tmp_path / "stock"
    compile_file(Compilation(model=model, output=bundle, request=Request(budget_bytes=10**9, threads=1), target_name="test"))
    executor = load_executor(bundle)
    assert executor.manifest.is_stock
    executor.close()
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (weights,) = (broken / "partitions").glob("*.weights")
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    refused = load_executor(broken)
    (name,) = refused.manifest.inputs
    values = {name: np.zeros(refused.manifest.tensors[name].shape, np.float32)}
    for _ in range(2):
        with pytest.raises(BundleError, match="was changed"):
            refused.run(values)
