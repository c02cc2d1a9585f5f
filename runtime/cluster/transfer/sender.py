"""Send workers the inputs of their leases: from the journal, or chunk by chunk while they arrive (cut-through).

A tensor from one worker to the next goes through the hub, the manager, and the hub again. If each waited for the whole
tensor, it would take the time of four links in sequence. Forwarded in chunks, it takes little more than two passes over the
hub's own link. The journal still has the tensor before it is acknowledged, and the receiver compares its digest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol.assembler import Assembler
from hyps.runtime.cluster.protocol.frames import ChunkHeader, Key, encode_frame, encode_tensor
from hyps.runtime.cluster.protocol.topics import User
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.transfer.journal import Journal

#: Publishes a message to the worker of a lease.
PublishInput = Callable[[Lease, bytes], None]


class InputSender:
    """The sender of one manager's inputs to workers; with ``compress``, tensors travel compressed."""

    def __init__(
        self,
        records: Mapping[str, TensorRecord],
        journal: Journal,
        assembler: Assembler[User],
        publish: PublishInput,
        *,
        compress: bool,
    ) -> None:
        self._records, self._journal, self._assembler = records, journal, assembler
        self._publish, self._compress = publish, compress
        self._followers: defaultdict[tuple[Key, str], list[Lease]] = defaultdict(list)

    def send(self, lease: Lease, job: Job, inputs: tuple[str, ...]) -> None:
        """Send a lease's inputs; of an input that is still arriving, the chunks that are there."""
        for name in inputs:
            if source := lease.fed.get(name):
                for header, chunk in self._assembler.arrived_chunks(source, name):
                    header = msgspec.structs.replace(header, key=lease.key)
                    self._publish(lease, encode_frame(header, chunk, compress=self._compress))
                self._followers[source, name].append(lease)
            else:
                data = memoryview(self._journal.read(job.tensors[name]))
                for frame in encode_tensor(lease.key, name, self._records[name], data, compress=self._compress):
                    self._publish(lease, frame)

    def pass_on(self, header: ChunkHeader, chunk: memoryview, leases: Mapping[Key, Lease]) -> None:
        """Send a chunk that has just arrived to those of the running ``leases`` that wait for its tensor."""
        for lease in self._followers.get((header.key, header.tensor), ()):
            if lease.key in leases:
                self._publish(lease, encode_frame(msgspec.structs.replace(header, key=lease.key), chunk))

    def forget(self, job: str) -> None:
        """Forget who waits for tensors of a job that has ended."""
        for place in [place for place in self._followers if place[0].job == job]:
            del self._followers[place]
