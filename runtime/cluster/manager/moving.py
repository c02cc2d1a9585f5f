"""Change the runs of steps while jobs are under way, one worker at a time, and lose, repeat and reorder nothing.

A move has three phases. *Loading*: one worker after the other gets its sub-bundles of the new placement besides those of
the old; jobs go on under the old. *Draining*: new jobs begin under the new placement, and those of the old end there.
*Settling*: one worker after the other gives the old sub-bundles back. If a worker is lost while loading, the move is given
up and the old placement mended; later, both are mended, and the move goes on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.generations import held_numbers, renumbered, restricted, side_by_side
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.planning.step_cost import LINK_BYTES_PER_S
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.errors import BudgetError

#: A move that lacks a worker for so many seconds after the last orders is given up.
_STUCK_S = 30.0


class SubBundleHolder(Protocol):
    """Who has workers hold sub-bundles."""

    def hold(self, held: Placement, active: Placement, only: Collection[str]) -> None:
        """Order these workers to hold their part of ``held``; the jobs under way need ``active``. Raises `BudgetError`."""
        ...

    def has_obeyed(self, worker: str) -> bool:
        """Return whether a worker has carried out its last orders, or is gone."""
        ...


class Move:
    """One move of a scheduler's jobs from the placement ``old`` to another. Times are seconds of the monotonic clock.

    ``active`` is what the jobs under way need; ``is_over``: nothing more is to be done.
    """

    def __init__(self, scheduler: Scheduler, holder: SubBundleHolder, old: Placement, new: Placement) -> None:
        self._scheduler, self._holder, self._old = scheduler, holder, old
        self._new = renumbered(new, old)
        self._before = scheduler.generations.newest
        self._after = max(scheduler.generations.numbers) + 1
        scheduler.generations.add(self._after, dict(zip(self._new.numbers, self._new.runs, strict=True)))
        self.phase = "loading"
        self.began = time.monotonic()
        self._ordered_at = self.began
        self._done: list[str] = []
        self._left = self._changed(held_numbers(old), held_numbers(side_by_side(old, self._new, {*_names(self._new)})))

    @classmethod
    def resumed(cls, scheduler: Scheduler, holder: SubBundleHolder, held: Placement, before: int) -> Move:
        """Return a move that a manager had begun before it ended: jobs of the generation ``before`` are under way."""
        move = cls.__new__(cls)
        move._scheduler, move._holder, move._before, move._after = scheduler, holder, before, scheduler.generations.newest
        move._old = restricted(held, scheduler.generations.numbers[before])
        move._new = restricted(held, scheduler.generations.numbers[scheduler.generations.newest])
        move.phase, move.began, move._done, move._left = "draining", time.monotonic(), [], []
        move._ordered_at = move.began
        return move

    @property
    def is_over(self) -> bool:
        """Whether the move is done."""
        return self.phase == "settling" and not self._left and self._last_obeyed()

    @property
    def active(self) -> Placement:
        """What the jobs under way need."""
        if self.phase == "loading":
            return self._old
        if self.phase == "draining":
            return side_by_side(self._old, self._new, {*_names(self._new)})
        return self._new

    def advance(self) -> None:
        """Do the next step if the one before is done. Raises `BudgetError` if the sub-bundles do not fit."""
        if not self._last_obeyed():
            return
        if self.phase == "draining":
            if not self._scheduler.generations.is_drained(self._before):
                return
            self._scheduler.generations.drop(self._before)
            self._left = self._changed(
                held_numbers(side_by_side(self._old, self._new, {*_names(self._new)})), held_numbers(self._new)
            )
            self._done, self.phase = [], "settling"
            self._holder.hold(self._new, self._new, ())
        if self._left:
            done = [*self._done, self._left[0]]
            held = side_by_side(self._old, self._new, {*done}) if self.phase == "loading" else self._new
            self._holder.hold(held, self.active, done[-1:])
            self._done, self._left = done, self._left[1:]
            self._ordered_at = time.monotonic()
        elif self.phase == "loading" and not self._scheduler.replicas.are_loaded(self._new.numbers):
            if time.monotonic() > self._ordered_at + _STUCK_S:
                raise BudgetError("the workers have obeyed, but not all new sub-bundles are loaded")
        elif self.phase == "loading":
            self._scheduler.generations.activate(self._after)
            self.phase = "draining"
            self._holder.hold(self.active, self.active, ())

    def give_up(self) -> Placement:
        """End a move that is loading; return the placement that stays."""
        assert self.phase == "loading"
        self._scheduler.generations.drop(self._after)
        return self._old

    def mended(self, held: Placement) -> None:
        """Take over what is held after workers were lost."""
        self._old, self._new = (_with_homes(each, held) for each in (self._old, self._new))

    def _last_obeyed(self) -> bool:
        return not self._done or self._holder.has_obeyed(self._done[-1])

    @staticmethod
    def _changed(before: dict[str, frozenset[int]], after: dict[str, frozenset[int]]) -> list[str]:
        """Return the workers whose sub-bundles differ, those first that hold nothing yet."""
        names = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        return sorted(names, key=lambda name: (name in before, name))


def moving_cost_s(manifest: Manifest, before: Placement, after: Placement, workers: Iterable[WorkerCapacity]) -> float:
    """Return the seconds in which workers load what a move gives them: all by the link, and what they keep again."""
    cost_s = 0.0
    for worker in workers:
        old, new = (
            {run for run, homes in zip(each.runs, each.homes, strict=True) if worker.name in homes}
            for each in (before, after)
        )
        fetched, held = (sum(_file_bytes(manifest, run) for run in runs) for runs in (new - old, new | old))
        if old != new:
            rate = worker.link.down_bytes_per_s if worker.link else LINK_BYTES_PER_S
            cost_s += fetched / rate + 2 * held / worker.storage_bytes_per_s
    return cost_s


def _file_bytes(manifest: Manifest, run: range) -> int:
    return sum(file.size_bytes for index in run for file in manifest.steps[index].data_files)


def _names(placement: Placement) -> Sequence[str]:
    return [name for homes in placement.homes for name in homes]


def _with_homes(placement: Placement, held: Placement) -> Placement:
    """Return a placement without the workers that hold its runs no more; a run that has none gets those that do."""
    homes = dict(zip(held.numbers, held.homes, strict=True))
    left = []
    for number, names in zip(placement.numbers, placement.homes, strict=True):
        known = tuple(name for name in names if name in homes.get(number, ()))
        left.append(known or homes.get(number, ()))
    return replace(placement, homes=tuple(left))
