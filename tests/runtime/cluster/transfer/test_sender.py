"""Test that inputs go to workers from the journal or while they arrive, each chunk once, with the lease's key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol.assembler import Assembler, Rejected
from hyps.runtime.cluster.protocol.frames import Key, decode_frame, encode_tensor
from hyps.runtime.cluster.protocol.topics import Role, User
from hyps.runtime.cluster.scheduling.flow import DataFlow, SubBundleGraph
from hyps.runtime.cluster.scheduling.jobs import Job
from hyps.runtime.cluster.scheduling.leases import Lease
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.cluster.transfer.sender import InputSender
from tests.runtime.cluster.scheduling.test_flow import scheduled

JOB = "0" * 32
SOURCE = Key(job=JOB, sub_bundle=0, attempt=0)
RECORD = TensorRecord(dtype="uint8", shape=(100,))
DATA = bytes(range(100))


class Sending:
    """An input sender, the chunks that it sent, and an assembler of arriving ones."""

    def __init__(self, manifest: Manifest, journal: Journal) -> None:
        self.sent: list[tuple[str, int, str, int, bytes]] = []
        self.assembler: Assembler[User] = Assembler(lambda sender, key, tensor: RECORD, limit_bytes=1000)
        self.sender = InputSender(dict.fromkeys("ab", RECORD), journal, self.assembler, self._publish, compress=False)
        flow = DataFlow(SubBundleGraph(scheduled(manifest, ("a b", "y")), [range(1)]), [])
        self.job = Job(job=JOB, client="c", number=1, flow=flow, tensors={})
        self.leases: dict[Key, Lease] = {}

    def lease(self, worker: str, **fed: Key) -> Lease:
        key = Key(job=JOB, sub_bundle=1, attempt=len(self.leases))
        self.leases[key] = Lease(key=key, worker=worker, deadline=0, fed=fed)
        return self.leases[key]

    def _publish(self, lease: Lease, payload: bytes) -> None:
        head, chunk = decode_frame(payload)
        assert head.key == lease.key
        self.sent.append((lease.worker, lease.key.attempt, head.tensor, head.index, bytes(chunk)))

    def receive(self, frame: bytes) -> None:
        """Take a worker's chunk and pass it on, as a manager does."""
        result = self.assembler.add(User(Role.WORKER, "w0"), frame)
        assert not isinstance(result, Rejected)
        self.sender.pass_on(result.header, result.chunk, self.leases)


@pytest.fixture
def sending(manifest: Manifest, tmp_path: Path) -> Iterator[Sending]:
    with closing(Journal(tmp_path)) as journal:
        made = Sending(manifest, journal)
        made.job.tensors.update(journal.accept(JOB, "c", {"b": DATA}))
        yield made


def test_arriving_inputs_are_passed_on_and_others_are_read(sending: Sending) -> None:
    chunks = [*encode_tensor(SOURCE, "a", RECORD, memoryview(DATA), 40)]
    sending.receive(chunks[2])
    first = sending.lease("w1", a=SOURCE)
    sending.sender.send(first, sending.job, ("a", "b"))
    assert sending.sent == [("w1", 0, "a", 2, DATA[80:]), ("w1", 0, "b", 0, DATA)]
    sending.sender.send(sending.lease("w2", a=SOURCE), sending.job, ("a",))
    del sending.sent[:]
    sending.receive(chunks[0])
    assert sending.sent == [("w1", 0, "a", 0, DATA[:40]), ("w2", 1, "a", 0, DATA[:40])]
    del sending.leases[first.key]
    sending.receive(chunks[1])
    assert sending.sent[2:] == [("w2", 1, "a", 1, DATA[40:80])]


def test_other_attempts_are_not_mixed_in(sending: Sending) -> None:
    sending.sender.send(sending.lease("w1", a=SOURCE), sending.job, ("a",))
    for payload in encode_tensor(Key(job=JOB, sub_bundle=0, attempt=1), "a", RECORD, memoryview(DATA), 40):
        sending.receive(payload)
    assert sending.sent == []


def test_a_job_that_is_done_is_forgotten(sending: Sending) -> None:
    sending.sender.send(sending.lease("w1", a=SOURCE), sending.job, ("a",))
    sending.sender.forget(JOB)
    sending.receive(next(encode_tensor(SOURCE, "a", RECORD, memoryview(DATA), 40)))
    assert sending.sent == []
