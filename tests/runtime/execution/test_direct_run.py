"""A bundle of one open step gives arrays to onnxruntime as they are, and checks inputs all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import compile_file
from hyps.passes.planning.request import Request
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.interface import ActivationArenaFull
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import OrtSession
from tests.compiler.onnxes import saved
from tests.passes.nets import Net


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network with the outputs ``y`` and ``z``."""
    net = Net()
    net.input("x", 1, 3, 8, 8)
    net.output(net.node("Relu", net.conv("x", "c", (4, 3, 3, 3)), to="y"))
    net.output(net.node("GlobalAveragePool", "y", to="z"))
    return saved(tmp_path_factory.mktemp("direct") / "m.onnx", net.proto())


@pytest.fixture(scope="module", params=["stock", "lean"])
def bundle(model: Path, request: pytest.FixtureRequest) -> Path:
    folder: Path = model.parent / request.param
    wanted = Request(budget_bytes=10**9, threads=1, tier=request.param)
    compile_file(Compilation(model=model, output=folder, request=wanted, target_name="test"))
    return folder


@pytest.fixture
def executor(bundle: Path) -> Iterator[Executor]:
    made = load_executor(bundle, threads=1)
    yield made
    made.close()


@pytest.fixture
def direct_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each direct run appends a 1."""
    ran: list[int] = []
    run = OrtSession.run_arrays

    def noted(self: OrtSession, *arguments: object) -> object:
        ran.append(1)
        return run(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(OrtSession, "run_arrays", noted)
    return ran


def sample(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((1, 3, 8, 8), dtype=np.float32)}


def test_later_runs_are_direct_and_right(executor: Executor, model: Path, direct_runs: list[int]) -> None:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    done: list[object] = []
    for seed in range(4):
        found = executor.run(sample(seed), done.append)
        assert list(found) == [output.name for output in executor.manifest.outputs]
        for name, value in zip(found, session.run(list(found), sample(seed)), strict=True):
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    assert (len(direct_runs), done) == (3, [None] * 4)


def test_values_in_any_order_of_memory_are_the_same(executor: Executor, direct_runs: list[int]) -> None:
    executor.run(sample())
    wide = np.empty((1, 3, 8, 16), np.float32)
    wide[..., ::2] = sample()["x"]
    expected = executor.run(sample())
    for value in (np.asfortranarray(sample()["x"]), wide[..., ::2]):
        found = executor.run({"x": value})
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert len(direct_runs) == 3


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((1, 3, 8, 8))}, "float64"),
        ({"x": np.zeros((1, 3, 8, 9), np.float32)}, r"\[1, 3, 8, 9\]"),
        ({"other": np.zeros((1, 3, 8, 8), np.float32)}, "no input 'other'"),
        ({}, "'x' is missing"),
        ({**sample(), "other": np.zeros(1)}, "no input 'other'"),
    ],
    ids=["type", "shape", "name", "missing", "one more"],
)
def test_other_inputs_are_refused(executor: Executor, inputs: dict[str, np.ndarray], message: str) -> None:
    executor.run(sample())
    with pytest.raises(InputError, match=message):
        executor.run(inputs)


def test_a_profile_is_measured(executor: Executor, direct_runs: list[int]) -> None:
    profiles: list[object] = []
    for _ in range(2):
        executor.run(sample(), profiles.append, profile=True)
    assert not direct_runs
    assert None not in profiles


def test_a_full_arena_is_given_up(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = executor.run(sample())

    def full(*arguments: object) -> None:
        raise ActivationArenaFull

    monkeypatch.setattr(OrtSession, "run_arrays", full)
    found = executor.run(sample())
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_nothing_runs_in_a_closed_session(executor: Executor, direct_runs: list[int]) -> None:
    executor.run(sample())
    executor.make_room()
    if executor._memory.arena:  # its sessions were closed; another executor of this process may have the arena
        executor.run(sample())
        assert not direct_runs
