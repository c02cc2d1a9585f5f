"""Count the jobs and sub-bundles that a manager's cluster computes, and trace its last jobs."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.counters import CodeCounters
from hyps.runtime.cluster.manager.energy import ClusterEnergy, OwnBoard
from hyps.runtime.cluster.manager.exit_counters import ExitCounters
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.scheduling.trace import Trace

#: A rate covers this many seconds.
_RATE_WINDOW_S = 10.0
_MAX_RECENT_EVENTS = 10_000


class RateMeter:
    """A count of events, and their rate over the last seconds."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[float] = deque(maxlen=_MAX_RECENT_EVENTS)
        self._began = time.monotonic()

    def count(self) -> None:
        """Count one event."""
        self.total += 1
        self._recent.append(time.monotonic())

    def per_s(self) -> float:
        """Return the events a second over the last ten seconds, or since the meter was made if that is less."""
        now = time.monotonic()
        while self._recent and self._recent[0] < now - _RATE_WINDOW_S:
            self._recent.popleft()
        return round(len(self._recent) / min(_RATE_WINDOW_S, max(now - self._began, 0.1)), 2)


class Statistics:
    """The counters of one manager since its start. Not thread-safe: use it on the manager's thread.

    ``answered`` counts jobs, ``computed`` sub-bundles by worker, ``rejected`` messages by the reason why they were not
    accepted; ``trace`` has the last jobs' times, ``speeds`` what the workers' answers say of their speed, ``monitor`` what
    workers do under load, ``codes`` what was decoded, ``exits`` where jobs of the bundle ended, ``energy`` what the boards
    take, the manager's ``own`` one included.
    """

    def __init__(self, manifest: Manifest, own: OwnBoard | None = None) -> None:
        self.answered = RateMeter()
        self.exits = ExitCounters(manifest)
        self.codes = CodeCounters()
        self.energy = ClusterEnergy(self.answered, own)
        self.computed: defaultdict[str, RateMeter] = defaultdict(RateMeter)
        self.rejected: Counter[str] = Counter()
        self.trace = Trace()
        self.speeds = MeasuredSpeeds()
        self.monitor = Monitor()
