"""Handle the messages that a manager receives from workers and clients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.profile_keeper import ProfileKeeper
from hyps.runtime.cluster.manager.results import ResultCollector
from hyps.runtime.cluster.manager.statistics import Statistics
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.manager.tensor_traffic import TensorTraffic
from hyps.runtime.cluster.manager.worker_watch import WorkerWatch
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.frames import MAGIC, Rejection
from hyps.runtime.cluster.protocol.messages import Profiled, Pulse, Timed, WorkerMessage
from hyps.runtime.cluster.protocol.tally import Tally
from hyps.runtime.cluster.protocol.topics import parse_topic
from hyps.runtime.cluster.protocol.withdrawal import Withdrawn
from hyps.runtime.terminal.console import plain

_log = logging.getLogger(__name__)


class MessageReception:
    """The reception of one manager's messages. In its first ``startup_s`` seconds, jobs wait for workers."""

    def __init__(
        self,
        deployment: Deployment,
        workers: WorkerRegistry,
        watch: WorkerWatch,
        submissions: Submissions,
        results: ResultCollector,
        traffic: TensorTraffic,
        statistics: Statistics,
        profiles: ProfileKeeper,
        *,
        startup_s: float,
    ) -> None:
        self._deployment, self._workers, self._watch = deployment, workers, watch
        self._submissions, self._results, self._traffic = submissions, results, traffic
        self._statistics, self._profiles = statistics, profiles
        self._waits_until = time.monotonic() + startup_s
        self._repeats = Tally()

    def receive(self, text: str, payload: bytes, acknowledge: Callable[[], None]) -> None:
        """Handle a message from the hub; a rejected one is counted and acknowledged."""
        try:
            source = parse_topic(text)
            if source is None:
                raise Rejection("unknown topic")
            name = source.user.name
            if source.channel == "output":
                self._workers.seen(name)
            if source.channel == "state":
                if payload:
                    self._watch.state(name, messages.decode_state(payload))
            elif payload.startswith(MAGIC):
                self._traffic.receive(source.user, payload, acknowledge)
                return  # the frame is acknowledged when its tensor is written down
            elif source.channel == "output":
                self._on_worker_message(name, messages.decode_worker_message(payload))
            else:
                self._on_client_message(name, messages.decode_client_message(payload))
        except Rejection as reason:
            self._statistics.rejected[str(reason)] += 1
            if (times := self._repeats.count((text, str(reason)))) is not None:
                _log.warning("dropped a message of %d bytes on %s: %s%s", len(payload), plain(text), reason, times)
        acknowledge()

    def _on_worker_message(self, name: str, message: WorkerMessage) -> None:
        if isinstance(message, Pulse):
            self._workers.pulse(name, message)
            if name in self._workers.online:
                self._statistics.energy.pulse(name, message)
        elif isinstance(message, Timed):
            self._statistics.monitor.timed(name, message, time.monotonic())
            self._on_times(name, message)
        elif isinstance(message, Profiled):
            self._profiles.profiled(name, self._workers.online.get(name), message)
        elif isinstance(message, Withdrawn):
            self._results.withdrawn(name, message)
        else:
            self._results.failed(name, message)

    def _on_times(self, name: str, message: Timed) -> None:
        waited_s = self._statistics.trace.timed(name, message)
        if waited_s is not None:
            run, read_s = self._deployment.run_of(name, message.key.sub_bundle)
            self._profiles.answered(name, self._workers.online.get(name), run, message, waited_s, read_s)

    def _on_client_message(self, name: str, message: messages.Submit | messages.Delivered) -> None:
        has_workers = self._deployment.scheduler is not None
        if not has_workers and time.monotonic() < self._waits_until and isinstance(message, messages.Submit):
            _log.info("a job must wait for workers; its client asks again")
        else:
            self._submissions.handle(name, message, has_workers=has_workers)
