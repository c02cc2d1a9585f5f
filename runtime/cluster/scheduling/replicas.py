"""Which workers hold which share, and where each copy of a share is in its life (`hyps.runtime.cluster.scheduling.lifecycle`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from hyps.runtime.cluster.scheduling.lifecycle import READY, Event, LifeCycle, State

log = logging.getLogger(__name__)


class Replicas:
    """``homes`` names the workers that hold each share, by its number; a share has as many lives as it has had homes."""

    def __init__(self, shares: int) -> None:
        self.homes: list[tuple[str, ...]] = [()] * shares
        self._lives: dict[tuple[int, str], LifeCycle] = {}

    def state(self, share: int, worker: str) -> State:
        """Where a worker's copy of a share is; raises KeyError where it never had one."""
        return self._lives[share, worker].state

    def shares_of(self, worker: str) -> list[int]:
        """The shares that a worker holds."""
        return [share for share, homes in enumerate(self.homes) if worker in homes]

    def place(self, homes: Mapping[int, Sequence[str]]) -> None:
        """Give shares their workers; a worker that is no longer among them has lost the share."""
        for share, workers in homes.items():
            for worker in set(self.homes[share]).difference(workers):
                self._lose(share, worker)
            for worker in workers:
                life = self._lives.setdefault((share, worker), LifeCycle(f"share {share} on {worker}"))
                if life.allows(Event.PLACE):
                    life.apply(Event.PLACE)
            self.homes[share] = tuple(workers)

    def loading(self, worker: str, shares: Iterable[int]) -> None:
        """A worker says that it is loading these."""
        self._move(worker, shares, State.PLACED, Event.LOAD)

    def loaded(self, worker: str, shares: Iterable[int]) -> None:
        """A worker says that it has loaded these."""
        self.loading(worker, shares := [*shares])
        self._move(worker, shares, State.LOADING, Event.LOADED)

    def lost(self, worker: str) -> list[int]:
        """A worker is gone, and all that it held; the shares it had."""
        shares = self.shares_of(worker)
        for share in shares:
            self._lose(share, worker)
            self.homes[share] = tuple(home for home in self.homes[share] if home != worker)
        return shares

    def can_infer(self, share: int, worker: str) -> bool:
        """A worker's copy is loaded."""
        return worker in self.homes[share] and self.state(share, worker) in READY | {State.INFERRING}

    @property
    def ready(self) -> bool:
        """Each share is loaded somewhere."""
        return all(any(self.can_infer(share, home) for home in homes) for share, homes in enumerate(self.homes))

    def infer(self, share: int, worker: str) -> None:
        """An input is sent to a worker."""
        if self.state(share, worker) != State.INFERRING:
            self._lives[share, worker].apply(Event.INFER)

    def ended(self, share: int, worker: str, event: Event, *, goes_on: bool) -> None:
        """What was sent came to an end; the copy infers on where it ``goes_on`` with another input."""
        life = self._lives[share, worker]
        if life.state == State.INFERRING:
            life.apply(event)
            if goes_on:
                life.apply(Event.INFER)

    def _move(self, worker: str, shares: Iterable[int], before: State, event: Event) -> None:
        for share in set(shares).intersection(self.shares_of(worker)):
            if self.state(share, worker) == before:
                self._lives[share, worker].apply(event)

    def _lose(self, share: int, worker: str) -> None:
        life = self._lives[share, worker]
        if life.allows(Event.LOSE):
            life.apply(Event.LOSE)
