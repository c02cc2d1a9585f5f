"""Measure what each worker does under load: its queue, the time of each step, and the time that results travel.

This is the monitoring of Hadidi's Algorithm 2 (section 4.4.3): queue occupancy and latency of each device. Everything is
bounded: a worker is remembered by its last samples, and what it says of its own times is never more than what was seen.
"""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed
from hyps.runtime.cluster.scheduling.scheduler import Scheduler

#: A queue's histogram counts 0 to 9 inputs, and 10 or more (figure 4.29).
QUEUE_BINS = 11
#: Samples of a queue, five a second; of a time; and inputs under way that are remembered.
_QUEUE_SAMPLES, _SAMPLES, _UNDER_WAY = 300, 9, 10_000
#: A time is known from so many samples; one that is older than this is not of now.
_LEAST_SAMPLES, _RECENT_S = 3, 60.0
#: A result with fewer bytes tells nothing of a link's rate.
_TELLING_BYTES = 64 << 10


@dataclass(slots=True, kw_only=True)
class _Sent:
    """An input under way: its worker and steps, when it was sent, and when the worker said that it had computed it."""

    worker: str
    steps: range
    sent_at: float
    result_bytes: int
    computed_at: float | None = None


@dataclass(slots=True)
class _Watched:
    """The samples of one worker: its queue, its seconds by step and by run of steps, and its results' way back."""

    queue: deque[int] = field(default_factory=lambda: deque(maxlen=_QUEUE_SAMPLES))
    steps: dict[int, deque[tuple[float, float]]] = field(default_factory=dict)
    runs: dict[range, deque[float]] = field(default_factory=dict)
    busy: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_QUEUE_SAMPLES))
    link: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SAMPLES))


class Monitor:
    """The samples of one manager's workers. Times are seconds of the caller's clock.

    Not thread-safe: use it on the manager's thread.
    """

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._under_way: OrderedDict[Key, _Sent] = OrderedDict()

    def sent(self, key: Key, worker: str, steps: range, result_bytes: int, now: float) -> None:
        """Note that a worker is sent the inputs of a run of steps."""
        self._under_way[key] = _Sent(worker=worker, steps=steps, sent_at=now, result_bytes=result_bytes)
        if len(self._under_way) > _UNDER_WAY:
            self._under_way.popitem(last=False)

    def timed(self, worker: str, message: Timed, now: float) -> None:
        """Take the times that a worker measured; ignore what it was not asked for."""
        sent = self._under_way.get(message.key)
        if sent is None or sent.worker != worker or sent.computed_at is not None:
            return
        sent.computed_at = now
        watched = self._of(worker)
        seconds = min(message.compute_s, now - sent.sent_at)
        watched.runs.setdefault(sent.steps, deque(maxlen=_SAMPLES)).append(seconds)
        watched.busy.append((now, seconds))
        steps_s = message.steps_s if len(message.steps_s) == len(sent.steps) else ()
        share = seconds / total if (total := sum(steps_s)) > 0 else 1.0  # what is between steps is theirs, too
        for index, step_s in zip(sent.steps, steps_s, strict=False):
            watched.steps.setdefault(index, deque(maxlen=_SAMPLES)).append((now, share * step_s))

    def done(self, key: Key, now: float) -> None:
        """Note that a result is complete."""
        if (sent := self._under_way.pop(key, None)) and sent.computed_at is not None:
            self._of(sent.worker).link.append((now - sent.computed_at, sent.result_bytes))

    def sample(self, scheduler: Scheduler, workers: Iterable[str]) -> None:
        """Count the inputs that wait at each worker or are computed there."""
        replicas = scheduler.replicas
        for name in workers:
            waiting = 0
            for number in replicas.sub_bundles_of(name):
                sharing = len(replicas.homes[number]) if number in replicas.dealt else 1
                waiting += -(-scheduler.waiting(number) // sharing)
            self._of(name).queue.append(min(waiting, QUEUE_BINS - 1))

    def forget(self, worker: str) -> None:
        """Forget a worker that is gone: a new process may be another machine."""
        self._watched.pop(worker, None)

    def queue(self, worker: str) -> tuple[int, ...]:
        """Return how often a worker's queue had 0, 1, ... 9, or 10 and more inputs in the last minute; empty if unknown."""
        samples = self._watched[worker].queue if worker in self._watched else ()
        return tuple(sum(1 for each in samples if each == number) for number in range(QUEUE_BINS)) if samples else ()

    def service_s(self, worker: str, steps: range) -> float | None:
        """Return the median seconds that a worker took for a run of steps, or None if it is not known."""
        samples = self._watched[worker].runs.get(steps) if worker in self._watched else None
        return statistics.median(samples) if samples else None

    def link_s(self, worker: str) -> float | None:
        """Return the median seconds from a worker's result until it was here, or None if it is not known."""
        samples = self._watched[worker].link if worker in self._watched else None
        return statistics.median(seconds for seconds, _ in samples) if samples else None

    def link_bytes_per_s(self) -> float | None:
        """Return the median rate at which large results came, or None if there were none."""
        rates = [
            nbytes / max(seconds, 1e-6)
            for watched in self._watched.values()
            for seconds, nbytes in watched.link
            if nbytes >= _TELLING_BYTES
        ]
        return statistics.median(rates) if rates else None

    def busy_share(self, worker: str, now: float, over_s: float = 10.0) -> float:
        """Return the part of the last seconds in which a worker computed."""
        if worker not in self._watched:
            return 0.0
        return min(1.0, sum(seconds for at, seconds in self._watched[worker].busy if at > now - over_s) / over_s)

    def steps_s(self, now: float) -> Mapping[str, Mapping[int, float]]:
        """Return the median seconds of each step at each worker, as far as they are known from the last minute."""
        return {
            name: {
                index: statistics.median(seconds for _, seconds in samples)
                for index, samples in watched.steps.items()
                if len(samples) >= _LEAST_SAMPLES and samples[-1][0] > now - _RECENT_S
            }
            for name, watched in self._watched.items()
        }

    def _of(self, worker: str) -> _Watched:
        return self._watched.setdefault(worker, _Watched())


class CostModel:
    """What each step costs and how fast each worker is, from the seconds that steps took at workers of known claims.

    A step's cost is in multiply-adds of the claim: the least seconds that it took anywhere, times the claim of that worker.
    A worker's speed is its claim, less the factor by which its steps now take longer than they cost.
    """

    def __init__(self, remembered_s: float = 600.0) -> None:
        self._costs: dict[int, float] = {}
        self._slowdowns: dict[str, tuple[float, float]] = {}
        self._remembered_s = remembered_s

    def learn(self, steps_s: Mapping[str, Mapping[int, float]], claims: Mapping[str, float], now: float) -> None:
        """Take the seconds of steps at workers, and the multiply-adds a second that the workers claim."""
        known = {name: seconds for name, seconds in steps_s.items() if name in claims and seconds}
        for name, seconds in known.items():
            for index, step_s in seconds.items():
                cost = max(step_s * claims[name], 1.0)
                self._costs[index] = min(self._costs.get(index, cost), cost)
        for name, seconds in known.items():
            spent = sum(seconds.values()) * claims[name]
            self._slowdowns[name] = max(1.0, spent / sum(self._costs[index] for index in seconds)), now
        for name, (_, at) in [*self._slowdowns.items()]:
            if now - at > self._remembered_s or name not in claims:
                del self._slowdowns[name]

    def costs(self, estimates: Sequence[int]) -> list[int]:
        """Return what each step costs; those that were never measured by their estimates, on the scale of the others."""
        if not self._costs:
            return [*estimates]
        scale = sum(self._costs.values()) / max(1, sum(estimates[index] for index in self._costs))
        return [max(1, round(self._costs.get(index, scale * each))) for index, each in enumerate(estimates)]

    def speed(self, worker: str, claim: float) -> float:
        """Return a worker's speed in multiply-adds of its claim a second."""
        return claim / self._slowdowns[worker][0] if worker in self._slowdowns else claim

    @property
    def known(self) -> frozenset[int]:
        """The steps that were measured."""
        return frozenset(self._costs)
