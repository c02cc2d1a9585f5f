"""Convert the status to Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hyps.runtime.web.schemas import CodesView, EnergyView, ExitsView, StatusView, WorkerView

#: The description and the value of each metric of a worker.
_WORKER_METRICS: dict[str, tuple[str, Callable[[WorkerView], float]]] = {
    "hyps_worker_up": ("1 while the worker is connected.", lambda worker: worker.online),
    "hyps_worker_seen_seconds": ("Seconds since its last message.", lambda worker: worker.seen_s),
    "hyps_worker_memory_bytes": ("Its memory budget.", lambda worker: worker.memory_bytes),
    "hyps_worker_resident_bytes": ("Resident bytes of its process.", lambda worker: worker.resident_bytes),
    "hyps_worker_leases": ("Inputs that it was sent and has not answered.", lambda worker: worker.leases),
    "hyps_worker_shares_per_second": ("Sub-bundles computed per second.", lambda worker: worker.computed_per_s),
    "hyps_worker_drained": ("1 while the operator keeps sub-bundles away from it.", lambda worker: worker.drained),
    "hyps_worker_set_aside": ("1 while it is unused: it answered wrongly or cannot load.", lambda worker: worker.set_aside),
}


class _Status(Collector):
    def __init__(self, status: StatusView) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield GaugeMetricFamily("hyps_hub_up", "1 while the manager has a connection to the hub.", status.hub)
        yield GaugeMetricFamily("hyps_jobs", "Jobs under way.", status.jobs)
        yield CounterMetricFamily("hyps_jobs_answered", "Jobs answered since this bundle is served.", status.answered)
        for name, (description, figure) in _WORKER_METRICS.items():
            family = GaugeMetricFamily(name, description, labels=["worker"])
            for worker in status.workers:
                family.add_metric([worker.name], float(figure(worker)))
            yield family
        if status.energy:
            yield from _energy(status.energy)
        waiting = GaugeMetricFamily("hyps_share_waiting_jobs", "Jobs that wait for a sub-bundle.", labels=["share"])
        homes = GaugeMetricFamily("hyps_share_workers", "Workers that hold a sub-bundle.", labels=["share"])
        for share in status.shares:
            waiting.add_metric([str(share.number)], share.waiting)
            homes.add_metric([str(share.number)], len(share.homes))
        yield waiting
        yield homes
        if status.codes:
            yield from _codes(status.codes)
        if status.exits:
            yield from _exits(status.exits)
        yield from _queues(status.workers)
        yield from _times(status)


def _codes(codes: CodesView) -> Iterator[Metric]:
    """Yield how often codes replaced an answer, and whose."""
    for name, description, label, counts in (
        ("hyps_decoded", "Coded groups that were decoded.", "code", codes.decoded),
        ("hyps_worker_late_shards", "Shards that were decoded because their worker was late.", "worker", codes.late),
        ("hyps_worker_wrong_shards", "Wrong answers that the parity check found.", "worker", codes.wrong),
        ("hyps_worker_withdrawn_shards", "Answers not sent as nobody needed them.", "worker", codes.withdrawn),
        ("hyps_worker_spared_shards", "Withdrawn answers that were not computed either.", "worker", codes.spared),
    ):
        family = CounterMetricFamily(name, description, labels=[label])
        for key, count in counts.items():
            family.add_metric([key], count)
        yield family


def _exits(exits: ExitsView) -> Iterator[Metric]:
    """Yield which exits answered, behind which offloaded jobs began, and what came of the rests that went up."""
    answered = CounterMetricFamily("hyps_exits", "Jobs that an exit answered.", labels=["exit"])
    for exit, count in exits.answered.items():
        answered.add_metric([exit], count)
    yield answered
    begun = CounterMetricFamily("hyps_rests", "Offloaded jobs that began behind an exit.", labels=["exit"])
    for exit, count in exits.begun.items():
        begun.add_metric([exit], count)
    yield begun
    offloads = CounterMetricFamily("hyps_offloads", "Rests of jobs that went to a tier above.", labels=["outcome", "tier"])
    for tier, count in exits.offloaded.items():
        offloads.add_metric(["answered", tier], count)
    offloads.add_metric(["fell_back", ""], exits.fell_back)
    yield offloads


def _queues(workers: Sequence[WorkerView]) -> Iterator[Metric]:
    """Yield the histogram of each worker's queue in the last minute (figure 4.29)."""
    family = GaugeMetricFamily(
        "hyps_worker_queue_samples",
        "Samples of the last minute with so many inputs at a worker or waiting for it; 10 is 10 and more.",
        labels=["worker", "inputs"],
    )
    for worker in workers:
        for number, count in enumerate(worker.queues):
            family.add_metric([worker.name, str(number)], count)
    yield family


def _times(status: StatusView) -> Iterator[Metric]:
    """Yield what was measured under load: seconds of computing and of links, and the throughput that is possible."""
    service = GaugeMetricFamily(
        "hyps_share_service_seconds", "Median seconds of a worker for an input.", labels=["share", "worker"]
    )
    for share in status.shares:
        for worker, seconds in share.service_s.items():
            service.add_metric([str(share.number), worker], seconds)
    yield service
    link = GaugeMetricFamily("hyps_worker_link_seconds", "Median seconds that results travel.", labels=["worker"])
    for line in status.workers:
        if line.link_s is not None:
            link.add_metric([line.name], line.link_s)
    yield link
    handling = GaugeMetricFamily("hyps_worker_message_seconds", "Seconds of work for a message.", labels=["worker"])
    for line in status.workers:
        if line.message_s is not None:
            handling.add_metric([line.name], line.message_s)
    yield handling
    if rebalancing := status.rebalancing:
        present, best = rebalancing.present_per_s, rebalancing.best_per_s
        yield GaugeMetricFamily("hyps_present_jobs_per_second", "A full stream's rate by measured speeds.", present)
        yield GaugeMetricFamily("hyps_best_jobs_per_second", "That of the best placement.", best)
        yield GaugeMetricFamily("hyps_moving", "1 while runs of steps move.", rebalancing.phase is not None)


def _energy(energy: EnergyView) -> Iterator[Metric]:
    """Yield the watts of each board, and the joules of an inference, by part; each board's has its source as a label."""
    watts = GaugeMetricFamily("hyps_board_watts", "Average power over a minute.", labels=["board", "source"])
    idle = GaugeMetricFamily("hyps_board_idle_watts", "Power without work.", labels=["board", "source"])
    for board in energy.boards:
        if board.counted_with is None:
            watts.add_metric([board.name, board.source], board.watts)
            idle.add_metric([board.name, board.source], board.idle_watts)
    yield watts
    yield idle
    yield GaugeMetricFamily("hyps_boards_without_power", "Boards whose power is not known.", len(energy.unknown))
    joules = GaugeMetricFamily("hyps_inference_joules", "Joules of an inference, on all known boards.", labels=["part"])
    for part, value in (("static", energy.static_joules), ("dynamic", energy.dynamic_joules)):
        if value is not None:
            joules.add_metric([part], value)
    yield joules


def registry(status: StatusView) -> CollectorRegistry:
    """Return the metrics of one status."""
    metrics = CollectorRegistry()
    metrics.register(_Status(status))
    return metrics
