"""Sends workers the inputs of what they are leased: from the journal, or chunk by chunk while they arrive (cut-through).

A tensor from one worker to the next goes through the hub, the manager, and the hub again. Where each waits for all of it,
that takes four links' time one after the other; passed on in chunks, it takes little more than the hub's own link needs for
it twice. The journal has it before anything is acknowledged all the same, and who gets it compares its digest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.protocol.assembler import Assembler
from hyps.runtime.cluster.protocol.frames import Head, Key, cut, message
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.scheduler import Lease
from hyps.runtime.cluster.transfer.journal import Journal

#: Publishes a message to the worker of a lease.
PublishInput = Callable[[Lease, bytes], None]


class Sender:
    """With ``pack``, tensors are compressed on their way."""

    def __init__(
        self,
        records: Mapping[str, TensorRecord],
        journal: Journal,
        assembler: Assembler,
        publish: PublishInput,
        *,
        pack: bool,
    ) -> None:
        self._records, self._journal, self._assembler = records, journal, assembler
        self._publish, self._pack = publish, pack
        self._followers: defaultdict[tuple[Key, str], list[Lease]] = defaultdict(list)

    def send(self, lease: Lease, job: Job, inputs: tuple[str, ...]) -> None:
        """Send the inputs of a lease of a job, those that are still arriving as far as they are there."""
        for name in inputs:
            if source := lease.fed.get(name):
                for head, chunk in self._assembler.so_far(source, name):
                    self._publish(lease, message(msgspec.structs.replace(head, key=lease.key), chunk, pack=self._pack))
                self._followers[source, name].append(lease)
            else:
                data = memoryview(self._journal.read(job.tensors[name]))
                for payload in cut(lease.key, name, self._records[name], data, pack=self._pack):
                    self._publish(lease, payload)

    def pass_on(self, head: Head, chunk: memoryview, leases: Mapping[Key, Lease]) -> None:
        """A chunk arrived: who waits for it gets it, if its lease still runs."""
        for lease in self._followers.get((head.key, head.tensor), ()):
            if lease.key in leases:
                self._publish(lease, message(msgspec.structs.replace(head, key=lease.key), chunk))

    def forget(self, job: str) -> None:
        """A job is done, or failed."""
        for place in [place for place in self._followers if place[0].job == job]:
            del self._followers[place]
