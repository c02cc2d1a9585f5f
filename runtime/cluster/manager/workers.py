"""The manager's view of its workers: who is there, what each holds, and the orders it was given."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.placement.partitioner import Offer
from hyps.runtime.cluster.placement.placement import Placement, assign
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.messages import Orders, Pulse, ShareOrder, WorkerState
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address

#: A worker's keepalive and the time to connect again fit in, after the hub was gone.
_SILENCE_S = 15.0
#: A worker that could not load a share is told to try again, so many times.
_RETRY_S, _RETRIES = 5.0, 3
_NO_PULSE = Pulse(session="0" * 32, resident_bytes=0, queue=0)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChange:
    """What a worker's message means: it is new here, or gone; what it loads and has loaded of its newest orders.

    ``reconnected``: what was sent to it may not have arrived. ``other``: it advertises something else than before.
    """

    joined: bool = False
    lost: bool = False
    reconnected: bool = False
    other: bool = False
    loading: tuple[int, ...] = ()
    loaded: tuple[int, ...] = ()


class WorkerRegistry:
    """All workers."""

    def __init__(self, bundle: Path, manifest: Manifest, listen: str | None, *, pack: bool = False) -> None:
        self._bundle, self._manifest, self._listen, self._pack = bundle, manifest, listen, pack
        self.online: dict[str, WorkerState] = {}
        self._orders: dict[str, Orders] = {}
        self._set_aside: set[str] = set()
        self.drained: set[str] = set()
        self._pulses: dict[str, tuple[float, Pulse]] = {}
        self._silent: dict[str, float] = {}
        self._troubled: dict[str, tuple[int, float]] = {}
        self._epoch = 0
        self._connection: Link | None = None
        self._server: FileServer | None = None

    def open(self, connection: Link) -> None:
        """Begin to serve files, at the address by which the hub sees this machine if no other was named."""
        self._connection = connection
        address = connection.address
        self._server = FileServer(self._listen or local_address(address.host, address.port), tls=address.tls)

    def close(self) -> None:
        """Serve no longer."""
        if self._server:
            self._server.close()

    def heard(self, name: str, state: WorkerState) -> RegistryChange:
        """A worker said how it is."""
        before = self.online.get(name)
        self._silent.pop(name, None)
        self._pulses[name] = time.monotonic(), self._pulses.get(name, (0.0, _NO_PULSE))[1]
        if not state.online:
            if before is None or before.session != state.session:  # of a process that is long gone
                return RegistryChange()
            self._drop(name)
            return RegistryChange(lost=True)
        self.online[name] = state
        self._epoch = max(self._epoch, state.epoch)
        if state.problem and (before is None or before.problem != state.problem):
            log.warning("%s: %s", name, state.problem)
        restarted = before is not None and before.session != state.session
        current = name in self._orders and state.epoch == self._orders[name].epoch
        if restarted or not (state.problem or state.loading):
            self._troubled.pop(name, None)
        elif current and not state.loading:
            tries, _ = self._troubled.get(name, (0, 0.0))
            self._troubled[name] = (tries + 1, time.monotonic() + _RETRY_S)
        return RegistryChange(
            joined=before is None or restarted,
            lost=restarted,
            reconnected=before is not None and before.connects != state.connects,
            other=before is not None and _offer(name, before) != _offer(name, state),
            loading=state.loading if current else (),
            loaded=state.loaded if current and not state.loading else (),
        )

    def seen(self, name: str) -> None:
        """A worker said something; a long tensor delays what it says of itself."""
        if name in self._pulses:
            self._pulses[name] = time.monotonic(), self._pulses[name][1]

    def pulse(self, name: str, pulse: Pulse) -> None:
        """A worker is there still; of one that offers nothing there is nothing to know."""
        if name in self.online and self.online[name].session == pulse.session:
            self._pulses[name] = time.monotonic(), pulse

    def last_pulse(self, name: str) -> tuple[float, Pulse]:
        """How many seconds ago a worker said anything, and what it said of itself."""
        at, pulse = self._pulses[name]
        return time.monotonic() - at, pulse

    def hub_is_back(self) -> None:
        """The hub may have forgotten the orders, and not know who was lost meanwhile: who is there says so again."""
        self._silent = dict.fromkeys(self.online, time.monotonic() + _SILENCE_S)
        self.order_again()

    def lapsed(self) -> list[str]:
        """Workers that did not say that they are still there, or that cannot load what they hold, in several tries."""
        now = time.monotonic()
        gone = [name for name, until in self._silent.items() if until < now and name in self.online]
        for name in gone:
            self._drop(name)
        for name, (tries, at) in [*self._troubled.items()]:
            if at < now and tries > _RETRIES:
                log.warning("%s is set aside: it cannot load its shares", name)
                del self._troubled[name]
                self._set_aside.add(name)
                gone.append(name)
            elif at < now:
                self._troubled[name] = (tries, now + _RETRY_S)
                self.order_again(name)
        return gone

    def _drop(self, name: str) -> None:
        del self.online[name]
        self._set_aside.discard(name)
        self._silent.pop(name, None)
        self._troubled.pop(name, None)
        self._pulses.pop(name, None)

    def set_aside(self, name: str) -> None:
        """Ask nothing more of a worker that answers wrongly, until it is started again."""
        self._set_aside.add(name)

    def is_set_aside(self, name: str) -> bool:
        """Whether a worker answered wrongly."""
        return name in self._set_aside

    def offers(self, safe: frozenset[str] | None) -> list[Offer]:
        """What the workers that are there have, in the order of their names; only the ``safe`` may see inputs."""
        return [
            _offer(name, state, safe=safe is None or name in safe)
            for name, state in sorted(self.online.items())
            if name not in self._set_aside | self.drained
        ]

    def describe(self, name: str) -> str:
        """A worker's abilities, for people."""
        state = self.online[name]
        what = f"a group of {state.group}, " if state.group else ""
        return f"{what}{state.memory_bytes / 1e6:.0f} MB, {state.threads} threads, {state.macs_per_s / 1e9:.1f} GMAC/s"

    def order(self, placement: Placement, offers: Sequence[Offer]) -> dict[str, dict[int, Manifest]]:
        """Tell every worker what it holds, which is returned. Raises `BudgetError` where that does not fit."""
        assert self._server
        parts = assign(self._manifest, placement, offers)
        self._epoch += 1
        for offer in offers:
            documents = {number: encode_manifest(part) for number, part in parts[offer.name].items()}
            hashes = {number: hashlib.sha256(document).hexdigest() for number, document in documents.items()}
            shelf: dict[str, Path | bytes] = {hashes[number]: document for number, document in documents.items()}
            for part in parts[offer.name].values():
                shelf.update({file.sha256: self._bundle / file.path for file in part.files})
            self._orders[offer.name] = Orders(
                epoch=self._epoch,
                url=self._server.url,
                token=self._server.grant(offer.name, shelf),
                authority=self._server.authority,
                pack=self._pack,
                shares=tuple(
                    ShareOrder(number=number, sha256=hashes[number], size_bytes=len(document))
                    for number, document in documents.items()
                ),
            )
        self.order_again()
        return parts

    def order_again(self, only: str | None = None) -> None:
        """Publish the orders again, all or those of one worker: it tries to load what it has not."""
        if self._connection:
            for name, orders in self._orders.items():
                if name in self.online and only in (None, name):
                    self._connection.publish(
                        topic(Role.WORKER, name, "orders"), messages.encode_message(orders), retain=True
                    )


def _offer(name: str, state: WorkerState, *, safe: bool = True) -> Offer:
    return Offer(
        name=name,
        memory_bytes=state.memory_bytes,
        macs_per_s=max(1, state.macs_per_s),
        storage_bytes_per_s=max(1, state.storage_bytes_per_s),
        safe=safe,
        group=state.group,
    )


def lines(manifest: Manifest, placement: Placement, parts: Mapping[str, Mapping[int, Manifest]]) -> Iterator[str]:
    """The placement for people: a line for each share on each worker."""
    for number, (run, homes, reason) in enumerate(zip(placement.runs, placement.homes, placement.reasons, strict=True)):
        steps = [manifest.steps[index].name for index in run]
        names = steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        for home in homes:
            part = parts[home][number]
            weights = sum(step.weights.size_bytes for step in part.steps if step.weights)
            pinned = sum(step.pinned_bytes for step in part.steps)
            stay = "all stay in memory" if pinned == weights else f"{pinned / 1e6:.1f} MB stay in memory"
            yield f"share {number} on {home}: {names}; {weights / 1e6:.1f} MB of weights, {stay}; {reason}"
