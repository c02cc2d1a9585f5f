"""Carry out a manifest's schedule: open each step's session, run it, release it and every tensor past its last use.

The executor knows nothing of shards or of the reasons for the cuts. The manifest says which step runs on which tensors,
which tensors to keep, and which weights stay in memory (`hyps.runtime.execution.weight_residency`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.device.process_memory import CodePages, give_back_heap, memory
from hyps.runtime.errors import BudgetError
from hyps.runtime.execution.held_memory import HeldMemory
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.execution.interface import ActivationArenaFull, OrtInterface, SessionOpener, default_interface
from hyps.runtime.execution.ready_step import ReadyStep
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.execution.weight_residency import NO_ENDS
from hyps.runtime.execution.weights_check import WeightsCheck

if TYPE_CHECKING:
    from hyps.runtime.execution.step_profile import StepMeter, StepProfile
    from hyps.runtime.exits.exit_run import ExitRun

#: A model's outputs by name: numpy arrays, or a `RawTensor` each from onnxruntime's C interface.
Outputs = dict[str, TensorValue]
#: A session of fewer operators, and fewer tensors, leave less than 0.5 MB of the heap free between blocks in use.
_MANY = 32


class Executor:
    """A checked bundle that is ready to run in this process. Not thread-safe: it computes one inference at a time."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        interface: OrtInterface | None = None,
        opener: SessionOpener | None = None,
        verify: bool = True,
        is_alone: bool = False,
        check: WeightsCheck | None = None,
    ) -> None:
        """``is_alone``: nothing else in this process runs bundles, so that what it does not need is this one's.

        ``check`` is finished after the first session is opened, and before it runs.
        """
        if threads is not None and not 1 <= threads <= manifest.target.threads:
            raise BudgetError(
                f"--threads {threads}: the budget was planned for 1 to {manifest.target.threads} threads",
                "compile for a target with more cores, or with 'hypsc compile --threads'",
            )
        self.manifest = manifest
        self.threads = threads or min(manifest.target.threads, os.cpu_count() or 1)
        self.interface = interface or default_interface()
        self._check = check
        #: Whether activations did not fit into the planned arena.
        self.outgrew_arena = False
        #: The inferences that ran every step.
        self._inferences = 0
        self._memory = HeldMemory(
            bundle,
            manifest,
            self.threads,
            self.interface,
            opener or self.interface.open_session,
            verify=verify,
            is_alone=is_alone,
        )
        self._first_session = next((index for index, step in enumerate(manifest.steps) if not step.rows), None)
        #: The session pool, and the sessions it had opened, when code pages were given back last.
        self._trimmed_at = (self._memory.sessions, 0)
        uses = [step.session.uses_arena for step in manifest.steps]
        #: The steps with the arena that one without it follows.
        self._leaves_arena = {index for index, own in enumerate(uses) if own and not uses[(index + 1) % len(uses)]}
        first = manifest.steps[0]
        stays = first.session.stays_open and not first.streamed_bytes and not first.rows and len(first.inputs) <= _MANY
        #: Whether nothing is opened, read or given back once the first inference has run.
        self._is_one_open_step = len(manifest.steps) == 1 and stays
        self._code = CodePages()
        self.trim()
        self.interface.start()
        self._memory.claim_arena()
        self.trim()

    @property
    def has_arena(self) -> bool:
        """Whether activations are in the arena that the manifest asks for."""
        return self._memory.arena is not None

    def trim(self) -> None:
        """Give back the resident pages that no step needs (see `CodePages`)."""
        self._code.release()

    def room_bytes(self) -> int:
        """Return what is left of the budget between two inferences; bytes that are being read ahead count as resident."""
        pending = self._memory.residency.pending_bytes()  # read first: pending bytes become resident, never the reverse
        self.trim()
        return self.manifest.budget_bytes - pending - memory().resident_bytes

    def make_room(self) -> None:
        """Give back, between two inferences, everything that can be read again."""
        self._memory.give_back()
        self.trim()

    def close(self) -> None:
        """Give back sessions, weights and code pages; the executor cannot run afterwards."""
        self._memory.close()
        self.trim()

    def run(
        self,
        inputs: Mapping[str, TensorValue],
        step_done: Callable[[StepProfile | None], None] = lambda _: None,
        *,
        again: bool = False,
        profile: bool = False,
        exits: ExitRun | None = None,
    ) -> Outputs:
        """Return the model's outputs by name, computed from its ``inputs`` by name.

        With ``exits`` the run may end at one of them. Then nothing after it is opened, read or run, and the outputs are
        those that were made by then.

        ``step_done`` is called after each step, with its profile if ``profile`` asks for measurements (three reads of
        ``/proc`` a step), else with None. ``again`` announces another inference: its first weights are then read while the
        last step runs. Raises `InputError` for a missing or unknown input, another dtype or another shape.
        """
        if self._memory.sessions.direct and not profile and exits is None:
            with suppress(ActivationArenaFull):
                if (direct := self._memory.sessions.direct.run(inputs)) is not None:
                    step_done(None)
                    return direct
        check_inputs(self.manifest, inputs)
        self._memory.use_spare(self._inferences)
        return self._within_arena(partial(self._run, inputs, step_done, again=again, profile=profile, exits=exits))

    def go_on(self, held: Mapping[str, TensorValue], after_step: int, exits: ExitRun, *, again: bool = False) -> Outputs:
        """Return the outputs of an inference that goes on behind a step, with these tensors; see `run`."""
        return self._within_arena(
            partial(self._run, held, lambda _: None, again=again, profile=False, exits=exits, first=after_step + 1)
        )

    def _within_arena(self, run: Callable[[], Outputs]) -> Outputs:
        """Run, and run again without the arena where activations do not fit into it."""
        with suppress(ActivationArenaFull):
            return run()
        self.outgrew_arena = True
        self._memory.give_up_arena()  # the plan's estimate was too small: slower from now on, and within the budget
        self.trim()
        return run()

    def _run(
        self,
        inputs: Mapping[str, TensorValue],
        step_done: Callable[[StepProfile | None], None],
        *,
        again: bool,
        profile: bool,
        exits: ExitRun | None,
        first: int = 0,
    ) -> Outputs:
        ends = exits.early if exits else NO_ENDS
        held: dict[str, TensorValue] = dict(inputs)
        for index, step in enumerate(self.manifest.steps[first:], start=first):
            meter = self._meter(step) if profile else None
            with self.step(index, again=again, ends=ends) as ready:
                if meter:
                    meter.loaded(ready.loaded_at)
                run_s = ready.run(held)
                if meter:
                    meter.ran(run_s)
            is_over = exits is not None and self.ends(exits, index, held)
            if self._memory.arena and (index in self._leaves_arena or (is_over and self._is_entered_without_arena(index))):
                self._memory.arena.give_back(map(self.interface.place, held.values()))
            step_done(meter.profile() if meter else None)
            if is_over:
                self.end_early()
                break
        else:
            self._inferences += 1
            if self._is_one_open_step and self.interface.direct_run:
                session = self._memory.sessions.get(0, self._memory.residency.values(0))
                self._memory.sessions.direct = self.interface.direct_run(session, self.manifest, inputs)
        return self.outputs(held)

    def _meter(self, step: Step) -> StepMeter:
        from hyps.runtime.execution.step_profile import StepMeter  # only a profile needs it

        return StepMeter(step.name, self._memory.residency.hash_s)

    def _is_entered_without_arena(self, index: int) -> bool:
        """Return whether step ``index`` has the arena, and the first step, which follows if a run ends here, has not."""
        return self.manifest.steps[index].session.uses_arena and not self.manifest.steps[0].session.uses_arena

    def end_early(self) -> None:
        """Stop reading ahead for steps that do not run."""
        self._memory.residency.end()

    def ends(self, exits: ExitRun, index: int, held: dict[str, TensorValue]) -> bool:
        """Return whether an inference ends after step ``index``, with these tensors in memory.

        Where another tier computed the rest, its outputs are among them then.
        """
        return index in exits.places and exits.ends(index, self.interface.to_output(held[exits.places[index]]), held)

    @contextmanager
    def step(self, index: int, *, again: bool, ends: Mapping[int, bool] = NO_ENDS) -> Iterator[ReadyStep]:
        """Make one step ready to run on the tensors of any number of inferences.

        ``again`` announces that the first step follows the last. ``ends`` are the steps after which a run may end, and
        whether it is likely to.
        """
        step = self.manifest.steps[index]
        sessions = self._memory.sessions
        sessions.release_before(step)
        self._memory.residency.enter(index, again=again, ends=ends)
        loaded_at = time.perf_counter()
        if index == self._first_session and not sessions.opened:
            self.trim()  # of code that read the input, and of what the caller did before
        try:
            ready = ReadyStep(sessions.get(index, self._memory.residency.values(index)), step, loaded_at)
            if index == self._first_session and self._trimmed_at != (sessions, sessions.opened):
                self._trimmed_at = (sessions, sessions.opened)
                self.trim()  # of code that opens sessions
            if self._check:
                self._check.finish()
                self._check = None
            yield ready
            ready.release()
        finally:
            self._memory.residency.leave(index)
            if len(step.inputs) > _MANY or (len(step.operators) > _MANY and not step.session.stays_open):
                give_back_heap()

    def outputs(self, held: Mapping[str, TensorValue]) -> Outputs:
        """Return the model's outputs from the tensors that are held after the last step, or after an exit."""
        made = (output.name for output in self.manifest.outputs if output.name in held)
        return {name: self.interface.to_output(held[name]) for name in made}
