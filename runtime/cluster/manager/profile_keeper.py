"""Keep what workers measured of this bundle's steps: the profiles that they send, and the times of their answers.

A worker may lie. Its class is what it says of its board, and times count only if its claimed speed makes them possible. The
times of an answer cannot be more than the manager waited for it. What one worker says replaces only what it said before, and
`hyps.runtime.profiling.profile_database` takes the median of several.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.step_time_model import REMEMBERED_S
from hyps.runtime.cluster.protocol.frames import Rejection
from hyps.runtime.cluster.protocol.messages import Profiled, Timed, WorkerState
from hyps.runtime.errors import ProfileError
from hyps.runtime.profiling.board_facts import BoardFacts
from hyps.runtime.profiling.profile_database import ProfileDatabase, ReportedTimes, TimesSource
from hyps.runtime.profiling.profile_file import Quartiles, ThreadTimes
from hyps.runtime.profiling.step_content import StepContent, step_contents
from hyps.runtime.profiling.step_measurement import quartiles
from hyps.runtime.profiling.step_seconds import ProfiledSeconds, with_workers_threads

#: A worker may be this many times faster than its claim, which is of one convolution, and so many times slower.
_FASTER, _SLOWER = 8.0, 64.0
#: Seconds that any step may take, and bytes a second that it moves at least.
_SLACK_S, _SLOWEST_BYTES_PER_S = 1.0, 20e6
#: The answers that are compared, those that are enough, and those that do not count: sessions open, weights are read.
_ANSWERS, _ENOUGH, _SKIPPED = 31, 5, 1
#: The most series of answers that are remembered at a time: the latest.
_MOST_SERIES = 20_000
#: The seconds between two writes, each of which is one transaction, and the most times that wait for one.
_WRITE_EVERY_S, _MOST_WAITING = 10.0, 20_000
_NOTHING = Quartiles(lower=0.0, median=0.0, upper=0.0)
_log = logging.getLogger(__name__)
#: Worker, class of board, threads, step.
_Series = tuple[str, str, int, int]


def is_plausible(content: StepContent, seconds: float, macs_per_s: int) -> bool:
    """Return whether a worker of this claimed speed may take so many seconds for a step."""
    claimed_s = content.multiply_adds / max(1, macs_per_s)
    moved_s = content.moved_bytes / _SLOWEST_BYTES_PER_S
    return claimed_s / _FASTER <= seconds <= _SLOWER * (claimed_s + moved_s) + _SLACK_S


class ProfileKeeper:
    """What the workers of one manager measured of its bundle's steps; it is written to the database ``path`` now and then.

    Without a path nothing is kept. Not thread-safe: use it on the manager's thread. Raises `ProfileError` for a database
    that cannot be used, `BundleError` for a bundle whose models cannot be read.
    """

    def __init__(self, bundle: Path, manifest: Manifest, path: Path | None) -> None:
        self._database = ProfileDatabase(path) if path else None
        self._manifest = manifest
        self._contents = step_contents(bundle, manifest) if path else ()
        self._steps = {content.key: place for place, content in enumerate(self._contents)}
        self._answers: OrderedDict[_Series, deque[float]] = OrderedDict()
        self._changed: dict[_Series, BoardFacts] = {}
        self._waiting: dict[_Series, tuple[BoardFacts, ThreadTimes]] = {}
        self._write_at = time.monotonic() + _WRITE_EVERY_S

    def profiled(self, worker: str, state: WorkerState | None, message: Profiled) -> None:
        """Take a worker's profile: of this bundle's steps alone. Raises `Rejection` for times that are not possible."""
        if self._database is None or state is None or state.board is None or state.board_class is None:
            return
        for step in message.steps:
            place = self._steps.get(step.key)
            if place is None:
                continue
            if not is_plausible(self._contents[place], step.times.run_s.median, state.macs_per_s):
                raise Rejection("impossible profile")
            if len(self._waiting) < _MOST_WAITING:
                series = worker, state.board_class, step.times.threads, place
                self._waiting[series] = state.board, step.times

    def answered(
        self, worker: str, state: WorkerState | None, run: range | None, message: Timed, waited_s: float, read_s: float
    ) -> None:
        """Take the times of a worker's answer for a ``run`` of steps, for which the manager waited ``waited_s``.

        They count if its weights stay in memory (``read_s`` is 0), and if they are possible.
        """
        if self._database is None or state is None or state.board is None or state.board_class is None or run is None:
            return
        in_all = sum(message.steps_s)
        if read_s > 0 or len(message.steps_s) != len(run) or in_all > message.compute_s + 1e-3 or in_all > waited_s:
            return
        threads = max(1, min(state.threads, self._manifest.target.threads))
        for place, seconds in zip(run, message.steps_s, strict=True):
            if is_plausible(self._contents[place], seconds, state.macs_per_s):
                series = worker, state.board_class, threads, place
                self._answers.setdefault(series, deque(maxlen=_ANSWERS + _SKIPPED)).append(seconds)
                self._answers.move_to_end(series)
                self._changed[series] = state.board
        while len(self._answers) > _MOST_SERIES:
            self._changed.pop(self._answers.popitem(last=False)[0], None)

    def seconds_on(self, board_class: str) -> Sequence[float | None]:
        """Return the seconds of every step on a class of boards, measured or by regression; None where neither is known.

        Nothing is returned for a class of which nothing is known.
        """
        self.write(math.inf)
        if self._database is None:
            return ()
        try:
            measured = self._database.measurements(board_class)
        except ProfileError as error:
            _log.warning("%s", error)
            return ()
        known = ProfiledSeconds(with_workers_threads(measured, self._manifest.target.threads))
        return [_seconds(known, content, board_class) for content in self._contents] if known.board_classes else ()

    def answered_before(self, worker: str, board_class: str) -> Mapping[int, float]:
        """Return the seconds of steps with which a worker answered lately, also to an earlier manager, by their numbers."""
        if self._database is None:
            return {}
        try:
            found = self._database.answers_of(worker, board_class, time.time() - REMEMBERED_S)
        except ProfileError as error:
            _log.warning("%s", error)
            return {}
        most: dict[int, tuple[int, float]] = {}
        for (key, threads), seconds in found.items():
            if key in self._steps and threads <= self._manifest.target.threads:
                place = self._steps[key]
                most[place] = max(most.get(place, (0, 0.0)), (threads, seconds))
        return {place: seconds for place, (_, seconds) in most.items()}

    def write(self, now: float) -> None:
        """Write what is new to the database, every ten seconds; a database that fails is told of and given up."""
        if self._database is None or now < self._write_at or not (self._waiting or self._changed):
            return
        self._write_at = time.monotonic() + _WRITE_EVERY_S
        profiles, self._waiting = self._waiting, {}
        changed, self._changed = self._changed, {}
        answers = {
            series: (board, _times(series[2], seconds))
            for series, board in changed.items()
            if len(seconds := [*self._answers[series]][_SKIPPED:]) >= _ENOUGH
        }
        try:
            self._add(self._database, "worker", profiles)
            self._add(self._database, "answers", answers)
        except ProfileError as error:
            _log.warning("%s; what workers measure is not kept from now on", error)
            self._database = None

    def _add(
        self, database: ProfileDatabase, source: TimesSource, found: Mapping[_Series, tuple[BoardFacts, ThreadTimes]]
    ) -> None:
        """Add what each worker measured, in one transaction for each worker and class of boards."""
        groups: dict[tuple[str, BoardFacts], list[ReportedTimes]] = {}
        for (worker, board_class, _, place), (board, times) in found.items():
            content, name = self._contents[place], self._manifest.steps[place].name
            reported = ReportedTimes(name=name, content=content, board_class=board_class, times=times)
            groups.setdefault((worker, board), []).append(reported)
        for (worker, board), group in groups.items():
            database.add(worker, source, group, board)

    def close(self) -> None:
        """Write what is left, and close the database."""
        self.write(math.inf)
        if self._database:
            self._database.close()
            self._database = None


def _seconds(known: ProfiledSeconds, content: StepContent, board_class: str) -> float | None:
    try:
        return known.seconds_of(content, board_class).seconds
    except ProfileError:  # too little was profiled for a regression
        return None


def _times(threads: int, seconds: Sequence[float]) -> ThreadTimes:
    """Return what answers say: no more than how long a step takes when it is ready."""
    return ThreadTimes(
        threads=threads,
        runs=len(seconds),
        run_s=quartiles(seconds),
        open_s=_NOTHING,
        stored_s=None,
        read_bytes=0,
        peak_bytes=0,
    )
