"""Hold a step that is ready to run: its weights are in memory, and its session is open."""

from __future__ import annotations

from collections.abc import MutableMapping

from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.tensor import TensorValue


class ReadyStep:
    """A step whose weights are in memory, since the time ``loaded_at``, and whose session is open."""

    def __init__(self, session: Session, step: Step, loaded_at: float) -> None:
        self._session: Session | None = session
        self._step = step
        self.loaded_at = loaded_at

    def run(self, held: MutableMapping[str, TensorValue]) -> float:
        """Run the step on the tensors of one inference, and drop those that no later step needs.

        Return the seconds of it that the session computed.
        """
        assert self._session
        held.update(self._session.run(self._step.outputs, {name: held[name] for name in self._step.inputs}))
        for name in held.keys() - set(self._step.live):
            del held[name]
        return self._session.run_s

    def release(self) -> None:
        """Drop the session."""
        self._session = None
