"""Follow the cuts behind early exits that inferences need: asked for, under way, or impossible, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hyps.runtime.bundle.exits import rest_start
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.workers import WorkerRegistry

#: Nothing is asked for; a placement with more cuts is asked for; it is being loaded; it waits until nothing is under way.
_State = Literal["settled", "asked", "loading", "postponed"]


class ExitCuts:
    """The exits behind which the runs of steps of one deployment are cut. Not thread-safe: for the manager's thread."""

    def __init__(
        self,
        manifest: Manifest,
        deployment: Deployment,
        workers: WorkerRegistry,
        placer: Placer,
        say: Callable[[str], None],
    ) -> None:
        self._manifest, self._deployment, self._workers = manifest, deployment, workers
        self._placer, self._say = placer, say
        self._state: _State = "settled"

    def ask(self, number: int) -> str:
        """Have runs cut behind the exit of this number, from 1 on; return why they will not be, empty while they are."""
        if number not in self._placer.cuts:
            self._placer.cuts.add(number)
            self._state = "asked"
            self._say(f"runs of steps are cut behind exit {number}: inferences are to begin there")
        return "" if self.is_coming else self._hindrance(number)

    @property
    def is_asked(self) -> bool:
        """Whether a placement with more cuts is to be found now."""
        return self._state == "asked"

    @property
    def is_coming(self) -> bool:
        """Whether cuts that were asked for will soon be there."""
        return self._state in ("asked", "loading")

    def loading(self) -> None:
        """Note that workers load the runs that are cut."""
        self._state = "loading"

    def ask_again(self) -> None:
        """Note that workers do not load them after all, as one of them was lost: they are asked for again."""
        if self._state == "loading":
            self._state = "asked"

    def give_up(self) -> None:
        """Note that there is no room for the cuts now: they are tried again when nothing is under way."""
        if self._state != "settled":
            self._state = "postponed"

    def begin(self) -> bool:
        """Return whether cuts wait for a placement; it is to be made now, as nothing is under way."""
        waits = self._state in ("asked", "postponed")
        if waits:
            self._state = "loading"
        return waits

    def settle(self) -> None:
        """Note that new jobs take the runs as they are now."""
        if self._state == "loading":
            self._state = "settled"

    def _hindrance(self, number: int) -> str:
        """Return why runs are not cut behind an exit."""
        if self._state == "postponed":
            return f"the workers have no room for runs of steps that are cut behind exit {number} now"
        step, placement = rest_start(self._manifest, number), self._deployment.placement
        homes = {
            home
            for run, homes in zip(placement.runs, placement.homes, strict=True)
            if run.start < step < run.stop
            for home in homes
        } if placement else set()  # fmt: skip
        groups = sorted(name for name in homes if name in self._workers.online and self._workers.online[name].group)
        if groups:
            return f"no inference can begin behind exit {number}: {groups[0]}, a group of workers, runs these steps as one"
        return f"no inference can begin behind exit {number}: the manager runs these steps as one"
