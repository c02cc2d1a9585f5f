"""Keep which workers hold which sub-bundle, and the life cycle of each replica."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from hyps.runtime.cluster.scheduling.lifecycle import READY, Event, LifeCycle, State


class Replicas:
    """The replicas of all sub-bundles of a bundle.

    ``homes`` lists, by sub-bundle, the workers that hold it. A replica's life cycle is kept after its worker is gone. The
    homes of a ``dealt`` sub-bundle share its inputs: each input goes to one of them. Otherwise each home gets every input.
    """

    def __init__(self, sub_bundles: Iterable[int]) -> None:
        self.homes: dict[int, tuple[str, ...]] = dict.fromkeys(sub_bundles, ())
        self.dealt: frozenset[int] = frozenset()
        self._lives: dict[tuple[int, str], LifeCycle] = {}

    def state(self, sub_bundle: int, worker: str) -> State:
        """Return the state of a worker's replica. Raises KeyError if the worker never had one."""
        return self._lives[sub_bundle, worker].state

    def sub_bundles_of(self, worker: str) -> list[int]:
        """Return the sub-bundles that a worker holds."""
        return [sub_bundle for sub_bundle, homes in self.homes.items() if worker in homes]

    def place(self, homes: Mapping[int, Sequence[str]]) -> None:
        """Set the workers of sub-bundles; a worker that is no longer among them loses its replica."""
        for sub_bundle, workers in homes.items():
            for worker in set(self.homes.get(sub_bundle, ())).difference(workers):
                self._lose(sub_bundle, worker)
            for worker in workers:
                life = self._lives.setdefault((sub_bundle, worker), LifeCycle(f"sub-bundle {sub_bundle} on {worker}"))
                if life.allows(Event.PLACE):
                    life.apply(Event.PLACE)
            self.homes[sub_bundle] = tuple(workers)

    def loading(self, worker: str, sub_bundles: Iterable[int]) -> None:
        """Note that a worker is loading these sub-bundles."""
        self._move(worker, sub_bundles, State.PLACED, Event.LOAD)

    def loaded(self, worker: str, sub_bundles: Iterable[int]) -> None:
        """Note that a worker has loaded these sub-bundles."""
        self.loading(worker, sub_bundles := [*sub_bundles])
        self._move(worker, sub_bundles, State.LOADING, Event.LOADED)

    def missing(self, worker: str, held: Collection[int]) -> None:
        """Note that a worker holds no sub-bundles but these; others that it had loaded must be loaded again."""
        for sub_bundle in self.sub_bundles_of(worker):
            if sub_bundle not in held and self.can_infer(sub_bundle, worker):
                self._lose(sub_bundle, worker)
                self._lives[sub_bundle, worker].apply(Event.PLACE)

    def lost(self, worker: str) -> list[int]:
        """Mark all replicas of a worker as lost; return their sub-bundles."""
        sub_bundles = self.sub_bundles_of(worker)
        for sub_bundle in sub_bundles:
            self._lose(sub_bundle, worker)
            self.homes[sub_bundle] = tuple(home for home in self.homes[sub_bundle] if home != worker)
        return sub_bundles

    def can_infer(self, sub_bundle: int, worker: str) -> bool:
        """Return whether a worker's replica is loaded."""
        return worker in self.homes.get(sub_bundle, ()) and self.state(sub_bundle, worker) in READY | {State.INFERRING}

    def are_loaded(self, sub_bundles: Iterable[int]) -> bool:
        """Return whether each of these sub-bundles is loaded by a worker."""
        return all(any(self.can_infer(number, home) for home in self.homes.get(number, ())) for number in sub_bundles)

    def drop(self, sub_bundle: int) -> None:
        """Forget a sub-bundle that no job needs any more."""
        self.place({sub_bundle: ()})
        del self.homes[sub_bundle]
        for place in [place for place in self._lives if place[0] == sub_bundle]:
            del self._lives[place]

    def infer(self, sub_bundle: int, worker: str) -> None:
        """Note that an input is sent to a worker."""
        if self.state(sub_bundle, worker) != State.INFERRING:
            self._lives[sub_bundle, worker].apply(Event.INFER)

    def ended(self, sub_bundle: int, worker: str, event: Event, *, goes_on: bool) -> None:
        """Note that a lease has ended; the replica stays inferring if it ``goes_on`` with another input."""
        life = self._lives.get((sub_bundle, worker))
        if life and life.state == State.INFERRING:
            life.apply(event)
            if goes_on:
                life.apply(Event.INFER)

    def _move(self, worker: str, sub_bundles: Iterable[int], before: State, event: Event) -> None:
        for sub_bundle in set(sub_bundles).intersection(self.sub_bundles_of(worker)):
            if self.state(sub_bundle, worker) == before:
                self._lives[sub_bundle, worker].apply(event)

    def _lose(self, sub_bundle: int, worker: str) -> None:
        life = self._lives[sub_bundle, worker]
        if life.allows(Event.LOSE):
            life.apply(Event.LOSE)
