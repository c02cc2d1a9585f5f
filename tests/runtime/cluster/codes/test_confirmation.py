"""Test when a group's answers are used: how many must agree, with votes and without, and what is done with wrong ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from hyps.runtime.bundle.coded_groups import CodedGroup
from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.cluster.codes.confirmation import Confirmation
from hyps.runtime.cluster.codes.counters import CodeCounters
from hyps.runtime.cluster.codes.open_group import OpenGroup
from hyps.runtime.cluster.codes.served import served_manifest, vote_lines
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key, digest_of
from hyps.runtime.cluster.scheduling.leases import Lease
from tests.runtime.cluster.codes.test_decoding import drawn

JOB = "0" * 32


@dataclass
class Kept:
    """What became of answers."""

    failed: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    def keep(self, worker: str | None, received: ReceivedTensor) -> None: ...

    def computed(self, worker: str, key: Key) -> None: ...

    def withdraw(self, lease: Lease) -> None: ...

    def fail(self, job: str, reason: str) -> None:
        self.failed.append(reason)

    def wrong(self, worker: str, reason: str) -> None:
        self.named.append(worker)


class Answers:
    """A group of three shards and four parity shards, some of whose answers are there, and some of these wrong."""

    def __init__(self, manifest: Manifest, there: str, wrong: str = "", *, margin: int = 0, exact: bool = False) -> None:
        code, values = drawn(3, 4, seed=5)
        record = TensorRecord(dtype="float32", shape=values[0].shape)
        tensors = dict.fromkeys(code.tensors, record) | manifest.tensors
        self.kept, self.counters = Kept(), CodeCounters()
        self.confirmation = Confirmation(msgspec.structs.replace(manifest, tensors=tensors), self.kept, self.counters)
        group = CodedGroup(code=code, members=tuple(range(7)), margin=margin)
        self.group = OpenGroup(group=group, began=0.0, exact=exact)
        for number in map(int, there):
            data = bytearray((values[number] + (str(number) in wrong) * np.float32(1 + number)).tobytes())
            key = Key(job=JOB, sub_bundle=number, attempt=0)
            self.group.answers[number] = ReceivedTensor(
                key=key, tensor=code.tensors[number], record=record, digest=digest_of(data), data=data
            )
            self.group.workers[number] = f"w{number}"

    def confirmed(self, *, others: bool) -> bool:
        return self.confirmation.is_confirmed(JOB, self.group, others=others)


@pytest.mark.parametrize(
    ("there", "margin", "others", "confirmed"),
    [
        ("012", 0, True, False),  # one more may show that one is wrong
        ("012", 0, False, True),  # nobody is left who could
        ("0123", 0, True, True),
        ("012", 1, False, False),  # a vote of three: never without one more
        ("0136", 1, False, True),
        ("0123", 2, False, False),  # a vote of five
        ("01235", 2, True, True),
    ],
)
def test_so_many_must_agree(manifest: Manifest, there: str, margin: int, others: bool, confirmed: bool) -> None:
    answers = Answers(manifest, there, margin=margin)
    assert answers.confirmed(others=others) == confirmed
    assert not answers.kept.named
    assert not answers.kept.failed


@pytest.mark.parametrize(
    ("there", "wrong", "margin", "confirmed"),
    [
        ("0123", "2", 0, False),  # one of four is wrong: which is not known yet
        ("01234", "2", 0, True),
        ("01234", "4", 1, True),
        ("01234", "4", 2, False),  # four of the five agree, and five must
        ("012346", "4", 2, True),
        ("0123456", "16", 2, True),
    ],
)
def test_the_wrong_ones_are_named_and_taken_out(
    manifest: Manifest, there: str, wrong: str, margin: int, confirmed: bool
) -> None:
    answers = Answers(manifest, there, wrong, margin=margin)
    assert answers.confirmed(others=True) == confirmed
    named = [f"w{number}" for number in wrong] if confirmed or margin else []
    assert answers.kept.named == named
    assert answers.counters.wrong == Counter(named)
    assert {*answers.group.answers} == {*map(int, there)} - ({*map(int, wrong)} if named else set())


def test_a_contradiction_ends_the_job_once_nobody_else_answers(manifest: Manifest) -> None:
    answers = Answers(manifest, "0123", "2")
    assert not answers.confirmed(others=True)
    assert not answers.kept.failed
    assert not answers.confirmed(others=False)
    assert len(answers.kept.failed) == 1
    waiting = Answers(manifest, "0123", "2", margin=1)  # for workers that replace the lost ones
    assert not waiting.confirmed(others=False)
    assert not waiting.kept.failed


def test_a_wrong_shard_of_an_exact_result_is_computed_again(manifest: Manifest) -> None:
    answers, decoded = Answers(manifest, "01234", "2", exact=True), Answers(manifest, "01234", "2")
    assert answers.confirmed(others=True)
    assert decoded.confirmed(others=True)
    assert (answers.group.wrong, decoded.group.wrong) == (set(), {2})


def test_a_vote_keeps_the_codes_that_find_as_much(coded: Manifest) -> None:
    """Two parity shards name one wrong answer, as a vote of three does; a vote of five outvotes two."""
    assert served_manifest(coded, exact=False) is coded
    assert served_manifest(coded, exact=False, votes=3) is coded
    voted = served_manifest(coded, exact=False, votes=5)
    assert voted.codes == served_manifest(coded, exact=True).codes == ()
    assert len(voted.steps) == len(coded.steps) - 2
    assert [*vote_lines(coded.codes, coded, 3)] == ["fc: its parity shards find wrong results, without votes"]
    (line,) = vote_lines(coded.codes, voted, 5)
    assert line.startswith("fc: 5 workers vote on each shard, as its 2 parity shards cannot replace the vote")
    assert line.endswith("--code fc=4 for that")
