"""Set how a scheduler leases to the workers of a placement: how many leases each has at a time, and who goes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.speeds import Work
from hyps.runtime.cluster.placement.capacity import WorkerCapacity, streamed_bytes
from hyps.runtime.cluster.planning.step_cost import step_cost
from hyps.runtime.cluster.scheduling.dispatch import LEASE_WINDOW
from hyps.runtime.cluster.scheduling.scheduler import Scheduler

#: A worker gets an input that is larger than this only after it has answered the one before.
_LARGE_INPUT_BYTES = 32 << 20
#: A worker that shares inputs with one faster than this gets one at a time.
_SLOW = 0.75


class LeaseRules:
    """The leases of one deployment's workers: what was ordered last decides."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._read_s: dict[tuple[str, int], float] = {}
        self._windows: dict[str, int] = {}

    def ordered(
        self,
        scheduler: Scheduler,
        assigned: Mapping[str, Mapping[int, Manifest]],
        workers: Sequence[WorkerCapacity],
        speeds: Mapping[str, float],
    ) -> None:
        """Note the sub-bundles that each worker was ordered to hold, by number; set the scheduler's rules for them."""
        self._windows = {worker.name: _window(scheduler, worker, assigned[worker.name]) for worker in workers}
        self._read_s = {
            (worker.name, number): streamed_bytes(part) / worker.storage_bytes_per_s
            for worker in workers
            for number, part in assigned[worker.name].items()
        }
        groups = {worker.name for worker in workers if worker.group}  # a group changes its workers' sub-bundles, too
        scheduler.streaming = frozenset(
            name
            for name, own in assigned.items()
            if len(own) > 1 and (name in groups or any(map(streamed_bytes, own.values())))
        )
        self.set_speeds(scheduler, speeds)

    def set_speeds(self, scheduler: Scheduler, speeds: Mapping[str, float]) -> None:
        """Have the faster of workers that share inputs get them first, and slower ones one at a time.

        Results come in the order of the inputs, so that a second input that waits at a slow worker holds all up.
        """
        replicas = scheduler.replicas
        slow = set[str]()
        for number in replicas.dealt:
            homes = replicas.homes[number]
            fastest = max((speeds.get(home, 0.0) for home in homes), default=0.0)
            slow.update(home for home in homes if speeds.get(home, 0.0) < _SLOW * fastest)
        scheduler.speeds = speeds
        scheduler.windows = {name: 1 if name in slow else window for name, window in self._windows.items()}

    def read_s(self, worker: str, sub_bundle: int) -> float:
        """Return the seconds in which a worker reads weights for each input of a sub-bundle."""
        return self._read_s.get((worker, sub_bundle), 0.0)

    def work(self, scheduler: Scheduler, worker: str, sub_bundle: int) -> Work:
        """Return what a worker has to do for one input of a sub-bundle that it holds."""
        graph = scheduler.graph
        macs = sum(step_cost(self._manifest, self._manifest.steps[index]) for index in graph.runs[sub_bundle])
        return Work(macs=macs, moved_bytes=graph.moved_bytes[sub_bundle], read_s=self.read_s(worker, sub_bundle))


def _window(scheduler: Scheduler, worker: WorkerCapacity, parts: Mapping[int, Manifest]) -> int:
    """Return how many leases a worker has at a time: a single board has no memory for a second large input."""
    if worker.group:
        return LEASE_WINDOW * worker.group
    largest = max((scheduler.graph.input_bytes[number] for number in parts), default=0)
    return LEASE_WINDOW if largest <= _LARGE_INPUT_BYTES else 1
