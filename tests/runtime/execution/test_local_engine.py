"""The local engine reads an input when there is room, drops outputs before it computes again, and continues after errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.engine import EngineInput, InputTensors, Observer, in_memory, run_one
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.local_engine import LocalEngine
from hyps.runtime.execution.step_profile import StepProfile
from tests.runtime.execution.test_executor import SCHEDULES, FakeRuntime, scheduled

SAMPLES = [{"x": np.full(1, value, np.float32)} for value in range(3)]


class Recorder(Observer):
    """An observer that keeps the names of its events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.warnings: list[str] = []

    def opened(self, manifest: Manifest, threads: int) -> None:
        self.events.append("opened")

    def step_done(self, profile: StepProfile | None) -> None:
        self.events.append(profile.name if profile else "step")

    def run_done(self) -> None:
        self.events.append("run")

    def warning(self, message: str) -> None:
        self.warnings.append(message)


class Source:
    """An input that records in ``events`` that it is read; ``fault`` is raised the first ``faults`` times."""

    def __init__(self, name: str, events: list[str], fault: InputError | None = None, faults: int = 0) -> None:
        self.name, self._events, self._fault, self._faults = name, events, fault, faults

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        self._events.append(f"read {self.name}")
        if self._fault and self._faults:
            self._faults -= 1
            raise self._fault
        return SAMPLES[0]


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def executor(manifest: Manifest, runtime: FakeRuntime) -> Executor:
    return Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=runtime)


def test_results_come_in_order_with_numbers(executor: Executor) -> None:
    results = [*LocalEngine(executor).run(in_memory(SAMPLES))]
    assert [(result.number, result.outputs["y"].tolist(), result.error) for result in results] == [
        (0, [3.0], None),
        (1, [4.0], None),
        (2, [5.0], None),
    ]
    assert all(result.compute_s > 0 for result in results)


def test_an_input_is_read_after_the_last_result_was_taken(executor: Executor) -> None:
    events: list[str] = []
    for result in LocalEngine(executor).run(iter([Source("a", events), Source("b", events)])):
        events.append(f"result {result.name}")
    assert events == ["read a", "result a", "read b", "result b"]


def test_outputs_are_dropped_before_the_next_input_computes(executor: Executor, runtime: FakeRuntime) -> None:
    for result in LocalEngine(executor, repeat=2).run(in_memory(SAMPLES)):
        assert runtime.alive() == {"y"}
        del result
        assert not runtime.alive()
    assert [alive for alive in runtime.tensors_at_opening if "y" in alive] == []


def test_each_input_is_repeated_and_each_step_reported(executor: Executor) -> None:
    recorder = Recorder()
    assert len([*LocalEngine(executor, repeat=2).run(in_memory(SAMPLES[:1]), recorder)]) == 1
    assert recorder.events == ["opened", *(["step"] * 3 + ["run"]) * 2]
    recorder.events.clear()
    assert len([*LocalEngine(executor, profile=True).run(in_memory(SAMPLES[:1]), recorder)]) == 1
    assert recorder.events == ["opened", "00", "01", "02", "run"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (lambda: [*in_memory(SAMPLES)], [True, True, False]),
        (lambda: in_memory(SAMPLES), [True, True, True]),
    ],
    ids=["a known length", "an unknown length"],
)
def test_the_first_weights_are_read_ahead_unless_the_stream_ends(
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
    inputs: Callable[[], Iterable[EngineInput]],
    expected: list[bool],
) -> None:
    announced: list[bool] = []
    run = executor.run

    def recorded(tensors: InputTensors, *arguments: object, again: bool, **options: object) -> object:
        announced.append(again)
        return run(tensors)

    monkeypatch.setattr(executor, "run", recorded)
    list(LocalEngine(executor).run(inputs()))
    assert announced == expected


def test_room_is_made_once_for_an_input_that_does_not_fit(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(executor, "make_room", lambda: events.append("make room"))
    fault = RoomError("too large")
    sources = [Source("a", events, fault, 1), Source("b", events, fault, 2), Source("c", events)]
    results = [*LocalEngine(executor).run(sources)]
    assert [str(result.error) for result in results] == ["None", "too large", "None"]
    assert events == ["read a", "make room", "read a", "read b", "make room", "read b", "read c"]


def test_a_wrong_input_leaves_the_others(executor: Executor) -> None:
    wrong = {"x": np.zeros(2, np.float32)}
    results = [*LocalEngine(executor).run(in_memory([SAMPLES[0], wrong, SAMPLES[1]]))]
    assert [result.number for result in results] == [0, 1, 2]
    assert [result.outputs.keys() for result in results] == [{"y"}, set(), {"y"}]
    assert str(results[1].error).startswith("input 'x' is float32[2]; the bundle was compiled for float32[1]; ")
    with pytest.raises(InputError, match="the bundle was compiled for"):
        run_one(LocalEngine(executor), wrong)


def test_an_onnxruntime_that_the_budget_was_not_planned_for_is_named(
    manifest: Manifest, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = scheduled(manifest, SCHEDULES["chain"])
    tight = msgspec.structs.replace(schedule, budget_bytes=max(step.peak_bytes for step in schedule.steps))
    observer = Recorder()
    monkeypatch.setattr("onnxruntime.__version__", "1.99.0")
    [*LocalEngine(Executor(Path("b"), tight, opener=runtime)).run(in_memory(SAMPLES), observer)]
    assert re.match(
        r"the budget was planned for onnxruntime 1\.31, and 1\.99\.0 may take \d\.\d MB more", observer.warnings[0]
    )
    assert all("a bug" not in warning for warning in observer.warnings)


def test_an_older_onnxruntime_is_no_reason_to_warn(
    manifest: Manifest, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = Recorder()
    monkeypatch.setattr("onnxruntime.__version__", "1.23.2")
    executor = Executor(Path("b"), scheduled(manifest, SCHEDULES["chain"]), opener=runtime)
    [*LocalEngine(executor).run(in_memory(SAMPLES), observer)]
    assert not [warning for warning in observer.warnings if "planned for" in warning]
