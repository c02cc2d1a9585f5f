"""Compute the next inputs of a stream while the rests of earlier ones are with the tier above; keep the inputs' order.

Rests wait for their answers in memory of their own, which the budget was planned without: so there are few of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyps.runtime.bundle.exits import rest_inputs
from hyps.runtime.errors import InputError
from hyps.runtime.execution.engine import EngineInput, InferenceResult, InputTensors, Observer, failed, failed_run
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.spill import copied

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.exits.exit_control import ExitControl
    from hyps.runtime.exits.exit_run import ExitRun

#: The most rests that are away at a time, and the most bytes that they and the outputs so far take. For each of them, this
#: many results may wait for their turn.
_MOST, _MOST_BYTES, _RESULTS = 4, 8_000_000, 3


def most_away(manifest: Manifest) -> tuple[int, int]:
    """Return how many rests of a bundle's inferences may be away at a time, and the bytes that these take."""
    outputs = sum(manifest.tensors[output.name].nbytes for output in manifest.outputs)
    each = _RESULTS * outputs + max(
        (
            sum(manifest.tensors[name].nbytes for name in rest_inputs(manifest, number))
            for number in range(1, len(manifest.exits))
        ),
        default=0,
    )
    most = max(0, min(_MOST, _MOST_BYTES // max(1, each) - 1))
    return most, (most + 1) * each if most else 0  # one more is there before the oldest is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class _Away:
    """An input whose rest is away."""

    number: int
    name: str
    exits: ExitRun
    began: float


class OverlappedRuns:
    """The inferences of one stream through an executor, of which up to ``most`` wait for the tier above."""

    def __init__(self, executor: Executor, control: ExitControl, observer: Observer, most: int) -> None:
        self._executor, self._control, self._observer, self._most = executor, control, observer, most
        control.overlap(most, copied)

    def run(
        self, inputs: Iterable[EngineInput], read: Callable[[EngineInput], InputTensors], again: Callable[[], bool]
    ) -> Iterator[InferenceResult]:
        """Yield the results in the order of the inputs; ``again`` says whether another input follows."""
        waiting: deque[_Away | InferenceResult] = deque()
        for number, source in enumerate(inputs):
            waiting.append(self._begun(number, source, read, again))
            while waiting and (self._are_many(waiting) or _is_known(waiting[0])):
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _are_many(self, waiting: Collection[_Away | InferenceResult]) -> bool:
        away = sum(isinstance(each, _Away) for each in waiting)
        return away > self._most or len(waiting) > _RESULTS * self._most

    def _begun(
        self, number: int, source: EngineInput, read: Callable[[EngineInput], InputTensors], again: Callable[[], bool]
    ) -> _Away | InferenceResult:
        try:
            tensors = read(source)
        except InputError as error:
            return failed(number, source.name, error)
        began, exits = time.perf_counter(), self._control.begin(leaves=True)
        try:
            outputs = self._executor.run(tensors, self._observer.step_done, again=again(), exits=exits)
        except InputError as error:
            return failed_run(number, source.name, error)
        if exits.away:
            return _Away(number=number, name=source.name, exits=exits, began=began)
        self._observer.run_done()
        seconds = time.perf_counter() - began
        return InferenceResult(
            number=number, name=source.name, outputs=outputs, error=None, compute_s=seconds, exit=exits.report
        )

    def _result(self, begun: _Away | InferenceResult) -> InferenceResult:
        """Return a result; wait for the rest that is away, and compute that here where no answer comes."""
        if isinstance(begun, InferenceResult):
            return begun
        exits, number, name = begun.exits, begun.number, begun.name
        try:
            while exits.away:
                held, after_step = exits.away.held, exits.away.after_step
                if exits.returned(held):
                    outputs = self._executor.outputs(held)
                else:
                    outputs = self._executor.go_on(held, after_step, exits)
        except InputError as error:
            return failed_run(number, name, error)
        self._observer.run_done()
        seconds = time.perf_counter() - begun.began
        return InferenceResult(number=number, name=name, outputs=outputs, error=None, compute_s=seconds, exit=exits.report)


def _is_known(begun: _Away | InferenceResult) -> bool:
    return isinstance(begun, InferenceResult) or begun.exits.away is None or begun.exits.away.answer.done()
