"""Find the exits behind which inferences can begin, or end, in the runs of steps of now, and have runs cut where not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hyps.runtime.bundle.exits import rest_start
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol.client_messages import Submit

#: Returns the sub-bundles before a step; None where the step is inside of one.
SkippedBefore = Callable[[int], tuple[int, ...] | None]


class CutExits(Protocol):
    """Who cuts runs of steps behind exits; see `hyps.runtime.cluster.manager.exit_cuts.ExitCuts`."""

    @property
    def is_coming(self) -> bool:
        """Whether cuts that were asked for will soon be there."""
        ...

    def ask(self, number: int) -> str:
        """Have runs cut behind the exit of this number; return why they will not be, empty while they are."""
        ...


class ExitPlaces:
    """The exits of one bundle, by their numbers from 1 on, as places in the runs of steps of its manager."""

    def __init__(self, manifest: Manifest, cuts: CutExits) -> None:
        self._manifest, self._cuts = manifest, cuts

    def skipped(self, after_exit: int | None, skipped: SkippedBefore) -> tuple[int, ...] | None:
        """Return the sub-bundles behind which a job begins; None where the runs are not cut there."""
        return skipped(rest_start(self._manifest, after_exit))

    def problem(self, after_exit: int | None, skipped: SkippedBefore) -> str:
        """Return why a job will not begin behind an exit; an empty text where it can, or will soon."""
        if after_exit and self.skipped(after_exit, skipped) is None:
            return self._cuts.ask(after_exit)
        return ""

    def are_cut_for(self, submit: Submit, skipped: SkippedBefore) -> bool:
        """Return whether runs are cut where a job begins, and as far as they will be where its policy may end it."""
        if self.skipped(submit.after_exit, skipped) is None:
            return False
        places = range((submit.after_exit or 0) + 1, len(self._manifest.exits)) if submit.policy else ()
        return not self._coming(places, skipped)

    def opened(self, exits: Sequence[int], skipped: SkippedBefore) -> tuple[tuple[int, ...], bool]:
        """Return those of some exits behind which jobs can begin now, and whether there will soon be more."""
        known = [number for number in dict.fromkeys(exits) if number < len(self._manifest.exits)]
        there = tuple(number for number in known if self.skipped(number, skipped) is not None)
        return there, bool(self._coming(known, skipped))

    def _coming(self, places: Sequence[int], skipped: SkippedBefore) -> list[int]:
        """Return the exits behind which runs are not cut yet, and will be; all of them are asked for."""
        return [number for number in places if self.skipped(number, skipped) is None and not self._cuts.ask(number)]
