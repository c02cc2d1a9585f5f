"""Hold what one executor keeps in memory between steps: open sessions, resident weights, and the arena of activations.

The manifest says what stays. A process that is alone on its budget keeps more, once it has shown that it takes less than was
predicted. Everything here can be given back: it is opened or read again when a step needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.device.process_memory import give_back_heap, memory
from hyps.runtime.errors import DeviceError
from hyps.runtime.execution.activation_arena import ActivationArena, claim_arena
from hyps.runtime.execution.interface import OrtInterface, SessionOpener
from hyps.runtime.execution.session_pool import SessionPool
from hyps.runtime.execution.weight_residency import WeightResidency

#: The inferences that show what a process takes by the plan.
_MEASURED = 2


class HeldMemory:
    """The ``sessions``, the weights (``residency``) and the ``arena`` of a bundle; the arena is None without one."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        threads: int,
        interface: OrtInterface,
        opener: SessionOpener,
        *,
        verify: bool,
        is_alone: bool,
    ) -> None:
        """``is_alone``: nothing else in this process runs bundles, so that what it does not need is this one's."""
        self._bundle, self._manifest, self._threads, self._interface = bundle, manifest, threads, interface
        self._opener = opener
        self._is_alone = is_alone and manifest.streams_weights and not manifest.video
        self._spare_bytes = 0
        #: Whether it is known how much the process takes by the plan.
        self.is_measured = False
        self.arena: ActivationArena | None = None
        self._place(manifest.steps, verify=verify)

    def _place(self, steps: Sequence[Step], *, verify: bool) -> None:
        """Hold sessions and weights as these steps say; nothing is open or resident yet."""
        budget_bytes = self._manifest.budget_bytes + sum(step.read_bytes for step in self._manifest.steps)
        self.sessions = SessionPool(self._bundle, steps, self._threads, self._opener, verify=verify)
        self.sessions.has_arena = self.arena is not None
        self.residency = WeightResidency(
            self._bundle,
            steps,
            huge=self._manifest.huge_pages,
            verify=verify,
            keep_cached=self._manifest.is_stock or _is_available(budget_bytes),
        )

    def claim_arena(self) -> None:
        """Take the process's arena for activations, if the manifest asks for it and nobody else has it."""
        if self._manifest.activations:
            self.arena = claim_arena(self, self._manifest.activations, self._interface.register_arena)
            self.sessions.has_arena = self.arena is not None

    def use_spare(self, inferences: int) -> None:
        """Before the third inference: keep more in memory where the first two took less than predicted.

        Files were checked by then. Should it have been too much, the next two inferences show it: then go back to the plan.
        Those that end at an exit show nothing, as the steps that take most may come after it: they are not among the
        ``inferences``.
        """
        if not self._is_alone:
            return
        if inferences == _MEASURED and not self.is_measured:
            from hyps.runtime.bundle.spare_memory import enlarged_steps, spare_bytes  # no first inference needs it

            self.is_measured = True
            self._spare_bytes = spare_bytes(self._manifest, memory().peak_bytes)
            if self._spare_bytes:
                self._place_again(enlarged_steps(self._manifest, self._spare_bytes))
        elif self._spare_bytes and inferences <= 2 * _MEASURED and memory().peak_bytes > self._predicted_bytes:
            self._keep_to_plan()

    @property
    def _predicted_bytes(self) -> int:
        return max(step.peak_bytes for step in self._manifest.steps)

    def give_back(self) -> None:
        """Give back everything that can be read again, and hold no more than the plan says from now on."""
        self._keep_to_plan()
        self.residency.release()
        if self.arena:
            self.sessions.close()
            self.arena.renew()

    def give_up_arena(self) -> None:
        """Close all sessions; those opened from now on use no arena."""
        self.sessions.close()
        self.sessions.has_arena = False
        if self.arena:
            self.arena.close()
            self.arena = None
        give_back_heap()

    def close(self) -> None:
        """Give back sessions, weights and the arena for good."""
        self.give_up_arena()
        self.residency.close()

    def _keep_to_plan(self) -> None:
        if self._spare_bytes:
            self._place_again(self._manifest.steps)
        self._spare_bytes, self._is_alone = 0, False

    def _place_again(self, steps: Sequence[Step]) -> None:
        self.sessions.close()
        self.residency.close()
        self._place(steps, verify=False)


def _is_available(nbytes: int) -> bool:
    """Return whether this many bytes are available; False where that is unknown."""
    from hyps.runtime.device.available_memory import available_memory  # not for weights that onnxruntime reads

    try:
        return nbytes <= available_memory().available_bytes
    except DeviceError:
        return False
