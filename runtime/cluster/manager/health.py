"""Whether a manager can compute what it is given, for who depends on it."""

from __future__ import annotations

from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.workers import WorkerRegistry


class Health:
    """Of the manager that has these; on its thread alone."""

    def __init__(self, link: Link, crew: WorkerRegistry, planning: Deployment) -> None:
        self._link, self._crew, self._planning = link, crew, planning

    @property
    def ready(self) -> bool:
        """Every share is loaded by someone whom a message reaches."""
        scheduler = self._planning.scheduler
        return self._link.connected and scheduler is not None and scheduler.holders.ready

    @property
    def loading(self) -> bool:
        """A worker loads something."""
        return self._link.connected and any(state.loading for state in self._crew.online.values())

    @property
    def problem(self) -> str:
        """Why it is not ready, as far as that is known."""
        return self.trouble or "its workers load nothing"

    @property
    def trouble(self) -> str | None:
        """What keeps it from being ready, beyond that it has just begun."""
        if not self._link.connected:
            return f"the hub at {self._link.address} is gone"
        if not self._crew.online:
            return "its workers are gone"
        said = (f"{name}: {state.problem}" for name, state in self._crew.online.items() if state.problem)
        return next(said, self._planning.complaint or None)
