"""Which weights are in memory while a step runs: the pinned ones, its own, and what is being read ahead of the next.

The manifest says for every step how many bytes of its weights are *pinned* (read once, never given back) and how many bytes
of the next step's may be there while it runs. A thread reads those ahead, so that storage and processor work at the same
time; the rest follows when the step's turn comes. Pinned bytes have their place in the budget from the beginning: they are
read ahead without a limit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import onnxruntime as ort

from hyps.runtime.bundle.manifest import Step
from hyps.runtime.execution.weight_buffers import HUGE_PAGE_BYTES, WeightBuffer, buffer_layout, gaps
from hyps.runtime.execution.weight_loader import StepWeights


class WeightResidency:
    """All weights of a bundle. `enter` a step before it runs, `leave` it behind; in the order of the steps."""

    def __init__(
        self,
        bundle: Path,
        steps: Sequence[Step],
        budget_bytes: int,
        *,
        huge: bool = False,
        steady: bool = False,
        verify: bool = True,
        keep_cached: bool = True,
    ) -> None:
        self._steps = steps
        self._budget_bytes = budget_bytes
        self._ahead: _Ahead | None = None
        self._reader: _Reader | None = None
        self._steady = steady
        self._unit = HUGE_PAGE_BYTES if huge else 1
        streamed = [index for index, step in enumerate(steps) if step.weights and not step.pinned_bytes]
        sizes = [record.size_bytes for index in streamed if (record := steps[index].weights)]
        placed = buffer_layout(sizes, [steps[index].ahead_bytes > 0 for index in streamed], huge=huge)
        self._arena = WeightBuffer(placed.nbytes, huge=huge) if streamed else None
        starts = dict(zip(streamed, placed.starts, strict=True))
        self._weights: Mapping[int, StepWeights] = {
            index: StepWeights(
                bundle,
                step,
                step.weights,
                self._arena if self._arena and index in starts else WeightBuffer(step.weights.size_bytes, huge=huge),
                starts.get(index, 0),
                verify=verify,
                keep_cached=keep_cached,
            )
            for index, step in enumerate(steps)
            if step.weights
        }

    def values(self, index: int) -> dict[str, ort.OrtValue]:
        """The weights of a step as onnxruntime values; they hold what they should from `enter` to `leave`."""
        weights = self._weights.get(index)
        return weights.values() if weights else {}

    def enter(self, index: int, *, again: bool) -> None:
        """Make the weights of a step resident, and read beside it what comes next: two readers are faster than one.

        ``again``: the first step follows behind the last. Raises `BundleError` for what cannot be read or was changed.
        """
        self._stop_reading()
        following = list(self._following(index, again=again))
        for each, stop in following:  # more may be there, which has no room beside this step
            each.filled = min(each.filled, stop)
        self._trim(index, following)
        weights = self._weights.get(index)
        kept = {id(weights), *(id(each) for each, _ in following)}
        for other in self._weights.values():  # what is read from here on may overwrite them
            if other.buffer is self._arena and id(other) not in kept:
                other.filled = 0
        if any(each.filled < stop for each, stop in following):
            if self._reader is None:
                self._reader = _Reader()
                weakref.finalize(self, self._reader.tasks.put, None)
            self._ahead = _Ahead(self._reader, following)
        if weights:
            weights.fetch(weights.nbytes)

    def leave(self, index: int) -> None:
        """What is not pinned of a step's weights may be overwritten from now on."""
        if weights := self._weights.get(index):
            weights.give_back()

    def release(self) -> None:
        """Give back everything that can be read again, to make room for something else."""
        self._stop_reading()
        for weights in self._weights.values():
            weights.give_back()
        if self._arena:
            self._arena.release(0, self._arena.nbytes)

    def pending_bytes(self) -> int:
        """Bytes that are still being read ahead."""
        return self._ahead.pending_bytes() if self._ahead else 0

    def _following(self, index: int, *, again: bool) -> Iterator[tuple[StepWeights, int]]:
        """What may be read while step ``index`` runs: pinned bytes up to the next streamed step, and of that so many."""
        order = [*range(index + 1, len(self._steps)), *(range(index) if again else ())]
        for weights in (self._weights[other] for other in order if other in self._weights):
            if weights.streamed_bytes:
                yield weights, weights.pinned_bytes + min(self._steps[index].ahead_bytes, weights.streamed_bytes)
                return
            yield weights, weights.nbytes

    def _trim(self, index: int, following: Sequence[tuple[StepWeights, int]]) -> None:
        """Give back what older steps left in the arena, where the budget has no room for it."""
        if self._arena is None or self._steady:
            return
        own = self._weights.get(index)
        kept = [*((each, stop) for each, stop in following), *([(own, own.nbytes)] if own else [])]
        ranges = [(each.start, each.start + stop) for each, stop in kept if each.buffer is self._arena]
        left = list(gaps(self._arena.nbytes, ranges, self._unit))
        if self._steps[index].peak_bytes + sum(stop - start for start, stop in left) > self._budget_bytes:
            for start, stop in left:
                self._arena.release(start, stop)

    def _stop_reading(self) -> None:
        if self._ahead:
            ahead, self._ahead = self._ahead, None
            ahead.stop()


class _Ahead:
    """Reads (weights, up to so many bytes) one after the other on the reader's thread, until stopped."""

    def __init__(self, reader: _Reader, wanted: Sequence[tuple[StepWeights, int]]) -> None:
        self._wanted = wanted
        self._cancelled, self._done = Event(), Event()
        self._error: Exception | None = None
        reader.tasks.put(self._read)

    def _read(self) -> None:
        try:
            for weights, stop in self._wanted:
                weights.fetch(stop, self._cancelled)
        except Exception as error:  # raised where it is waited for
            self._error = error
        finally:
            self._done.set()

    def pending_bytes(self) -> int:
        """What is left to read."""
        return sum(max(0, stop - weights.filled) for weights, stop in self._wanted)

    def stop(self) -> None:
        """Stop after the block that is being read; raises what went wrong."""
        self._cancelled.set()
        self._done.wait()
        if self._error:
            raise self._error


class _Reader(Thread):
    """One thread for all that is read ahead: to start one for every step took VGG16 in 72 MB a twentieth of its time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Do what is asked for (called by the thread), until that is None."""
        while task := self.tasks.get():
            task()
