"""The status as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hyps.runtime.web.schemas import StatusView, WorkerView

_OF_WORKERS: dict[str, tuple[str, Callable[[WorkerView], float]]] = {
    "hyps_worker_up": ("1 while the board is there.", lambda worker: worker.online),
    "hyps_worker_seen_seconds": ("Seconds since it said anything.", lambda worker: worker.seen_s),
    "hyps_worker_memory_bytes": ("Its budget.", lambda worker: worker.memory_bytes),
    "hyps_worker_resident_bytes": ("What its process holds.", lambda worker: worker.resident_bytes),
    "hyps_worker_leases": ("Inputs that it was sent and has not answered.", lambda worker: worker.leases),
    "hyps_worker_shares_per_second": ("Shares computed a second, of the last ten.", lambda worker: worker.computed_per_s),
    "hyps_worker_drained": ("1 while it gets no shares.", lambda worker: worker.drained),
    "hyps_worker_set_aside": ("1 when it answered wrongly, or cannot load.", lambda worker: worker.set_aside),
}


class _Status(Collector):
    def __init__(self, status: StatusView) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily("hyps_hub_up", "1 while the hub is there.", status.hub)
        yield GaugeMetricFamily("hyps_jobs", "Jobs that are under way.", status.jobs)
        yield CounterMetricFamily("hyps_jobs_answered", "Jobs answered since this bundle is served.", status.answered)
        for name, (what, figure) in _OF_WORKERS.items():
            family = GaugeMetricFamily(name, what, labels=["worker"])
            for worker in status.workers:
                family.add_metric([worker.name], float(figure(worker)))
            yield family
        waiting = GaugeMetricFamily("hyps_share_waiting_jobs", "Jobs that wait for a share.", labels=["share"])
        homes = GaugeMetricFamily("hyps_share_workers", "Workers that hold a share.", labels=["share"])
        for share in status.shares:
            waiting.add_metric([str(share.number)], share.waiting)
            homes.add_metric([str(share.number)], len(share.homes))
        yield waiting
        yield homes


def registry(status: StatusView) -> CollectorRegistry:
    """The metrics of one status."""
    made = CollectorRegistry()
    made.register(_Status(status))
    return made
