"""A batch: every step runs over all inputs before the next is opened, so that weights are read once a batch.

Kaboubi, section 3.3.1.3 (Algorithm 3). What the inputs need later is kept in memory as far as the budget allows, and else in
a temporary file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec
from numpy.typing import NDArray

from hyps.runtime.errors import InputError
from hyps.runtime.executor import Executor, Outputs, check_inputs
from hyps.runtime.manifest import Manifest, Step
from hyps.runtime.sessions import Value
from hyps.runtime.spill import TensorStore


def batch_manifest(manifest: Manifest) -> Manifest:
    """The schedule for a batch: nothing is pinned, as weights are read once for all; the next step's are read ahead.

    A manifest whose weights all stay in memory is left as it is.
    """
    if not streams(manifest):
        return manifest
    steps: list[Step] = []
    ahead = 0
    for index in reversed(range(len(manifest.steps))):
        step, after = manifest.steps[index], manifest.steps[index + 1 : index + 2]
        if after and after[0].weights:
            ahead = after[0].weights.size_bytes
        ahead = min(ahead, manifest.budget_bytes - step.alone_bytes)
        changed = msgspec.structs.replace(
            step, pinned_bytes=0, ahead_bytes=ahead, kept=False, peak_bytes=manifest.budget_bytes
        )
        steps.append(changed)
    return msgspec.structs.replace(manifest, steps=tuple(reversed(steps)))


def streams(manifest: Manifest) -> bool:
    """Whether any weights are read for every inference."""
    return any(step.weights and step.pinned_bytes < step.weights.size_bytes for step in manifest.steps)


class Batch:
    """Runs inputs in groups through an executor of a `batch_manifest`."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._store = TensorStore()

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to the temporary file so far."""
        return self._store.spilled_bytes

    def make_room(self) -> None:
        """Give back what the inputs that were read before hold, to read another."""
        self._store.set_limit(0)
        self._executor.trim()

    def run(self, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[tuple[int, Outputs | InputError]]:
        """The outputs of each of ``inputs`` with its number, as soon as they are there; or why it could not be computed.

        An input is read when the first step gets to it. Raises as `Executor.run` does for what is wrong with all of them.
        """
        manifest = self._executor.manifest
        last = len(manifest.steps) - 1
        numbers: list[int] = []
        with closing(self._store):
            for index in range(len(manifest.steps)):
                arriving = self._arriving(numbers, inputs) if index == 0 else self._waiting(numbers)
                with self._executor.step(index, again=False) as run:
                    for number, held in arriving:
                        try:
                            run(held)
                        except InputError as error:
                            numbers.remove(number)
                            yield number, error
                            continue
                        if index == last:
                            yield number, self._executor.outputs(held)
                        else:
                            self._store.set_limit(self._room_bytes(manifest.steps[index]))
                            self._store.put(number, held)
                if index < last:
                    self._store.set_limit(self._room_bytes(manifest.steps[index + 1]))

    def _arriving(
        self, numbers: list[int], inputs: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[tuple[int, dict[str, Value]]]:
        for number, sample in enumerate(inputs):
            check_inputs(self._executor.manifest, sample)
            numbers.append(number)
            yield number, dict(sample)

    def _waiting(self, numbers: list[int]) -> Iterator[tuple[int, dict[str, Value]]]:
        for number in [*numbers]:
            yield number, self._store.take(number)

    def _room_bytes(self, step: Step) -> int:
        return self._executor.manifest.budget_bytes - step.alone_bytes - step.ahead_bytes
