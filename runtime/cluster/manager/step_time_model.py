"""Tell how long each step takes on each worker: by profiles and claims at first, then by what is measured under load.

The seconds of a step at a worker are taken to be its *base* there, times a correction for the step, times how much slower
the worker is now than it claims. The base are the seconds that a step took on such boards (the profile database), scaled by
the worker's claim among workers of its class; or else the step's multiply-adds over the claim.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.problem import SecondsOnWorker

#: The part of the difference to what was measured by which a step's correction changes at a time.
_LEARNED = 0.2
#: How much slower a worker is counts for so long after it was last measured.
REMEMBERED_S = 600.0
#: Workers' speeds are told apart by this factor: equal boards never measure quite the same.
_TOLD_APART = 1.05

#: Returns what is known of every step's seconds on a class of boards; None for a step of which nothing is.
ProfiledSteps = Callable[[str], Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class _Base:
    """A worker's seconds before anything is measured: ``scale`` times ``relative``; those in ``profiled`` were measured."""

    relative: tuple[float, ...]
    scale: float
    profiled: frozenset[int] = frozenset()


class StepTimeModel:
    """The seconds of steps on workers; ``costs`` are the steps', in multiply-adds. Times are of the caller's clock."""

    def __init__(self, costs: Sequence[int], profiled: ProfiledSteps = lambda _: ()) -> None:
        self._costs, self._profiled = costs, profiled
        self._classes: dict[str, Sequence[float | None]] = {}
        self._corrections: dict[int, float] = {}
        self._slowdowns: dict[str, tuple[float, float]] = {}

    @property
    def measured(self) -> frozenset[int]:
        """The steps that were measured under load."""
        return frozenset(self._corrections)

    def learn(self, steps_s: Mapping[str, Mapping[int, float]], workers: Sequence[WorkerCapacity], now: float) -> None:
        """Take the seconds of steps at workers, by name.

        What a worker's steps take at its best stays the least that they took in all; how that is shared out among them
        follows what is measured now.
        """
        for name, base in self._bases(workers).items():
            taken = {index: max(seconds, 1e-9) for index, seconds in steps_s.get(name, {}).items()}
            if not taken:
                continue
            known = {index: base.scale * base.relative[index] for index in taken}
            for index, seconds in taken.items():
                self._corrections.setdefault(index, 1.0 if index in base.profiled else seconds / known[index])
            corrections = self._corrections
            slowdown = sum(taken.values()) / sum(known[index] * corrections[index] for index in taken)
            self._slowdowns[name] = max(1.0, slowdown), now
            for index, seconds in taken.items():
                best = corrections[index] * min(1.0, slowdown)
                corrections[index] = best + _LEARNED * (seconds / known[index] / max(1.0, slowdown) - best)
        names = {worker.name for worker in workers}
        for name, (_, at) in [*self._slowdowns.items()]:
            if now - at > REMEMBERED_S or name not in names:
                del self._slowdowns[name]

    def seconds_on(self, workers: Sequence[WorkerCapacity]) -> SecondsOnWorker:
        """Return the seconds of every step on each of these workers."""
        unknown = self._unknown_correction()
        found: dict[str, tuple[float, ...]] = {}
        for name, base in self._bases(workers).items():
            scale = _rounded(base.scale * self._slowdowns.get(name, (1.0, 0.0))[0])
            found[name] = tuple(
                scale * relative * self._corrections.get(index, 1.0 if index in base.profiled else unknown)
                for index, relative in enumerate(base.relative)
            )
        return lambda worker: found[worker.name]

    def _unknown_correction(self) -> float:
        """Return the correction of steps that were never measured: that of all others together."""
        total = sum(self._costs[index] for index in self._corrections)
        return sum(self._costs[index] * each for index, each in self._corrections.items()) / total if total else 1.0

    def _bases(self, workers: Sequence[WorkerCapacity]) -> dict[str, _Base]:
        claims: dict[str | None, list[int]] = {}
        for worker in workers:
            claims.setdefault(worker.board_class, []).append(worker.macs_per_s)
        return {each.name: self._base(each, statistics.median(claims[each.board_class])) for each in workers}

    def _base(self, worker: WorkerCapacity, usual_macs_per_s: float) -> _Base:
        rated = tuple(float(cost) for cost in self._costs)
        profiled = self._class(worker.board_class)
        known = {index: seconds for index, seconds in enumerate(profiled) if seconds is not None}
        if not known:
            return _Base(rated, 1 / worker.macs_per_s)
        factor = sum(known.values()) / sum(rated[index] for index in known)
        relative = tuple(known.get(index, factor * cost) for index, cost in enumerate(rated))
        return _Base(relative, usual_macs_per_s / worker.macs_per_s, frozenset(known))

    def _class(self, board_class: str | None) -> Sequence[float | None]:
        """Return what is known of a class; it stays the same once steps are measured, as corrections are to it."""
        if board_class is None:
            return ()
        if board_class not in self._classes or not self._corrections:
            self._classes[board_class] = self._profiled(board_class)
        return self._classes[board_class]


def _rounded(factor: float) -> float:
    return float(_TOLD_APART ** round(math.log(factor, _TOLD_APART)))
