"""Run a bundle's schedule in this process, one input after the other or in batches.

What only batches need is imported only for a batch: it is 0.2 MB of the smallest budget.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import BudgetError, RoomError
from hyps.runtime.execution.engine import (
    ROOM_MARGIN_BYTES,
    EngineAnswer,
    EngineInput,
    InferenceResult,
    InputTensors,
    Observer,
    run_in_turn,
)
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.interface import OrtInterface, SessionOpener
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.library_memory import version_warning
from hyps.runtime.units import megabytes_down, megabytes_up

if TYPE_CHECKING:
    from hyps.runtime.exits.exit_control import ExitControl


class LocalEngine:
    """An `hyps.runtime.execution.engine.Engine` over one executor.

    It reads the next input only when the budget has room for it, and gives back the last outputs before it computes again.
    ``profile`` has each step measured. A ``batch`` of more than 1 reads the weights once for that many inputs; it needs an
    executor of a `batch_manifest`, and makes no difference where all weights stay in memory. ``is_tuned`` is false where the
    executor passes over the tuned partitions of its bundle, which gets a warning. ``exits`` decides where inferences end.
    Up to ``most_away`` of them are with the tier above while the next one computes here.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        repeat: int = 1,
        batch: int = 1,
        profile: bool = False,
        is_tuned: bool = True,
        exits: ExitControl | None = None,
        most_away: int = 0,
    ) -> None:
        self._executor, self._exits, self._most_away = executor, exits, most_away
        self._is_tuned = is_tuned
        self._repeat, self._profile = repeat, profile
        self._batch = 1
        if batch > 1 and executor.manifest.streams_weights:
            from hyps.runtime.bundle.batch_schedule import most_inputs

            self._batch = min(batch, most_inputs(executor.manifest))

    @classmethod
    def load(
        cls,
        bundle: Path,
        *,
        threads: int | None,
        verify: bool,
        custom_ops: Path | None,
        repeat: int,
        batch: int,
        profile: bool,
        interface: OrtInterface | None = None,
        is_tuned: bool = True,
        control: Callable[[Manifest], ExitControl | None] = lambda manifest: None,
        spared_bytes: int = 0,
    ) -> Self:
        """Open the bundle in a folder. Raises `RuntimeFault` as `load_executor` does.

        ``control`` returns what decides at the exits of the schedule. ``spared_bytes`` of the budget are for other things.
        """
        most_away = 0

        def adapted(manifest: Manifest) -> Manifest:
            nonlocal most_away
            if spared_bytes:
                manifest, most_away = _with_link(manifest, spared_bytes)
            if batch == 1:
                return manifest
            from hyps.runtime.bundle.batch_schedule import batch_manifest, most_inputs

            return batch_manifest(manifest, min(batch, most_inputs(manifest)))

        opener = _with_custom_ops(custom_ops) if custom_ops else None
        executor = load_executor(
            bundle,
            threads=threads,
            verify=verify,
            adapt=adapted,
            interface=interface,
            opener=opener,
            is_tuned=is_tuned,
        )
        follows = is_tuned or not read_manifest(bundle).tuned
        exits = control(executor.manifest)
        return cls(
            executor,
            repeat=repeat,
            batch=batch,
            profile=profile,
            is_tuned=follows,
            exits=exits,
            most_away=most_away if exits and exits.may_overlap else 0,
        )

    @property
    def manifest(self) -> Manifest:
        """The schedule, adapted to the batch."""
        return self._executor.manifest

    def run(self, inputs: Iterable[EngineInput], observer: Observer | None = None) -> Iterator[InferenceResult]:
        """Yield the result of each input; see `hyps.runtime.execution.engine.Engine.run`.

        A batch yields an input's result when the last step ran over it. Raises `RuntimeFault` for a faulty bundle.
        """
        observer, waiting, interface = observer or Observer(), iter(inputs), self._executor.interface
        observer.opened(self.manifest, self._executor.threads)
        if unplanned := version_warning(self.manifest, interface.version, interface.kind):
            observer.warning(unplanned)
        if not self._is_tuned:
            observer.warning("this is a tuned bundle, and --untuned runs it as it was compiled, which is slower")
        yield from self._batches(waiting, observer) if self._batch > 1 else self._in_turn(waiting, observer)
        if self._executor.outgrew_arena:
            observer.warning(
                "activations did not fit into the planned arena: this run was slower than planned, and kept its budget; "
                "compile with more --memory, or with --tier lean"
            )
        peak_bytes, budget_bytes = memory().peak_bytes, self.manifest.budget_bytes
        if peak_bytes > budget_bytes:
            exceeded = f"the peak of {megabytes_up(peak_bytes)} exceeded the budget of {megabytes_down(budget_bytes)}"
            observer.warning(exceeded if unplanned else f"{exceeded}: a bug; please report it")

    def close(self) -> None:
        """Give back the link to the tier above, if there is one; the memory is given back with the engine."""
        if self._exits:
            self._exits.close()

    def _in_turn(self, waiting: Iterator[EngineInput], observer: Observer) -> Iterator[InferenceResult]:
        def compute(tensors: InputTensors, repeats: bool) -> EngineAnswer:
            again = repeats or length_hint(waiting, 1) > 0  # a stream of unknown length is taken to go on
            exits = self._exits.begin() if self._exits else None
            outputs = self._executor.run(tensors, observer.step_done, again=again, profile=self._profile, exits=exits)
            return outputs, exits.report if exits else None

        if self._exits and self._most_away and self._repeat == 1 and not self._profile:
            from hyps.runtime.execution.overlap import OverlappedRuns

            runs = OverlappedRuns(self._executor, self._exits, observer, self._most_away)
            return runs.run(waiting, self._read, lambda: length_hint(waiting, 1) > 0)
        return run_in_turn(waiting, self._read, compute, observer, self._repeat)

    def _batches(self, waiting: Iterator[EngineInput], observer: Observer) -> Iterator[InferenceResult]:
        from hyps.runtime.execution.batch import run_batch

        if self._exits and self._most_away:
            from hyps.runtime.execution.spill import copied

            self._exits.overlap(self._most_away, copied)
        first = 0
        for source in waiting:
            group = itertools.chain((source,), itertools.islice(waiting, self._batch - 1))
            first += yield from run_batch(self._executor, group, observer, first=first, exits=self._exits)

    def _read(self, source: EngineInput) -> InputTensors:
        """Return an input's tensors; if they do not fit, make room and read once more."""
        try:
            return source.read(self.manifest, self._room_bytes)
        except RoomError:
            self._executor.make_room()
            return source.read(self.manifest, self._room_bytes)

    def _room_bytes(self) -> int:
        return self._executor.room_bytes() - ROOM_MARGIN_BYTES


def _with_link(manifest: Manifest, spared_bytes: int) -> tuple[Manifest, int]:
    """Return a schedule that spares so many bytes, and those of rests that are away, if possible; and how many may be."""
    from hyps.runtime.bundle.sub_bundle import with_less_memory
    from hyps.runtime.execution.overlap import most_away

    most, nbytes = most_away(manifest)
    with suppress(BudgetError):
        return with_less_memory(manifest, spared_bytes + nbytes), most
    return with_less_memory(manifest, spared_bytes), 0


def _with_custom_ops(library: Path) -> SessionOpener:
    from hyps.runtime.execution.session import open_session  # it imports numpy and onnxruntime

    return partial(open_session, custom_ops=library)
