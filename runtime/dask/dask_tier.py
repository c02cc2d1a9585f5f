"""Offload the rest of inferences to a Dask cluster, and measure the link to it all the time.

Its workers fetch the files of each rest from this device before the first one goes up: a sub-bundle by its sha256, so that
they compute what is compiled here. From then on live tensors alone go up. A rest runs to the network's end there.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from hyps.runtime.bundle.exits import rest_outputs, rest_start
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest, encode_manifest
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.protocol.sendable import check_sendable
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.transfer.file_server import FileServer, local_address
from hyps.runtime.dask import tasks
from hyps.runtime.dask.connect import DaskCluster, check_url, connect
from hyps.runtime.dask.task_plan import DASK_BYTES
from hyps.runtime.errors import BudgetError
from hyps.runtime.execution.session import memory_of, to_numpy
from hyps.runtime.exits.link_meter import LinkMeter, LinkState
from hyps.runtime.exits.tier import RestAnswer

#: Seconds between two small messages, and between two large ones; a scheduler that says nothing for so long is lost.
_PING_S, _LARGE_S, _SILENT_S = 1.0, 5.0, 3.0
_PADDING: Final = 65_536
#: Seconds between two attempts to connect, and the longest wait for an answer.
_AGAIN_S, _LONGEST_S, _POLL_S = 2.0, 60.0, 0.05
_log = logging.getLogger(__name__)


class DaskTier:
    """A Dask cluster as the tier above: an `hyps.runtime.exits.tier.NextTier`.

    ``exits`` are the numbers of those behind which inferences may be offloaded. ``warn`` is told once why the cluster takes
    none. Raises `EngineError` for an address that is none, `BundleError` for a bundle that cannot be sent.
    """

    def __init__(self, bundle: Path, url: str, warn: Callable[[str], None], exits: Sequence[int]) -> None:
        self._bundle, self.address, self._warn, self._exits = bundle, url, warn, exits
        self._manifest = read_manifest(bundle).without_parity()
        check_sendable(self._manifest, largest_bytes=None)
        check_url(url)
        self._meter = LinkMeter()
        self._cluster: DaskCluster | None = None
        self._server: FileServer | None = None
        #: By exit, how its rest is computed, once the workers have its files.
        self._tickets: dict[int, tuple[tasks.Ticket, int]] = {}
        self._heard_at = self._large_at = -_LONGEST_S
        self._told, self._is_ready = "", False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="link to the Dask cluster", daemon=True)
        self._thread.start()

    def link(self, after_exit: int | None = None) -> LinkState | None:
        """Return what the link was measured to be; None while no rest can go up behind this exit, or behind any."""
        if time.monotonic() - self._heard_at > _SILENT_S:
            return None
        return self._meter.state if (after_exit in self._tickets if after_exit else self._tickets) else None

    def wait(self, seconds: float) -> None:
        """Wait until there is a link and the workers have the files, for so long at most."""
        until = time.monotonic() + seconds
        while not (self.link() and self._is_ready) and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(_POLL_S)

    def complete(self, after_exit: int, tensors: Mapping[str, Any], within_s: float) -> RestAnswer:
        """Have the rest of an inference computed; see `NextTier.complete`."""
        cluster, known = self._cluster, self._tickets.get(after_exit)
        if cluster is None or known is None:
            return RestAnswer(problem="the Dask cluster is not ready")
        until = time.monotonic() + min(within_s, _LONGEST_S)
        rest = {name: _array(value) for name, value in tensors.items()}
        sent_bytes = sum(value.nbytes for value in rest.values())
        try:
            future = self._submitted(cluster, known, rest)
            while not future.done():
                now = time.monotonic()
                if now > until or now - self._heard_at > _SILENT_S:
                    future.cancel()
                    problem = "the answer did not come in time" if now > until else f"no answer for {_SILENT_S:g} s"
                    return RestAnswer(problem=problem, sent_bytes=sent_bytes)
                time.sleep(_POLL_S / 10)
            (made,) = future.result()
            outputs = self._checked(after_exit, made)
        except Exception as error:  # Dask's exceptions, and any that its workers raise
            return RestAnswer(problem=f"Dask: {_reason(error)}", sent_bytes=sent_bytes)
        return RestAnswer(outputs=outputs, exit=len(self._manifest.exits), at=self.address, sent_bytes=sent_bytes)

    def close(self) -> None:
        """Leave the cluster."""
        self._ended.set()
        if self._cluster:
            self._cluster.close()
        if self._server:
            self._server.close()

    def _submitted(self, cluster: DaskCluster, known: tuple[tasks.Ticket, int], rest: Mapping[str, Any]) -> Any:
        ticket, nbytes = known
        resources = {"memory": nbytes}
        return cluster.client.submit(tasks.compute, ticket, (rest,), key=f"rest-{uuid.uuid4().hex}", resources=resources)

    def _checked(self, after_exit: int, made: object) -> dict[str, Any]:
        """Return the outputs of an answer as arrays. Raises an exception where it has not all, or others."""
        if not isinstance(made, Mapping):
            raise made if isinstance(made, Exception) else TypeError("no tensors came back")
        tensors = self._manifest.tensors
        names = rest_outputs(self._manifest, after_exit, None)
        return {name: to_numpy(to_value(bytes(memory_of(made[name])), tensors[name])) for name in names}

    def _measure(self) -> None:
        """Connect, have the workers fetch files, and send one timed message after the other (on a thread of its own)."""
        while not self._ended.is_set():
            try:
                if self._cluster is None:
                    self._cluster = connect(self.address)
                    threading.Thread(target=self._prepare, args=(self._cluster,), name="files", daemon=True).start()
                self._ping(self._cluster)
                self._ended.wait(_PING_S)
            except Exception as error:  # Dask's exceptions; the scheduler may come back
                if not self._ended.is_set():
                    self._tell(_reason(error))
                self._heard_at = -_LONGEST_S
                self._ended.wait(_AGAIN_S)

    def _ping(self, cluster: DaskCluster) -> None:
        """Time a small message to the scheduler, and now and then a large one."""
        is_large = self._meter.state is None
        for padding in (b"", bytes(_PADDING)):
            if padding and not (is_large or time.monotonic() - self._large_at > _LARGE_S):
                return
            began = time.monotonic()
            cluster.client.run_on_scheduler(len, padding)
            self._heard_at = time.monotonic()
            if padding:
                self._large_at = self._heard_at
                self._meter.transferred(_PADDING, self._heard_at - began)
            else:
                self._meter.acknowledged(self._heard_at - began)
                self._meter.returned(self._heard_at - began)

    def _prepare(self, cluster: DaskCluster) -> None:
        """Have every worker compute each rest once, so that it has the files (on a thread of its own)."""
        try:
            memory_bytes = cluster.memory_bytes()
            self._server = FileServer(local_address(cluster.host, cluster.port), tls=cluster.tls)
            for number in self._exits:
                self._offer(cluster, self._server, memory_bytes, number)
        except BudgetError as error:
            self._tell(f"its workers have too little memory: {error}")
        except Exception as error:  # Dask's exceptions
            self._tell(_reason(error))
        self._is_ready = True

    def _offer(self, cluster: DaskCluster, server: FileServer, memory_bytes: Mapping[str, int], number: int) -> None:
        budget_bytes = min(memory_bytes.values()) - DASK_BYTES
        run = range(rest_start(self._manifest, number), len(self._manifest.steps))
        (part,) = sub_bundles(self._manifest, [run], budget_bytes)
        ticket = _ticket(server, self._bundle, part, number)
        records = {name: self._manifest.tensors[name] for name in part.inputs}
        zeros = {name: _array(to_value(bytes(record.nbytes), record)) for name, record in records.items()}
        client, resources = cluster.client, {"memory": budget_bytes}
        futures = [
            client.submit(
                tasks.compute, ticket, (zeros,), key=f"files-{uuid.uuid4().hex}", workers=[each], resources=resources
            )
            for each in memory_bytes
        ]
        client.gather(futures)
        self._tickets[number] = ticket, budget_bytes

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            self._warn(f"nothing is offloaded to {self.address}: {problem}")


def _ticket(server: FileServer, bundle: Path, part: Manifest, number: int) -> tasks.Ticket:
    """Return the workers' permission to fetch the files of a rest."""
    document = encode_manifest(part)
    sha256 = hashlib.sha256(document).hexdigest()
    files: dict[str, Path | bytes] = {file.sha256: bundle / file.path for file in part.files}
    token = server.grant(f"rest/{number}", {sha256: document, **files})
    orders = Orders(epoch=0, url=server.url, token=token, authority=server.authority)
    return tasks.Ticket(
        orders=orders, order=SubBundleOrder(number=number, sha256=sha256, size_bytes=len(document)), inputs=1
    )


def _array(value: Any) -> Any:
    """Return a copy that can be pickled: an array, of bytes where numpy does not know the type."""
    array = to_numpy(value)
    return np.array(array) if isinstance(array, np.ndarray) else np.frombuffer(bytes(memory_of(value)), np.uint8)


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
