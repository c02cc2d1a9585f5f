"""Tell whether a manager can compute, and if not, why."""

from __future__ import annotations

from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.workers import WorkerRegistry


class Health:
    """The readiness of one manager, derived from its link, workers and deployment.

    Not thread-safe: use it on the manager's thread.
    """

    def __init__(self, link: Link, workers: WorkerRegistry, deployment: Deployment) -> None:
        self._link, self._workers, self._deployment = link, workers, deployment

    @property
    def ready(self) -> bool:
        """Whether the hub is there and each sub-bundle is loaded by a worker."""
        scheduler = self._deployment.scheduler
        return self._link.connected and scheduler is not None and scheduler.ready

    @property
    def loading(self) -> bool:
        """Whether a worker is loading a sub-bundle."""
        return self._link.connected and any(state.loading for state in self._workers.online.values())

    @property
    def problem(self) -> str:
        """The reason why the manager is not ready, as far as it is known."""
        return self.trouble or "its workers load nothing"

    @property
    def trouble(self) -> str | None:
        """The reason why the manager is not ready; None if no reason is known."""
        if not self._link.connected:
            return f"the hub at {self._link.address} is gone"
        if not self._workers.online:
            return "its workers are gone"
        problems = (f"{name}: {state.problem}" for name, state in self._workers.online.items() if state.problem)
        return next(problems, self._deployment.complaint or None)
