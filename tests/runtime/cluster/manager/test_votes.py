"""Test votes: equal bits and nearly equal floats, early and late results, majorities and none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.manager.votes import TOLERANCE, Verdict, Votes
from hyps.runtime.cluster.protocol.assembler import ReceivedTensor
from hyps.runtime.cluster.protocol.frames import Key, digest_of

RECORD = TensorRecord(dtype="float32", shape=(4,))
ONES = (1.0, 1.0, 1.0, 1.0)
OTHER = (1.0, 1.0, 1.0, 2.0)


def arrival(
    attempt: int, values: tuple[float, ...] = ONES, tensor: str = "a", record: TensorRecord = RECORD
) -> ReceivedTensor:
    data = bytearray(np.array(values, record.dtype).tobytes())
    key = Key(job="0" * 32, sub_bundle=0, attempt=attempt)
    return ReceivedTensor(key=key, tensor=tensor, record=record, digest=digest_of(data), data=data)


def test_the_majority_wins_and_the_other_worker_is_named() -> None:
    votes = Votes(3)
    assert votes.add("w0", arrival(0, OTHER), ("a",)) == Verdict()
    assert votes.add("w1", arrival(1), ("a",)) == Verdict()
    found = votes.add("w2", arrival(2), ("a",))
    assert found
    assert (found.wrong, found.hopeless) == (("w0",), False)
    assert found.winner is not None
    assert found.winner["a"].digest == arrival(2).digest


def test_a_late_answer_is_compared_too() -> None:
    votes = Votes(3)
    votes.add("w0", arrival(0), ("a",))
    votes.add("w1", arrival(1), ("a",))
    assert votes.add("w2", arrival(2, OTHER), ("a",)) == Verdict(wrong=("w2",))
    votes.forget("0" * 32)
    assert votes.add("w3", arrival(3), ("a",)) == Verdict()


def test_old_decisions_are_forgotten() -> None:
    votes = Votes(1)
    keys = [Key(job=f"{number:032x}", sub_bundle=0, attempt=0) for number in range(40)]
    for key in keys:
        assert not votes.knows(key)
        votes.add("w0", dataclasses.replace(arrival(0), key=key), ("a",))
    assert [votes.knows(key) for key in keys] == [False] * 8 + [True] * 32


def test_an_answer_counts_when_it_is_complete() -> None:
    votes = Votes(1)
    assert votes.add("w0", arrival(0, tensor="b"), ("a", "b")) is None
    found = votes.add("w0", arrival(0), ("a", "b"))
    assert found
    assert found.winner is not None
    assert found.winner.keys() == {"a", "b"}


def test_all_differ() -> None:
    votes = Votes(3)
    for number in range(2):
        assert votes.add(f"w{number}", arrival(number, (number, 0, 0, 0)), ("a",)) == Verdict()
    assert votes.add("w2", arrival(2, (9, 0, 0, 0)), ("a",)) == Verdict(hopeless=True)
    assert votes.add("w0", arrival(3), ("a",)) == Verdict()


@pytest.mark.parametrize(("factor", "agree"), [(0.9, True), (1.2, False)])
def test_boards_may_round_differently(factor: float, agree: bool) -> None:
    votes = Votes(2)
    votes.add("w0", arrival(0), ("a",))
    found = votes.add("w1", arrival(1, (1.0, 1.0, 1.0, 1 + factor * TOLERANCE)), ("a",))
    assert found == Verdict(hopeless=True) if not agree else found is not None and found.winner is not None


@pytest.mark.parametrize("values", [(np.nan, 1, 1, 1), (np.inf, 1, 1, 1)], ids=str)
def test_nan_and_infinity_agree_only_with_equal_bits(values: tuple[float, ...]) -> None:
    votes = Votes(2)
    votes.add("w0", arrival(0), ("a",))
    assert votes.add("w1", arrival(1, values), ("a",)) == Verdict(hopeless=True)


def test_whole_numbers_have_no_tolerance() -> None:
    record = TensorRecord(dtype="int32", shape=(4,))
    votes = Votes(2)
    votes.add("w0", arrival(0, (100_000, 0, 0, 0), record=record), ("a",))
    assert votes.add("w1", arrival(1, (100_001, 0, 0, 0), record=record), ("a",)) == Verdict(hopeless=True)


@given(st.permutations(range(5)), st.integers(0, 2))
def test_a_majority_wins_in_whatever_order(order: list[int], liars: int) -> None:
    """A minority of liars that agree with each other does not win, and each of them is named."""
    votes = Votes(5)
    wrong: set[str] = set()
    winner = None
    for worker in order:
        found = votes.add(f"w{worker}", arrival(worker, OTHER if worker < liars else ONES), ("a",))
        assert found
        wrong.update(found.wrong)
        winner = winner or found.winner
    assert winner
    assert winner["a"].digest == arrival(0).digest
    assert wrong == {f"w{number}" for number in range(liars)}
