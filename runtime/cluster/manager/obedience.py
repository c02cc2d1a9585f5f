"""Watch that workers obey their orders: they answer them soon, and load their sub-bundles in the time that files take."""

from __future__ import annotations

from dataclasses import dataclass

from hyps.runtime.cluster.manager.options import Timeouts

#: A worker that fetches files slower than this has too little network to be of use.
_LEAST_BYTES_PER_S = 500_000
#: The seconds for which a worker that was set aside a second time gets nothing, even if it starts again; doubled each time.
_BAR_S, _LONGEST_BAR_S = 300.0, 86_400.0


@dataclass(slots=True, kw_only=True)
class _Task:
    """A worker's orders that are not carried out: their number, the bytes of their files, and when they must be."""

    epoch: int
    nbytes: int
    due: float
    answered: bool = False


class Obedience:
    """The orders that the workers of one manager have not carried out yet. Times are seconds of the caller's clock."""

    def __init__(self, timeouts: Timeouts, lease_s: float) -> None:
        self._timeouts, self._lease_s = timeouts, lease_s
        self._tasks: dict[str, _Task] = {}
        self._offences: dict[str, tuple[int, float]] = {}

    def ordered(self, name: str, epoch: int, nbytes: int, *, busy: bool, now: float) -> None:
        """Note a worker's new orders; one that is ``busy`` may have to compute an input before it reads them.

        New orders give no more time to a worker that has not answered the ones before, and no less to one that is loading.
        """
        due = now + self._timeouts.obey_s + (self._lease_s if busy else 0.0)
        if before := self._tasks.get(name):
            due = max(due, before.due) if before.answered else before.due
        self._tasks[name] = _Task(epoch=epoch, nbytes=nbytes, due=due)

    def answered(self, name: str, epoch: int, now: float, *, done: bool) -> None:
        """Note a worker's answer to its orders of this number; ``done``: it has carried them out."""
        task = self._tasks.get(name)
        if task is None or task.epoch != epoch:
            return
        if done:
            del self._tasks[name]
        elif not task.answered:
            task.answered = True
            task.due = now + self._timeouts.load_s + task.nbytes / _LEAST_BYTES_PER_S

    def overdue(self, now: float) -> dict[str, str]:
        """Return the workers that have not obeyed in time, each with the reason for the operator; forget their orders."""
        late = {name: task for name, task in self._tasks.items() if task.due < now}
        for name in late:
            del self._tasks[name]
        return {
            name: "it never loaded its sub-bundles" if task.answered else "it does not answer its orders"
            for name, task in late.items()
        }

    def forget(self, name: str) -> None:
        """Forget a worker's orders: it is gone, or gets no more."""
        self._tasks.pop(name, None)

    def offended(self, name: str, now: float) -> None:
        """Note that a worker is set aside: the first time until it starts again, then for longer each time."""
        count = self._offences.get(name, (0, 0.0))[0] + 1
        bar_s = min(_BAR_S * 2.0 ** min(count - 2, 30), _LONGEST_BAR_S) if count > 1 else 0.0
        self._offences[name] = count, now + bar_s

    def acquit(self, name: str) -> None:
        """Forget that a worker was set aside: it has computed something since."""
        self._offences.pop(name, None)

    def is_barred(self, name: str, now: float) -> bool:
        """Return whether a worker is barred for now, whichever process has its name."""
        return name in self._offences and now < self._offences[name][1]
