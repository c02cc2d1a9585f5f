"""Measure what each worker does under load: its queue, the time of each step, and the time that results travel.

This is the monitoring of Hadidi's Algorithm 2 (section 4.4.3): queue occupancy and latency of each device. Everything is
bounded: a worker is remembered by its last samples, and what it says of its own times is never more than what was seen.

Times are means over the last seconds, not medians: a quota's pauses are longer than a short step, and few of its times have
one, but each of them takes time from the stream. So that one stall does not count for a slow board, the longest answer
counts as if it had taken as long as the second longest.
"""

from __future__ import annotations

import operator
import statistics
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hyps.runtime.cluster.protocol.frames import Key
from hyps.runtime.cluster.protocol.messages import Timed
from hyps.runtime.cluster.scheduling.scheduler import Scheduler

#: A queue's histogram counts 0 to 9 inputs, and 10 or more (figure 4.29).
QUEUE_BINS = 11
#: Samples of a queue, five a second; of a link; and inputs under way that are remembered.
_QUEUE_SAMPLES, _LINK_SAMPLES, _UNDER_WAY = 300, 9, 10_000
#: Seconds of which the answers count, and the most answers that do. The last few count even if they are older.
_WINDOW_S, _MOST_ANSWERS = 10.0, 256
#: The last samples of a queue that say whether a stream is full.
_OCCUPIED_SAMPLES = 50
#: A time is known from so many answers; what was last measured before this is not of now.
_LEAST_ANSWERS, _RECENT_S = 3, 60.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedAnswer:
    """One answer of a worker: when it came, its seconds, and those of each step, empty if they are not known."""

    at: float
    seconds: float
    steps_s: tuple[float, ...]


@dataclass(slots=True)
class _Watched:
    """The samples of one worker: its queue, its answers by run of steps, its busy seconds, and its results' way back.

    ``busy`` has the seconds computed in each second of the clock.
    """

    queue: deque[int] = field(default_factory=lambda: deque(maxlen=_QUEUE_SAMPLES))
    runs: dict[range, deque[TimedAnswer]] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)
    link: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_LINK_SAMPLES))


def clipped_mean(answers: Sequence[TimedAnswer]) -> tuple[float, tuple[float, ...]]:
    """Return the mean seconds of answers of one run, and of each step, empty if some answer has none.

    The longest answer of three or more counts as if it had taken as long as the second longest.
    """
    weights = [1.0] * len(answers)
    if len(answers) > 2:
        second, longest = sorted(range(len(answers)), key=lambda place: answers[place].seconds)[-2:]
        if answers[longest].seconds > 0:
            weights[longest] = answers[second].seconds / answers[longest].seconds
    mean = sum(weight * each.seconds for weight, each in zip(weights, answers, strict=True)) / len(answers)
    if len({len(each.steps_s) for each in answers}) > 1:
        return mean, ()
    columns = zip(*(each.steps_s for each in answers), strict=True)
    return mean, tuple(sum(map(operator.mul, weights, column)) / len(answers) for column in columns)


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
        steps_s = message.steps_s if len(message.steps_s) == len(sent.steps) else ()
        share = seconds / total if (total := sum(steps_s)) > 0 else 1.0  # what is between steps is theirs, too
        answer = TimedAnswer(at=now, seconds=seconds, steps_s=tuple(share * each for each in steps_s))
        if sent.steps not in watched.runs:
            watched.runs = {run: known for run, known in watched.runs.items() if known[-1].at > now - _RECENT_S}
            watched.runs[sent.steps] = deque(maxlen=_MOST_ANSWERS)
        watched.runs[sent.steps].append(answer)
        if int(now) not in watched.busy:
            watched.busy = {at: known for at, known in watched.busy.items() if at > now - _RECENT_S} | {int(now): 0.0}
        watched.busy[int(now)] += seconds

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

    def service_s(self, worker: str, steps: range, now: float) -> float | None:
        """Return the mean seconds that a worker took for a run of steps lately, or None if it is not known."""
        answers = self._watched[worker].runs.get(steps) if worker in self._watched else None
        return clipped_mean(_lately(answers, now))[0] if answers else None

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
        return min(1.0, sum(seconds for at, seconds in self._watched[worker].busy.items() if at > now - over_s) / over_s)

    def occupied_share(self, worker: str) -> float:
        """Return the part of the last ten seconds in which a worker had an input to compute, or one on its way."""
        samples = [*self._watched[worker].queue][-_OCCUPIED_SAMPLES:] if worker in self._watched else []
        return sum(1 for each in samples if each) / len(samples) if samples else 0.0

    def steps_s(self, now: float) -> Mapping[str, Mapping[int, float]]:
        """Return the mean seconds of each step at each worker lately, as far as they are known from the last minute."""
        found: dict[str, dict[int, float]] = {}
        for name, watched in self._watched.items():
            known = found[name] = {}
            # of a step that was in several runs, the latest counts
            for run, answers in sorted(watched.runs.items(), key=lambda each: each[1][-1].at):
                if len(answers) >= _LEAST_ANSWERS and answers[-1].at > now - _RECENT_S:
                    known.update(zip(run, clipped_mean(_lately(answers, now))[1], strict=False))
        return found

    def _of(self, worker: str) -> _Watched:
        return self._watched.setdefault(worker, _Watched())


def _lately(answers: Sequence[TimedAnswer], now: float) -> list[TimedAnswer]:
    """Return the answers of the last seconds, or the last few if these are fewer."""
    recent = [each for each in answers if each.at > now - _WINDOW_S]
    return recent if len(recent) >= _LEAST_ANSWERS else [*answers][-_LEAST_ANSWERS:]
