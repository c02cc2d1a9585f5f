"""Offload the rest of inferences to a manager at a hub, and measure the link to it all the time.

Everything but the rest itself happens on threads of its own, so that a hub that is slow to connect, or gone, delays nothing.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.broker.connection import Connection
from hyps.runtime.cluster.broker.join import resolve_join
from hyps.runtime.cluster.protocol.client_messages import MOST_PADDING, Pong
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.tier_jobs import TierJobs
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.exits.link_meter import LinkMeter, LinkState
from hyps.runtime.exits.tier import RestAnswer

#: Seconds between two small messages, and at least between two large ones, which take this part of the link's time.
_PING_S, _LARGE_S, _LARGE_SHARE = 1.0, 5.0, 0.05
#: A link on which the manager says nothing for so long is lost.
SILENT_S: Final = 3.0
#: The longest wait for an answer.
_LONGEST_S = 60.0
#: The most bytes that wait for the hub's acknowledgement: the live tensors are not in memory a second time.
_UNSENT_BYTES = 256 << 10
#: Fewer bytes say little of a rate. A large message may take this long: 44 kbit/s.
_LEAST_BYTES, _LARGEST_PING_S = 32_768, 12.0
_POLL_S = 0.01
_log = logging.getLogger(__name__)


class HubTier:
    """The manager at a hub as the tier above: an `hyps.runtime.exits.tier.NextTier`.

    It must serve the same bundle, by its manifest's sha256. Nothing of its answers is decoded from codes. ``exits`` are the
    numbers of those behind which inferences may be offloaded, all by default: the manager prepares to begin there. ``warn``
    is told once why it takes no inferences. Raises `HubError` for an address or join file that is none, `BundleError` for a
    bundle that cannot be sent.
    """

    def __init__(
        self,
        bundle: Path,
        hub: str | None,
        join_file: Path | None,
        warn: Callable[[str], None] = _log.warning,
        *,
        exits: Sequence[int] | None = None,
    ) -> None:
        self._manifest = read_manifest(bundle)
        self._exits = tuple(range(1, len(self._manifest.exits)) if exits is None else exits)
        #: Those behind which the manager lets inferences begin now, and whether there will soon be more.
        self._open: Collection[int] = ()
        self._waits = True
        check_sendable(self._manifest)
        self._bundle_sha256 = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest()
        join = resolve_join(hub, join_file, "--offload")
        self.address = str(join.address)
        self._join, self._name, self._warn = join, join.name or f"c{secrets.token_hex(8)}", warn
        self._meter = LinkMeter()
        self._jobs: TierJobs | None = None
        self._problem = ""
        self._number, self._sent_at = 0, 0.0
        self._heard_at = self._large_at = -_LONGEST_S
        self._is_timed = False
        #: Those under way that are large enough to delay messages, and to show the link's rate themselves.
        self._rests: set[str] = set()
        self._ended, self._answered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._measure, name="link to the tier above", daemon=True)
        self._thread.start()

    def link(self, after_exit: int | None = None) -> LinkState | None:
        """Return what the link was measured to be; None while no rest can go up behind this exit, or behind any."""
        jobs = self._jobs
        if not (self._open if after_exit is None else after_exit in self._open):
            return None
        if jobs is None or not jobs.connected or self._problem or time.monotonic() - self._heard_at > self._silent_s:
            return None
        return self._meter.state

    @property
    def _silent_s(self) -> float:
        """How long nothing may be heard: longer on a link so slow that what is on its way takes long."""
        state = self._meter.state
        return SILENT_S + (2 * _UNSENT_BYTES / state.bandwidth_bytes_per_s if state else 0.0)

    def wait(self, seconds: float) -> None:
        """Wait until there is a link, for so long at most."""
        until = time.monotonic() + seconds
        while (not self.link() or self._waits) and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(_POLL_S)

    def complete(self, after_exit: int, tensors: Mapping[str, Any], within_s: float) -> RestAnswer:
        """Have the rest of an inference computed; see `NextTier.complete`."""
        if (jobs := self._jobs) is None:
            return RestAnswer(problem="the hub is not connected")
        name, until = secrets.token_hex(16), time.monotonic() + min(within_s, _LONGEST_S)
        if sum(self._manifest.tensors[each].nbytes for each in tensors) >= _LEAST_BYTES:
            self._rests.add(name)
        try:
            job = jobs.begin(name, 0, "", tensors, after_exit)
            problem = jobs.finish(name, until, self._silent_s)
        finally:
            self._rests.discard(name)
        if problem:
            self._heard_at = -_LONGEST_S  # until the manager is heard of again
            return RestAnswer(problem=problem, sent_bytes=job.sent_bytes)
        if job.sent_s and job.sent_bytes >= _LEAST_BYTES:
            self._meter.transferred(job.sent_bytes, job.sent_s)
            self._large_at = time.monotonic()
        exited = job.exited
        return RestAnswer(
            outputs=job.outputs,
            exit=exited.exit if exited else len(self._manifest.exits),
            ended_by=exited.ended_by if exited else "network",
            at=" > ".join(each for each in (self.address, exited.at if exited else "") if each),
            sent_bytes=job.sent_bytes,
        )

    def close(self) -> None:
        """Leave the hub."""
        self._ended.set()
        self._answered.set()
        if self._jobs:
            self._jobs.close()

    def _measure(self) -> None:
        """Connect, and send one timed message after the other (on a thread of its own)."""
        try:
            self._jobs = TierJobs(
                self._manifest,
                self._bundle_sha256,
                self._name,
                partial(Connection, self._join),
                patient=True,
                exact=True,
                unsent_bytes=_UNSENT_BYTES,
                ponged=self._ponged,
            )
        except RuntimeFault as fault:
            self._tell(str(fault))
            return
        while not self._ended.is_set():
            self._answered.clear()
            if self._jobs.connected:
                self._ping(self._jobs)
                self._answered.wait(self._silent_s)
            self._ended.wait(max(0.0, self._sent_at + _PING_S - time.monotonic()))

    def _ping(self, jobs: TierJobs) -> None:
        state, now = self._meter.state, time.monotonic()
        large_s = MOST_PADDING / state.bandwidth_bytes_per_s if state else 0.0
        is_due = now - self._large_at > max(_LARGE_S, large_s / _LARGE_SHARE)
        padding = MOST_PADDING if is_due and self._number and not self._rests else 0
        self._large_at = now if padding else self._large_at
        self._number += 1
        self._sent_at = now
        self._is_timed = not padding and not self._rests
        seconds = jobs.ping(self._number, padding, self._exits, _LARGEST_PING_S)
        if seconds is None or self._rests:
            return
        if padding:
            self._meter.transferred(padding, seconds)
        else:
            self._meter.acknowledged(seconds)

    def _ponged(self, pong: Pong) -> None:
        """Take the manager's answer (on the thread of replies)."""
        self._heard_at = time.monotonic()
        if pong.problem:
            self._tell(pong.problem)
        self._problem, self._open, self._waits = pong.problem, pong.exits, pong.waits
        if pong.number == self._number and self._is_timed and not self._rests:
            self._meter.returned(self._heard_at - self._sent_at)
        self._answered.set()

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._warn(f"nothing is offloaded to {self.address}: {problem}")


def hub_or_join(text: str) -> tuple[str | None, Path | None]:
    """Return a hub's address or the path of a join file: whichever the text is."""
    return (text, None) if "://" in text else (None, Path(text))
