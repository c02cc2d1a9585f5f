"""What clients are told: inputs are asked for when there is room, and again when they are lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.submissions import MAX_OPEN_JOBS, Submissions
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Arrival
from hyps.runtime.cluster.protocol.frames import Dropped, Key, digest_of
from hyps.runtime.cluster.protocol.messages import Accepted, Delivered, Refused, SendInputs, Submit
from hyps.runtime.cluster.transfer.journal import Journal

BUNDLE = "b" * 64


class Said(list[messages.Message]):
    """What was told, decoded."""

    def publish(self, topic: str, payload: bytes, expiry_s: int) -> None:
        assert topic == "hyps/clients/c/result"
        self.append(messages.decode_reply(payload) if payload.startswith(b"{") else Accepted(job="f" * 32))


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def made(manifest: Manifest, tmp_path: Path, said: Said) -> Submissions:
    return Submissions(manifest, BUNDLE, Journal(tmp_path / "journal"), said.publish)


def job(number: int) -> str:
    return f"{number:032x}"


def submit(made: Submissions, number: int, client: str = "c", *, workers: bool = True, bundle: str = BUNDLE) -> None:
    made.heard(client, Submit(job=job(number), bundle=bundle), workers=workers)


def arrival(made: Submissions, manifest: Manifest, number: int) -> Arrival:
    (name,) = manifest.inputs
    key = Key(job=job(number), share=-1, attempt=0)
    record = made.wanted(key, name, "c")
    data = bytearray(record.nbytes)
    return Arrival(key=key, tensor=name, record=record, digest=digest_of(data), data=data)


def test_inputs_are_asked_for_and_written_down(made: Submissions, manifest: Manifest, said: Said) -> None:
    submit(made, 1)
    assert said == []
    made.admit(0)
    assert said == [SendInputs(job=job(1))]
    new = made.arrived(arrival(made, manifest, 1))
    assert new
    assert (new.job, new.client) == (job(1), "c")
    assert said[1:] == [Accepted(job=job(1))]
    submit(made, 1)
    assert said[2:] == [Accepted(job=job(1))]


def test_what_was_lost_is_asked_for_again(
    made: Submissions, manifest: Manifest, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not while its chunks come."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    submit(made, 1)
    made.admit(0)
    now += 1
    made.wanted(Key(job=job(1), share=-1, attempt=0), manifest.inputs[0], "c")
    now += 1
    submit(made, 1)
    assert said == [SendInputs(job=job(1))]
    now += 2
    submit(made, 1)
    assert said == [SendInputs(job=job(1))] * 2
    now += 31
    assert made.expire() == [job(1)]
    with pytest.raises(Dropped, match="not announced"):
        arrival(made, manifest, 1)


def test_few_inputs_are_on_their_way_at_a_time(made: Submissions, said: Said) -> None:
    for number in range(40):
        submit(made, number)
    made.admit(MAX_OPEN_JOBS)
    assert said == []
    made.admit(MAX_OPEN_JOBS - 3)
    assert said == [SendInputs(job=job(number)) for number in range(3)]
    made.admit(0)
    made.admit(0)
    assert len(said) == 16


def test_what_is_refused(made: Submissions, said: Said) -> None:
    submit(made, 1, workers=False)
    submit(made, 2, bundle="c" * 64)
    assert all(isinstance(each, Refused) for each in said)
    submit(made, 3)
    made.admit(0)
    for key, client in ((Key(job=job(3), share=-1, attempt=0), "d"), (Key(job=job(4), share=-1, attempt=0), "c")):
        with pytest.raises(Dropped, match="not announced"):
            made.wanted(key, "x", client)


def test_anothers_job(made: Submissions, manifest: Manifest) -> None:
    submit(made, 1)
    made.admit(0)
    made.arrived(arrival(made, manifest, 1))
    with pytest.raises(Dropped, match="another's job"):
        submit(made, 1, "d")
    with pytest.raises(Dropped, match="another's job"):
        made.heard("d", Delivered(job=job(1)), workers=True)
