"""Carry out a manifest's schedule: open each step's session, run it, release it and every tensor past its last use.

The executor knows nothing of shards or of the reasons for the cuts. The manifest says which step runs on which tensors,
which tensors to keep, and which weights stay in memory (`hyps.runtime.execution.weight_residency`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.bundle.spare_memory import enlarged_steps, spare_bytes
from hyps.runtime.device.available_memory import available_memory
from hyps.runtime.device.process_memory import CodePages, give_back_heap, memory
from hyps.runtime.errors import BudgetError, DeviceError
from hyps.runtime.execution.activation_arena import ActivationArena, claim_arena
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.execution.interface import ActivationArenaFull, OrtInterface, SessionOpener, default_interface
from hyps.runtime.execution.ready_step import ReadyStep
from hyps.runtime.execution.session_pool import SessionPool
from hyps.runtime.execution.step_profile import StepMeter, StepProfile
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.execution.weight_residency import NO_ENDS, WeightResidency
from hyps.runtime.execution.weights_check import WeightsCheck

if TYPE_CHECKING:
    from hyps.runtime.exits.exit_run import ExitRun

#: A model's outputs by name: numpy arrays, or a `RawTensor` each from onnxruntime's C interface.
Outputs = dict[str, TensorValue]
#: A session of fewer operators, and fewer tensors, leave less than 0.5 MB of the heap free between blocks in use.
_MANY = 32
#: The inferences that show what a process takes by the plan.
_MEASURED = 2


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
        self._bundle, self._opener, self._check = bundle, opener or self.interface.open_session, check
        self._arena: ActivationArena | None = None
        #: Whether activations did not fit into the planned arena.
        self.outgrew_arena = False
        self._is_alone = is_alone and manifest.streams_weights and not manifest.video
        #: The inferences that ran every step.
        self._inferences = self._spare_bytes = 0
        self._is_measured = False
        self._predicted_bytes = max(step.peak_bytes for step in manifest.steps)
        self._place(manifest.steps, verify=verify)
        self._first_session = next((index for index, step in enumerate(manifest.steps) if not step.rows), None)
        self._opened_before = 0
        uses = [step.session.uses_arena for step in manifest.steps]
        #: The steps with the arena that one without it follows.
        self._leaves_arena = {index for index, own in enumerate(uses) if own and not uses[(index + 1) % len(uses)]}
        self._code = CodePages()
        self.trim()
        self.interface.start()
        if manifest.activations:
            self._arena = claim_arena(self, manifest.activations, self.interface.register_arena)
            self._sessions.has_arena = self._arena is not None
        self.trim()

    def _place(self, steps: Sequence[Step], *, verify: bool) -> None:
        """Hold sessions and weights as these steps say; nothing is open or resident yet."""
        self._sessions = SessionPool(self._bundle, steps, self.threads, self._opener, verify=verify)
        self._sessions.has_arena = self.has_arena
        self._residency = WeightResidency(
            self._bundle,
            steps,
            huge=self.manifest.huge_pages,
            verify=verify,
            keep_cached=_is_available(self.manifest.budget_bytes + sum(step.read_bytes for step in self.manifest.steps)),
        )
        self._opened_before = 0

    def _use_spare_memory(self) -> None:
        """Before the third inference: keep more in memory where the first two took less than predicted.

        Files were checked by then. Should it have been too much, the next two inferences show it: then go back to the plan.
        Those that end at an exit show nothing, as the steps that take most may come after it.
        """
        if self._inferences == _MEASURED and not self._is_measured:
            self._is_measured = True
            self._spare_bytes = spare_bytes(self.manifest, memory().peak_bytes)
            if self._spare_bytes:
                self._place_again(enlarged_steps(self.manifest, self._spare_bytes))
        elif self._spare_bytes and self._inferences <= 2 * _MEASURED and memory().peak_bytes > self._predicted_bytes:
            self._keep_to_plan()

    def _keep_to_plan(self) -> None:
        """Hold from now on no more than the plan says."""
        if self._spare_bytes:
            self._place_again(self.manifest.steps)
        self._spare_bytes, self._is_alone = 0, False

    def _place_again(self, steps: Sequence[Step]) -> None:
        self._sessions.close()
        self._residency.close()
        self._place(steps, verify=False)

    @property
    def has_arena(self) -> bool:
        """Whether activations are in the arena that the manifest asks for."""
        return self._arena is not None

    def trim(self) -> None:
        """Give back the resident pages that no step needs (see `CodePages`)."""
        self._code.release()

    def room_bytes(self) -> int:
        """Return what is left of the budget between two inferences; bytes that are being read ahead count as resident."""
        pending = self._residency.pending_bytes()  # read first: pending bytes become resident, never the reverse
        self.trim()
        return self.manifest.budget_bytes - pending - memory().resident_bytes

    def make_room(self) -> None:
        """Give back, between two inferences, everything that can be read again."""
        self._keep_to_plan()
        self._residency.release()
        if self._arena:
            self._sessions.close()
            self._arena.renew()
        self.trim()

    def close(self) -> None:
        """Give back sessions, weights and code pages; the executor cannot run afterwards."""
        self._give_up_arena()
        self._residency.close()
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
        check_inputs(self.manifest, inputs)
        if self._is_alone:
            self._use_spare_memory()
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
        self._give_up_arena()  # the plan's estimate was too small: slower from now on, and within the budget
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
            meter = StepMeter(step.name, self._residency.hash_s) if profile else None
            with self.step(index, again=again, ends=ends) as ready:
                if meter:
                    meter.loaded(ready.loaded_at)
                run_s = ready.run(held)
                if meter:
                    meter.ran(run_s)
            is_over = exits is not None and self.ends(exits, index, held)
            if self._arena and (index in self._leaves_arena or (is_over and self._is_entered_without_arena(index))):
                self._arena.give_back(map(self.interface.place, held.values()))
            step_done(meter.profile() if meter else None)
            if is_over:
                self.end_early()
                break
        else:
            self._inferences += 1
        return self.outputs(held)

    def _is_entered_without_arena(self, index: int) -> bool:
        """Return whether step ``index`` has the arena, and the first step, which follows if a run ends here, has not."""
        return self.manifest.steps[index].session.uses_arena and not self.manifest.steps[0].session.uses_arena

    def end_early(self) -> None:
        """Stop reading ahead for steps that do not run."""
        self._residency.end()

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
        self._sessions.release_before(step)
        self._residency.enter(index, again=again, ends=ends)
        loaded_at = time.perf_counter()
        if index == self._first_session and not self._sessions.opened:
            self.trim()  # of code that read the input, and of what the caller did before
        try:
            ready = ReadyStep(self._sessions.get(index, self._residency.values(index)), step, loaded_at)
            if index == self._first_session and self._opened_before != self._sessions.opened:
                self._opened_before = self._sessions.opened
                self.trim()  # of code that opens sessions
            if self._check:
                self._check.finish()
                self._check = None
            yield ready
            ready.release()
        finally:
            self._residency.leave(index)
            if len(step.inputs) > _MANY or (len(step.operators) > _MANY and not step.session.stays_open):
                give_back_heap()

    def _give_up_arena(self) -> None:
        """Close all sessions; those opened from now on use no arena."""
        self._sessions.close()
        self._sessions.has_arena = False
        if self._arena:
            self._arena.close()
            self._arena = None
        give_back_heap()
        self.trim()

    def outputs(self, held: Mapping[str, TensorValue]) -> Outputs:
        """Return the model's outputs from the tensors that are held after the last step, or after an exit."""
        made = (output.name for output in self.manifest.outputs if output.name in held)
        return {name: self.interface.to_output(held[name]) for name in made}


def _is_available(nbytes: int) -> bool:
    """Return whether this many bytes are available; False where that is unknown."""
    try:
        return nbytes <= available_memory().available_bytes
    except DeviceError:
        return False
