"""Run a batch: every step runs over all inputs before the next is opened, so that weights are read once for the batch.

Kaboubi, section 3.3.1.3 (Algorithm 3). Tensors that wait for a later step are kept in memory as far as the budget allows,
else in a temporary file. `hyps.runtime.bundle.batch_schedule` adapts the schedule.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hyps.runtime.bundle.batch_schedule import waiting_room_bytes
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import Executor, Outputs, check_inputs
from hyps.runtime.execution.session import TensorValue
from hyps.runtime.execution.spill import TensorStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """The result of the input with this number: its outputs or the error, and the seconds spent on computing it."""

    number: int
    outputs: Outputs
    error: InputError | None
    compute_s: float


class Batch:
    """Runs inputs in groups through an executor of a `batch_manifest`; ``advance`` is told of each step of each input."""

    def __init__(self, executor: Executor, advance: Callable[[], None] = lambda: None) -> None:
        self._executor = executor
        self._advance = advance
        self._store = TensorStore()

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to the temporary file so far."""
        return self._store.spilled_bytes

    def make_room(self) -> None:
        """Give back what the inputs that were read before hold, to read another."""
        self._store.set_limit(0)
        self._executor.trim()

    def stream(self, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[StreamResult]:
        """What becomes of each of ``inputs``, as soon as it is known; an input is read when the first step gets to it.

        Raises as `Executor.run` does for what is wrong with the bundle.
        """
        manifest = self._executor.manifest
        last = len(manifest.steps) - 1
        seconds: dict[int, float] = {}
        with closing(self._store):
            for index, step in enumerate(manifest.steps):
                room_bytes = waiting_room_bytes(manifest, step)
                self._store.set_limit(room_bytes)
                with self._executor.step(index, again=False) as run:
                    for number, held in self._arriving(inputs, seconds) if index == 0 else self._waiting(seconds):
                        started = time.perf_counter()
                        try:
                            run(held)
                        except InputError as error:
                            yield StreamResult(number=number, outputs={}, error=error, compute_s=seconds.pop(number))
                            continue
                        seconds[number] += time.perf_counter() - started
                        self._advance()
                        if index == last:
                            outputs = self._executor.outputs(held)
                            yield StreamResult(number=number, outputs=outputs, error=None, compute_s=seconds[number])
                        else:
                            self._store.set_limit(room_bytes)
                            self._store.put(number, held)

    def _arriving(
        self, inputs: Iterable[Mapping[str, NDArray[Any]]], seconds: dict[int, float]
    ) -> Iterator[tuple[int, dict[str, TensorValue]]]:
        for number, sample in enumerate(inputs):
            check_inputs(self._executor.manifest, sample)
            seconds[number] = 0.0
            yield number, dict(sample)

    def _waiting(self, seconds: Iterable[int]) -> Iterator[tuple[int, dict[str, TensorValue]]]:
        for number, after in itertools.zip_longest([*seconds], [*seconds][1:]):
            tensors = self._store.take(number)
            if after is not None:
                self._store.expect(after)
            yield number, tensors
