"""Carry tensors between clients, workers and the journal: inputs that arrive, inputs of leases, and workers' outputs.

A tensor comes in chunks. Those of a worker's output are sent on at once to the workers that wait for it. A chunk is
acknowledged to the hub when its tensor is complete and written down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.cluster.broker.acknowledgements import UNACKNOWLEDGED, Acknowledgements
from hyps.runtime.cluster.manager.answers import damage_reason
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.results import ResultCollector
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.manager.worker_watch import WorkerWatch
from hyps.runtime.cluster.protocol.assembler import Assembler, Complete, Partial, ReceivedTensor, Rejected
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.topics import Role, User
from hyps.runtime.cluster.scheduling.dispatch import LEASED_BYTES
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.scheduling.scheduler import Scheduler
from hyps.runtime.cluster.transfer.journal import DamagedTensor, Journal
from hyps.runtime.cluster.transfer.sender import InputSender

_log = logging.getLogger(__name__)


class TensorTraffic:
    """The tensors that one manager receives and sends; ``publish`` gets a lease and a chunk of an input for its worker."""

    def __init__(
        self,
        manifest: Manifest,
        deployment: Deployment,
        submissions: Submissions,
        results: ResultCollector,
        watch: WorkerWatch,
        statistics: Statistics,
        journal: Journal,
        publish: Callable[[Lease, bytes], None],
        *,
        compress: bool,
    ) -> None:
        self._manifest, self._deployment, self._submissions = manifest, deployment, submissions
        self._results, self._watch, self._statistics = results, watch, statistics
        self._unacknowledged = Acknowledgements(UNACKNOWLEDGED)
        # apart, so that clients' inputs, however many, leave room for workers' outputs
        self._inputs = Assembler(self._expected_record, limit_bytes=submissions.arriving_bytes)
        outputs_bytes = max(LEASED_BYTES, 2 * _largest_step_bytes(manifest))
        self._outputs = Assembler(self._expected_record, limit_bytes=outputs_bytes)
        self._sender = InputSender(manifest.tensors, journal, self._outputs, publish, compress=compress)

    @property
    def _scheduler(self) -> Scheduler | None:
        return self._deployment.scheduler

    def send_inputs(self, scheduler: Scheduler) -> None:
        """Lease what workers are to compute now, and send them its inputs."""
        for lease in scheduler.tasks(time.monotonic()):
            if (job := scheduler.jobs.get(lease.key.job)) is None:
                scheduler.failed(lease.worker, lease.key)  # the job has just failed
                continue
            self._statistics.trace.sent(lease.key, lease.worker)
            self._results.sent(lease)
            self._watch.sent(lease)
            number, graph = lease.key.sub_bundle, scheduler.graph
            result_bytes = graph.moved_bytes[number] - graph.input_bytes[number]
            self._statistics.monitor.sent(lease.key, lease.worker, graph.runs[number], result_bytes, time.monotonic())
            try:
                self._sender.send(lease, job, scheduler.graph.inputs[lease.key.sub_bundle])
            except DamagedTensor as fault:
                _log.error("job %s fails: %s", lease.key.job, fault)
                scheduler.failed(lease.worker, lease.key)
                self._results.fail(lease.key.job, damage_reason(fault))

    def receive(self, sender: User, frame: bytes, acknowledge: Callable[[], None]) -> None:
        """Take a chunk and forward it; when its tensor is complete, write that down. Raises `Rejection`."""
        result = (self._inputs if sender.role is Role.CLIENT else self._outputs).add(sender, frame)
        if isinstance(result, Rejected):
            raise Rejection(result.reason)
        self._unacknowledged.hold(result.header.key, acknowledge)
        self._forward(result)
        if isinstance(result, Complete):
            self._on_tensor(sender, result.received)
            self._unacknowledged.give(result.header.key)

    def forget(self, job: str) -> None:
        """Drop what has arrived of the outputs of a job that has ended, and what was to be sent for it."""
        self._outputs.forget(job)
        self._sender.forget(job)

    def forget_inputs(self, job: str) -> None:
        """Drop what has arrived of the inputs of a job that is not accepted."""
        self._inputs.forget(job)

    def _forward(self, accepted: Partial | Complete) -> None:
        """Send a worker's chunk on to the workers that wait for its tensor."""
        header = accepted.header
        if header.key.sub_bundle >= 0 and self._scheduler:
            self._statistics.trace.begun(header.key)
            if self._results.passes(header.key):
                self._scheduler.begun(header.key, header.tensor)
            self._sender.pass_on(header, accepted.chunk, self._scheduler.leases)

    def _on_tensor(self, sender: User, received: ReceivedTensor) -> None:
        if received.key.sub_bundle >= 0:
            self._results.arrived(sender.name, received)
        elif (scheduler := self._scheduler) and (
            new := self._submissions.arrived(received, scheduler.generations.newest, scheduler.generations.before)
        ):
            scheduler.add(new.job, new.client, new.digests, new.skipped, exact=new.exact)
            if new.policy:
                self._results.decide_by(new.job, new.policy)
            self._statistics.trace.accepted(new.job)
            if new.after_exit:
                self._statistics.exits.began(new.after_exit)

    def _expected_record(self, sender: User, key: Key, tensor: str) -> TensorRecord:
        """Return the record of a client's input, or of a worker's output that it was asked for. Raises `Rejection`."""
        if key.sub_bundle < 0:
            return self._submissions.expected_record(key, tensor, sender.name if sender.role is Role.CLIENT else "")
        if sender.role is not Role.WORKER or self._scheduler is None:
            raise Rejection("never asked for")
        self._scheduler.check(sender.name, key)
        if tensor not in self._scheduler.graph.outputs.get(key.sub_bundle, ()):
            raise Rejection("unknown tensor")
        return self._manifest.tensors[tensor]


def _largest_step_bytes(manifest: Manifest) -> int:
    """Return the largest sum of the tensors that are there after a step: an upper bound on what arrives for one job."""
    return max(sum(manifest.tensors[name].nbytes for name in step.live) for step in manifest.steps)
