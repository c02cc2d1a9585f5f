"""Order workers to hold sub-bundles, and serve the files that these need."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.cluster.broker.link import Link
from hyps.runtime.cluster.manager.obedience import Obedience
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, assign
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder, WorkerState
from hyps.runtime.cluster.protocol.topics import Role, topic
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address


class WorkerOrders:
    """The newest orders of each worker of one manager.

    ``online`` are the workers that are there, by name; ``obedience`` watches that orders are carried out.
    """

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        listen: str | None,
        options: ClusterOptions,
        online: Mapping[str, WorkerState],
        obedience: Obedience,
    ) -> None:
        self._bundle, self._manifest, self._listen, self._compress = bundle, manifest, listen, options.compress
        self._online, self._obedience = online, obedience
        self._orders: dict[str, Orders] = {}
        self._epoch = secrets.randbelow(1 << 48)  # no worker holds orders of this number from an earlier manager
        self._connection: Link | None = None
        self._server: FileServer | None = None

    def open(self, connection: Link) -> None:
        """Start to serve files at the named address, or else at the one by which the hub reaches this machine."""
        self._connection = connection
        address = connection.address
        self._server = FileServer(self._listen or local_address(address.host, address.port), tls=address.tls)

    def leave_room(self, *, leave: bool) -> None:
        """Have workers' downloads leave half of the link to inferences, or not any more."""
        if self._server:
            self._server.is_gentle = leave

    def close(self) -> None:
        """Stop serving files."""
        if self._server:
            self._server.close()

    def of(self, name: str) -> Orders | None:
        """Return a worker's orders, None if it has none."""
        return self._orders.get(name)

    def are_known(self, name: str, state: WorkerState) -> bool:
        """Return whether a worker that is in this state has read its newest orders."""
        return name in self._orders and state.epoch == self._orders[name].epoch

    def are_carried_out(self, name: str, state: WorkerState) -> bool:
        """Return whether a worker that is in this state holds what its newest orders say."""
        ordered = {order.number for order in self._orders[name].sub_bundles}
        return self.are_known(name, state) and not state.loading and ordered <= {*state.loaded}

    def order(
        self, placement: Placement, workers: Sequence[WorkerCapacity], only: Collection[str] | None = None
    ) -> dict[str, dict[int, Manifest]]:
        """Order every worker, or those in ``only``, to hold what ``placement`` gives it.

        Return the sub-bundles by worker and number. Raises `BudgetError` if they do not fit.
        """
        assert self._server
        assigned = assign(self._manifest, placement, workers)
        self._epoch += 1
        now = time.monotonic()
        for worker in workers:
            if only is not None and worker.name not in only:
                continue
            busy = worker.name in self._orders and bool(self._orders[worker.name].sub_bundles)
            documents = {number: encode_manifest(part) for number, part in assigned[worker.name].items()}
            hashes = {number: hashlib.sha256(document).hexdigest() for number, document in documents.items()}
            granted: dict[str, Path | bytes] = {hashes[number]: document for number, document in documents.items()}
            for part in assigned[worker.name].values():
                granted.update({file.sha256: self._bundle / file.path for file in part.files})
            self._orders[worker.name] = Orders(
                epoch=self._epoch,
                url=self._server.url,
                token=self._server.grant(worker.name, granted),
                authority=self._server.authority,
                compress=self._compress,
                sub_bundles=tuple(
                    SubBundleOrder(number=number, sha256=hashes[number], size_bytes=len(document))
                    for number, document in documents.items()
                ),
            )
            if documents:
                nbytes = sum(file.size_bytes for part in assigned[worker.name].values() for file in part.files)
                self._obedience.ordered(worker.name, self._epoch, nbytes, busy=busy, now=now)
            else:
                self._obedience.forget(worker.name)
        for name in [None] if only is None else only:
            self.publish(name)
        return assigned

    def publish(self, only: str | None = None) -> None:
        """Publish the orders of all workers, or of one, again; a worker then tries to load what it lacks."""
        if self._connection:
            for name, orders in self._orders.items():
                if name in self._online and only in (None, name):
                    self._connection.publish(
                        topic(Role.WORKER, name, "orders"), messages.encode_message(orders), retain=True
                    )
