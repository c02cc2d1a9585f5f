"""Bring weights into memory as the steps need them: the pinned ones, the step's own, and the next step's, read ahead.

The manifest says for every step how many bytes of its weights are *pinned* (read once, never given back), and how many
bytes of the next step's may be in memory while it runs. A thread reads those ahead, so that storage and processor work at
the same time; the rest is read when the step's turn comes. Pinned bytes have their place in the budget from the beginning,
so they are read ahead without a limit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import MappingProxyType

from hyps.runtime.bundle.manifest import Step
from hyps.runtime.execution.tensor import RawTensor
from hyps.runtime.execution.weight_loader import StepWeights

#: Of a run that ends after the last step.
NO_ENDS: Mapping[int, bool] = MappingProxyType({})


class WeightResidency:
    """All weights of a bundle but those that onnxruntime reads itself.

    Call `enter` before a step runs and `leave` after it, in the order of the steps.
    """

    def __init__(
        self,
        bundle: Path,
        steps: Sequence[Step],
        *,
        huge: bool = False,
        verify: bool = True,
        keep_cached: bool = True,
    ) -> None:
        self._steps = steps
        self._reading: _ReadAhead | None = None
        self._reader: _Reader | None = None
        #: What the step that was entered last lets be in memory besides its own.
        self._following: Sequence[_Target] = ()
        self._weights: Mapping[int, StepWeights] = {
            index: StepWeights(bundle, step, step.weights, huge=huge, verify=verify, keep_cached=keep_cached)
            for index, step in enumerate(steps)
            if step.weights and not step.session.is_stock
        }

    def values(self, index: int) -> dict[str, RawTensor]:
        """Return a step's weights by name; their content is valid from `enter` to `leave`."""
        weights = self._weights.get(index)
        return weights.values() if weights else {}

    def enter(self, index: int, *, again: bool, ends: Mapping[int, bool] = NO_ENDS) -> None:
        """Make a step's weights resident while a thread starts on what follows: two readers are faster than one.

        With ``again`` the first step follows the last. The run may end after each of the steps ``ends``. What follows one is
        read before only if the plan reads ahead there, and not where it is likely to end (True). Raises `BundleError` for a
        file that cannot be read or was changed.
        """
        if not self._weights:
            return
        self._stop_reading()
        weights = self._weights.get(index)
        following = list(self._targets(index, again=again, ends=ends))
        stops = {id(each.weights): each.stop for each in following}
        for each in self._following:  # an interrupted inference may have left more than there is room for during this step
            if each.weights is not weights:
                each.weights.keep(stops.get(id(each.weights), 0))
        self._following = following
        if any(each.missing_bytes for each in following):
            if self._reader is None:
                self._reader = _Reader()
                weakref.finalize(self, self._reader.tasks.put, None)
            self._reading = _ReadAhead(self._reader, following)
        if weights:
            weights.fetch(weights.nbytes)

    def leave(self, index: int) -> None:
        """Give back the weights of a step that are not pinned."""
        if weights := self._weights.get(index):
            weights.keep(0)

    def end(self) -> None:
        """Stop reading ahead, and give back what was read for steps that do not run: the run ended before them."""
        with suppress(Exception):  # of weights that this run does not need
            self._stop_reading()
        for each in self._following:
            each.weights.keep(0)
        self._following = ()

    def release(self) -> None:
        """Give back everything that can be read again, to make room for something else."""
        self._stop_reading()
        for weights in self._weights.values():
            weights.keep(0)

    def close(self) -> None:
        """Give back all buffers, and wait for the thread that refers to them; no step can be entered afterwards."""
        with suppress(Exception):  # of weights that nobody needs any more
            self._stop_reading()
        if self._reader:
            self._reader.tasks.put(None)
            self._reader.join()
        self._weights, self._following, self._reader = {}, (), None

    def pending_bytes(self) -> int:
        """Return the bytes that are still to be read ahead."""
        return self._reading.pending_bytes() if self._reading else 0

    def hash_s(self) -> float:
        """Return the seconds that threads have spent on checking weights."""
        return sum(weights.hash_s for weights in self._weights.values())

    def _targets(self, index: int, *, again: bool, ends: Mapping[int, bool]) -> Iterator[_Target]:
        """Yield what may be read while step ``index`` runs: all up to the next streamed step, and a part of that one."""
        order = [*range(index + 1, len(self._steps)), *(range(index) if again else ())]
        is_planned = self._steps[index].ahead_bytes > 0
        if stops := [end for end, is_likely in ends.items() if end >= index and (is_likely or not is_planned)]:
            order = [*range(index + 1, min(stops) + 1)]
        for weights in (self._weights[other] for other in order if other in self._weights):
            if weights.streamed_bytes:
                ahead_bytes = min(self._steps[index].ahead_bytes, weights.streamed_bytes)
                stop = weights.reachable(weights.pinned_bytes + ahead_bytes)
                yield _Target(weights=weights, stop=max(weights.pinned_bytes, stop))
                return
            yield _Target(weights=weights, stop=weights.nbytes)

    def _stop_reading(self) -> None:
        if self._reading:
            reading, self._reading = self._reading, None
            reading.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Weights to read ahead, up to the byte ``stop`` of their file."""

    weights: StepWeights
    stop: int

    @property
    def missing_bytes(self) -> int:
        """The bytes that are not in memory yet."""
        return max(0, self.stop - self.weights.filled)


class _ReadAhead:
    """One order to the reader's thread: its targets one after the other, until it is stopped."""

    def __init__(self, reader: _Reader, targets: Sequence[_Target]) -> None:
        self._targets = targets
        self._cancelled, self._done = Event(), Event()
        self._error: Exception | None = None
        reader.tasks.put(self._read)

    def _read(self) -> None:
        try:
            for target in self._targets:
                target.weights.fetch(target.stop, self._cancelled)
        except Exception as error:  # `stop` raises it
            self._error = error
        finally:
            self._done.set()

    def pending_bytes(self) -> int:
        """Return the bytes that are still to be read."""
        return sum(target.missing_bytes for target in self._targets)

    def stop(self) -> None:
        """Stop after the block that is being read; raise what went wrong on the thread."""
        self._cancelled.set()
        self._done.wait()
        if self._error:
            raise self._error


class _Reader(Thread):
    """The one thread that reads ahead; a new thread for each step took a twentieth of VGG16's time in 72 MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Carry out tasks until one is None; the thread calls this."""
        while task := self.tasks.get():
            task()
