"""Run a batch: each step runs over all inputs before the next step opens, so that weights are read once per batch.

This is Algorithm 3 of Kaboubi, section 3.3.1.3. Tensors that later steps need stay in memory as far as the budget allows;
the others go to a temporary file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyps.runtime.bundle.batch_schedule import waiting_room_bytes
from hyps.runtime.errors import InputError, RoomError
from hyps.runtime.execution.engine import (
    ROOM_MARGIN_BYTES,
    EngineInput,
    GroupTiming,
    InferenceResult,
    InputTensors,
    Observer,
    failed,
    failed_run,
)
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.ready_step import ReadyStep
from hyps.runtime.execution.spill import TensorStore
from hyps.runtime.execution.tensor import TensorValue

if TYPE_CHECKING:
    from hyps.runtime.exits.exit_control import ExitControl
    from hyps.runtime.exits.exit_run import ExitRun


def run_batch(
    executor: Executor,
    inputs: Iterable[EngineInput],
    observer: Observer | None = None,
    *,
    first: int = 0,
    exits: ExitControl | None = None,
) -> Generator[InferenceResult, None, int]:
    """Run inputs as one batch through an executor of a `batch_manifest`; number them from ``first`` and return their count.

    Each result is yielded as soon as it is known: at an exit, where ``exits`` ends the inference there. An input is read
    when the first step gets to it. Raises what `Executor.run` raises for a faulty bundle.
    """
    observer = observer or Observer()
    batch, started = _Batch(executor, observer, exits), time.perf_counter()
    yield from batch.run(inputs, first)
    seconds = time.perf_counter() - started
    if batch.count:
        observer.group_done(GroupTiming(count=batch.count, seconds=seconds, spilled_bytes=batch.store.spilled_bytes))
    return batch.taken


@dataclass(slots=True)
class _Pending:
    """An input between two steps: its name, and the seconds that its own steps took so far."""

    name: str
    exits: ExitRun | None
    compute_s: float = 0.0


class _Batch:
    """Inputs that go through the steps together; ``taken`` of them were taken from the stream, ``count`` could be read."""

    def __init__(self, executor: Executor, observer: Observer, exits: ExitControl | None) -> None:
        self._executor, self._observer, self._exits = executor, observer, exits
        self._last = len(executor.manifest.steps) - 1
        self._pending: dict[int, _Pending] = {}
        self.store = TensorStore()
        self.taken = self.count = 0

    def run(self, inputs: Iterable[EngineInput], first: int) -> Iterator[InferenceResult]:
        """Run every step over all inputs before the next step is opened; end when no input is left."""
        with closing(self.store):
            for index, step in enumerate(self._executor.manifest.steps):
                if index:
                    yield from self._returned()
                if index and not self._pending:
                    self._executor.end_early()
                    break
                room_bytes = waiting_room_bytes(self._executor.manifest, step)
                self.store.set_limit(room_bytes)
                with self._executor.step(index, again=False) as ready:
                    for item in self._arriving(inputs, first) if index == 0 else self._waiting():
                        result = (
                            item if isinstance(item, InferenceResult) else self._advance(*item, index, ready, room_bytes)
                        )
                        if result:
                            yield result

    def _arriving(
        self, inputs: Iterable[EngineInput], first: int
    ) -> Iterator[tuple[int, dict[str, TensorValue]] | InferenceResult]:
        """Read the inputs one by one; yield a failed result for one that cannot be read."""
        for source in inputs:
            number = first + self.taken
            self.taken += 1
            try:
                tensors = dict(self._read(source))
            except InputError as error:
                yield failed(number, source.name, error)
                continue
            self.count += 1
            leaves = self._exits is not None and self._exits.is_overlapped
            self._pending[number] = _Pending(source.name, self._exits.begin(leaves=leaves) if self._exits else None)
            yield number, tensors

    def _read(self, source: EngineInput) -> InputTensors:
        """Return an input's tensors; if they do not fit, make room and read once more."""
        try:
            return source.read(self._executor.manifest, self._free_bytes)
        except RoomError:
            self.store.set_limit(0)
            self._executor.trim()
            return source.read(self._executor.manifest, self._free_bytes)

    def _free_bytes(self) -> int:
        return self._executor.room_bytes() - ROOM_MARGIN_BYTES

    def _waiting(self) -> Iterator[tuple[int, dict[str, TensorValue]]]:
        """Take the inputs back from the store, while the kernel reads the next one's tensors."""
        numbers = [*self._pending]
        for number, following in itertools.zip_longest(numbers, numbers[1:]):
            tensors = self.store.take(number)
            if following is not None:
                self.store.expect(following)
            yield number, tensors

    def _advance(
        self, number: int, held: dict[str, TensorValue], index: int, ready: ReadyStep, room_bytes: int
    ) -> InferenceResult | None:
        """Run a step on one input; return its result if it is done or failed, else keep its tensors for the next step."""
        pending = self._pending[number]
        if pending.exits and pending.exits.away and pending.exits.returned(held):
            return self._result(number, held)
        started = time.perf_counter()
        try:
            ready.run(held)
        except InputError as error:
            del self._pending[number]
            return failed_run(number, pending.name, error, pending.compute_s)
        pending.compute_s += time.perf_counter() - started
        self._observer.step_done(None)
        is_over = pending.exits is not None and self._executor.ends(pending.exits, index, held)
        away = pending.exits.away if pending.exits else None
        if (is_over and not away) or index == self._last:
            return self._result(number, held)
        self.store.set_limit(room_bytes)
        self.store.put(number, held)
        if away:
            away.held.clear()  # the store has it
        return None

    def _result(self, number: int, held: dict[str, TensorValue]) -> InferenceResult:
        """Return the result of an input that is done."""
        pending = self._pending.pop(number)
        return InferenceResult(
            number=number,
            name=pending.name,
            outputs=self._executor.outputs(held),
            error=None,
            compute_s=pending.compute_s,
            exit=pending.exits.report if pending.exits else None,
        )

    def _returned(self) -> Iterator[InferenceResult]:
        """Wait for the rests that are away if no other input is left, so that no step is opened for them in vain."""
        if not all(each.exits and each.exits.away for each in self._pending.values()):
            return
        for number, held in self._waiting():
            exits = self._pending[number].exits
            assert exits
            if exits.returned(held):
                yield self._result(number, held)
            else:
                self.store.put(number, held)
