"""Test the replies to clients: inputs are asked for when there is room, and again if they are lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager import answers as answers_module
from hyps.runtime.cluster.manager.answers import MAX_OPEN_JOBS
from hyps.runtime.cluster.manager.submissions import Submissions
from hyps.runtime.cluster.protocol import client_messages
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.client_messages import Accepted, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.protocol.frames import Key, Rejection, digest_of
from hyps.runtime.cluster.protocol.message_base import Message
from hyps.runtime.cluster.transfer.journal import Journal

BUNDLE = "b" * 64


class Replies(list[Message]):
    """The replies, decoded; a frame of a result counts as `Accepted` of job f...f."""

    def publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        assert topic == "hyps/clients/c/result"
        self.append(client_messages.decode_reply(payload) if payload.startswith(b"{") else Accepted(job="f" * 32))


class NoCuts:
    """A placement that is never cut."""

    is_coming = False

    def ask(self, number: int) -> str:
        return f"not behind exit {number}"


@pytest.fixture
def replies() -> Replies:
    return Replies()


@pytest.fixture
def submissions(manifest: Manifest, tmp_path: Path, replies: Replies) -> Submissions:
    return Submissions(manifest, BUNDLE, Journal(tmp_path / "journal"), replies.publish, NoCuts())


def job(number: int) -> str:
    return f"{number:032x}"


def submit(submissions: Submissions, number: int, client: str = "c", *, workers: bool = True, bundle: str = BUNDLE) -> None:
    submissions.handle(client, Submit(job=job(number), bundle=bundle), before if workers else None)


def before(step: int) -> tuple[int, ...]:
    """Return the sub-bundles before a step, if each step is one."""
    return tuple(range(step))


def arrival(submissions: Submissions, manifest: Manifest, number: int) -> ReceivedTensor:
    (name,) = manifest.inputs
    key = Key(job=job(number), sub_bundle=-1, attempt=0)
    record = submissions.expected_record(key, name, "c")
    data = bytearray(record.nbytes)
    return ReceivedTensor(key=key, tensor=name, record=record, digest=digest_of(data), data=data)


def test_inputs_are_asked_for_and_written_down(submissions: Submissions, manifest: Manifest, replies: Replies) -> None:
    submit(submissions, 1)
    assert replies == []
    submissions.admit(0, before)
    assert replies == [SendInputs(job=job(1))]
    new = submissions.arrived(arrival(submissions, manifest, 1), 0, before)
    assert new
    assert (new.job, new.client) == (job(1), "c")
    assert replies[1:] == [Accepted(job=job(1))]
    submit(submissions, 1)
    assert replies[2:] == [Accepted(job=job(1))]


def test_lost_inputs_are_asked_for_again(
    submissions: Submissions, manifest: Manifest, replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are not asked for again while their chunks come."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    submit(submissions, 1)
    submissions.admit(0, before)
    now += 1
    submissions.expected_record(Key(job=job(1), sub_bundle=-1, attempt=0), manifest.inputs[0], "c")
    now += 1
    submit(submissions, 1)
    assert replies == [SendInputs(job=job(1))]
    now += 2
    submit(submissions, 1)
    assert replies == [SendInputs(job=job(1))] * 2
    now += 31
    assert submissions.expire() == [job(1)]
    with pytest.raises(Rejection, match="not announced"):
        arrival(submissions, manifest, 1)


def test_a_result_is_not_sent_again_while_it_is_on_its_way(
    submissions: Submissions, manifest: Manifest, replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client asks every two seconds; a large result takes longer, and would fill the hub."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(answers_module, "_RESULT_BYTES_PER_S", 2)  # 16 bytes take eight seconds
    submit(submissions, 1)
    submissions.admit(0, before)
    submissions.arrived(arrival(submissions, manifest, 1), 0, before)
    scores = bytes(16)
    submissions._journal.keep(job(1), "scores", digest_of(scores), scores)
    submissions._journal.finish(job(1), "done")
    replies.clear()
    submissions.answers.send(job(1))
    for _ in range(3):
        now += 2
        submit(submissions, 1)
    assert len(replies) == 1
    now += 3
    submit(submissions, 1)
    assert len(replies) == 2


def test_few_inputs_are_on_their_way_at_a_time(submissions: Submissions, replies: Replies) -> None:
    for number in range(40):
        submit(submissions, number)
    submissions.admit(MAX_OPEN_JOBS, before)
    assert replies == []
    submissions.admit(MAX_OPEN_JOBS - 3, before)
    assert replies == [SendInputs(job=job(number)) for number in range(3)]
    submissions.admit(0, before)
    submissions.admit(0, before)
    assert len(replies) == 8


def test_a_client_that_announces_many_jobs_delays_no_other(manifest: Manifest, tmp_path: Path) -> None:
    """Clients take turns, and one may not announce more than it could ever send."""
    asked: list[tuple[str, Message]] = []
    submissions = Submissions(
        manifest,
        BUNDLE,
        Journal(tmp_path / "journal"),
        lambda topic, payload, expiry_s: asked.append((topic, client_messages.decode_reply(payload))),
        NoCuts(),
    )
    for number in range(2500):
        submit(submissions, number, "a")
    assert sum(isinstance(reply, Refused) for _, reply in asked) == 500
    asked.clear()
    submissions.admit(0, before)
    submit(submissions, 9001, "b")
    submissions.admit(0, before)
    assert [topic for topic, _ in asked].count("hyps/clients/a/result") == 8
    assert asked[-1] == ("hyps/clients/b/result", SendInputs(job=job(9001)))


def test_inputs_of_another_attempt_are_rejected(submissions: Submissions, manifest: Manifest) -> None:
    """Otherwise one client could have any number of tensors arrive for one job."""
    submit(submissions, 1)
    submissions.admit(0, before)
    with pytest.raises(Rejection, match="not announced"):
        submissions.expected_record(Key(job=job(1), sub_bundle=-1, attempt=1), manifest.inputs[0], "c")


def test_refused_jobs_and_rejected_inputs(submissions: Submissions, replies: Replies) -> None:
    submit(submissions, 1, workers=False)
    submit(submissions, 2, bundle="c" * 64)
    assert all(isinstance(each, Refused) for each in replies)
    submit(submissions, 3)
    submissions.admit(0, before)
    for key, client in ((Key(job=job(3), sub_bundle=-1, attempt=0), "d"), (Key(job=job(4), sub_bundle=-1, attempt=0), "c")):
        with pytest.raises(Rejection, match="not announced"):
            submissions.expected_record(key, "x", client)


def test_anothers_job(submissions: Submissions, manifest: Manifest) -> None:
    submit(submissions, 1)
    submissions.admit(0, before)
    submissions.arrived(arrival(submissions, manifest, 1), 0, before)
    with pytest.raises(Rejection, match="another's job"):
        submit(submissions, 1, "d")
    with pytest.raises(Rejection, match="another's job"):
        submissions.handle("d", Delivered(job=job(1)), before)
