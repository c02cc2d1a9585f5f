"""Compute further inputs of a stream or a batch while rests are with a tier above; the tier is a double."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hyps.runtime.bundle.batch_schedule import batch_manifest
from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.execution.engine import InferenceResult, in_memory
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.local_engine import LocalEngine
from hyps.runtime.execution.overlap import most_away
from hyps.runtime.exits.exit_control import ExitControl
from hyps.runtime.exits.link_meter import LinkState
from hyps.runtime.exits.state import ExitAction, ExitState
from hyps.runtime.exits.tier import RestAnswer
from tests.exits import EXITS, WIDTH
from tests.waiting import PATIENCE_S

Arrays = dict[str, NDArray[Any]]


class OffloadAtFirst:
    """Offload at the first exit every input whose number, in the order of arrival there, is in ``numbers``."""

    def __init__(self, numbers: set[int]) -> None:
        self.numbers, self.seen = numbers, -1

    def decide(self, state: ExitState) -> ExitAction:
        if state.exit:
            return ExitAction.STAY
        self.seen += 1
        return ExitAction.OFFLOAD if self.seen in self.numbers else ExitAction.STAY


class Cloud:
    """A tier that computes rests with an executor of its own, once ``open`` is set, or two are there.

    ``most`` were there at a time.
    """

    address = "mqtt://cloud"

    def __init__(self, bundle: Path, fails: bool = False) -> None:
        self.executor, self.fails = load_executor(bundle), fails
        self.open, self.lock = threading.Event(), threading.Lock()
        self.present = self.most = 0

    def link(self, after_exit: int | None = None) -> LinkState:
        return LinkState(bandwidth_bytes_per_s=1e9, round_trip_s=1e-3)

    def wait(self, seconds: float) -> None:
        pass

    def complete(self, after_exit: int, tensors: Mapping[str, Any], within_s: float) -> RestAnswer:
        with self.lock:
            self.present += 1
            self.most = max(self.most, self.present)
            if self.present == 2:
                self.open.set()
        assert self.open.wait(PATIENCE_S)
        with self.lock:
            self.present -= 1
            if self.fails:
                return RestAnswer(problem="the hub is gone", sent_bytes=7)
            manifest = self.executor.manifest
            assert tensors.keys() == {*rest_inputs(manifest, after_exit)}
            held = dict(tensors)
            for index in range(manifest.exits[after_exit - 1].after_step + 1, len(manifest.steps)):
                with self.executor.step(index, again=False) as ready:
                    ready.run(held)
            outputs = {name: np.array(held[name]) for name in EXITS[after_exit:]}
            return RestAnswer(outputs=outputs, exit=len(EXITS), at=self.address)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def samples() -> list[Arrays]:
    return [{"x": x.astype(np.float32)} for x in np.random.default_rng(3).standard_normal((9, 1, WIDTH))]


def batched(manifest: Manifest) -> Manifest:
    return batch_manifest(manifest, 9)


def check(found: list[InferenceResult], executor: Executor, samples: list[Arrays]) -> None:
    """Compare all bits with those of whole inferences."""
    for result in found:
        assert result.error is None
        right = executor.run(samples[result.number])
        assert list(result.outputs) == list(EXITS)
        assert all(np.array_equal(result.outputs[name], right[name]) for name in EXITS)


@pytest.mark.parametrize("fails", [False, True], ids=["answered", "lost"])
@pytest.mark.parametrize("batch", [1, 9])
def test_the_device_goes_on_while_rests_are_away(
    batch: int, fails: bool, streaming_bundle: Path, samples: list[Arrays]
) -> None:
    """Every other rest goes up; two at a time. Results come in order, but for batches, with the whole model's bits."""
    cloud = Cloud(streaming_bundle, fails)
    control = ExitControl(cloud.executor.manifest, OffloadAtFirst({0, 2, 4, 6, 8}), tier=cloud)
    executor = load_executor(streaming_bundle, adapt=batched if batch > 1 else lambda manifest: manifest)
    engine = LocalEngine(executor, batch=batch, exits=control, most_away=2)
    results = list(engine.run(in_memory(samples)))
    assert cloud.most == 2
    assert batch > 1 or [result.number for result in results] == [*range(9)]
    check(results, cloud.executor, samples)
    for result in results:
        assert result.exit
        offload = result.exit.offload
        assert (offload is None) == bool(result.number % 2)
        assert offload is None or (offload.at, offload.problem) == (
            ("", "the hub is gone") if fails else (cloud.address, "")
        )
    assert control.offloads == (0 if fails else 5)
    engine.close()


def test_a_stream_computes_the_next_input_before_the_answer(streaming_bundle: Path, samples: list[Arrays]) -> None:
    """The tier answers once the second input has been computed here: without an overlap that would be never."""
    cloud = Cloud(streaming_bundle)
    policy = OffloadAtFirst({0})
    control = ExitControl(cloud.executor.manifest, policy, tier=cloud)
    engine = LocalEngine(load_executor(streaming_bundle), exits=control, most_away=2)

    def inputs() -> Any:
        for number, sample in enumerate(in_memory(samples[:3])):
            if number == 2:
                assert policy.seen == 1
                cloud.open.set()
            yield sample

    check(list(engine.run(inputs())), cloud.executor, samples)


def test_few_rests_are_away_at_a_time(streaming_bundle: Path) -> None:
    most, nbytes = most_away(load_executor(streaming_bundle).manifest)
    assert most == 4
    assert nbytes == 5 * (4 * WIDTH + 3 * 4 * 4 * 10)
