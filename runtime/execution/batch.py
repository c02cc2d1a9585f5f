"""A batch: every step runs over all inputs before the next is opened, so that weights are read once a batch.

Kaboubi, section 3.3.1.3 (Algorithm 3). What the inputs need later is kept in memory as far as the budget allows, and else in
a temporary file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import Executor, Outputs, check_inputs
from hyps.runtime.execution.session import TensorValue
from hyps.runtime.execution.spill import SET_BYTES, TensorStore

#: Inputs of a batch that is never refused.
_FEW = 64
#: Kept free of the budget: a process's size varies a little from run to run, and a batch would fill every byte.
_MARGIN_BYTES = 3_000_000


def most_inputs(manifest: Manifest) -> int:
    """How many inputs a batch may have: more would not fit even if all their tensors went to the temporary file.

    A few are always allowed; what they take (32 KB) is less than a process's size varies by.
    """
    room_bytes = manifest.budget_bytes - max(step.alone_bytes for step in manifest.steps)
    return max(_FEW, room_bytes // SET_BYTES)


def batch_manifest(manifest: Manifest, count: int) -> Manifest:
    """The schedule for a batch of ``count`` inputs: nothing is pinned, as weights are read once for all.

    The next step's are read ahead. A manifest whose weights all stay in memory is left as it is.
    """
    if not streams(manifest):
        return manifest
    steps: list[Step] = []
    ahead = 0
    for index in reversed(range(len(manifest.steps))):
        step, after = manifest.steps[index], manifest.steps[index + 1 : index + 2]
        if after and after[0].weights:
            ahead = after[0].weights.size_bytes
        ahead = max(0, min(ahead, manifest.budget_bytes - step.alone_bytes - SET_BYTES * count - _MARGIN_BYTES))
        changed = msgspec.structs.replace(
            step, pinned_bytes=0, ahead_bytes=ahead, kept=False, peak_bytes=manifest.budget_bytes
        )
        steps.append(changed)
    return msgspec.structs.replace(manifest, steps=tuple(reversed(steps)), huge_pages=False, steady=False)


def streams(manifest: Manifest) -> bool:
    """Whether any weights are read for every inference."""
    return any(step.weights and step.pinned_bytes < step.weights.size_bytes for step in manifest.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """What became of the input with this number: its outputs, or why there are none; seconds of its own computing."""

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
                leaving_bytes = sum(manifest.tensors[name].nbytes for name in step.live)
                copying_bytes = max(0, 2 * leaving_bytes - step.activation_bytes)
                room_bytes = manifest.budget_bytes - step.alone_bytes - step.ahead_bytes - copying_bytes - _MARGIN_BYTES
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
