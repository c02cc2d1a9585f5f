"""Test decoding: every pattern of losses, random codes, integers, wrong answers, and what cannot be decoded."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.cluster.codes.decoding import decode, disagreeing
from hyps.runtime.errors import InputError

WIDTH = 100_000  # more than a block


def code(rows: NDArray[Any], error_bound: float = 1e-5) -> CodeRecord:
    return CodeRecord(
        name="fc",
        shards=tuple(f"s{number}" for number in range(rows.shape[1])),
        parity=tuple(f"p{number}" for number in range(rows.shape[0])),
        coefficients=tuple(map(tuple, rows.tolist())),
        amplification=10.0,
        error_bound=error_bound,
    )


def drawn(shards: int, parity: int, seed: int, width: int = 50) -> tuple[CodeRecord, list[NDArray[np.float32]]]:
    """Return a code with well conditioned coefficients, and the answers of all its shards."""
    generator = np.random.default_rng(seed)
    rows = np.ones((1, shards))
    if parity > 1:
        rows = generator.choice((-1.0, 1.0), (parity, shards)) * generator.uniform(0.3, 1, (parity, shards))
    values = generator.standard_normal((shards, width)).astype(np.float32)
    return code(rows), [*values, *(rows @ values.astype(np.float64)).astype(np.float32)]


def data(answers: list[NDArray[Any]], *numbers: int) -> dict[int, bytes]:
    return {number: answers[number].tobytes() for number in numbers}


@pytest.mark.parametrize(("shards", "parity"), [(2, 1), (8, 1), (4, 2), (5, 3)])
def test_any_k_answers_give_the_others(shards: int, parity: int) -> None:
    made, answers = drawn(shards, parity, seed=shards, width=WIDTH if shards == 8 else 50)
    record = TensorRecord(dtype="float32", shape=answers[0].shape)
    scale = max(float(np.abs(each).max()) for each in answers)
    for present in itertools.combinations(range(shards + parity), shards):
        missing = [number for number in range(shards) if number not in present]
        found = decode(made, record, data(answers, *present), missing)
        assert [*found] == missing
        for number in missing:
            difference = np.abs(np.frombuffer(found[number], np.float32) - answers[number]).max()
            assert difference <= 1e-4 * scale, (present, number)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 1000), st.data())
def test_each_coefficient_and_sign_counts(shards: int, parity: int, seed: int, draw: st.DataObject) -> None:
    """A decoder with one coefficient changed, or its sign, gives other values."""
    made, answers = drawn(shards, parity, seed)
    record = TensorRecord(dtype="float32", shape=(50,))
    row, lost, column = (draw.draw(st.integers(0, most - 1)) for most in (parity, shards, shards))
    present = data(answers, *(number for number in range(shards) if number != lost), shards + row)
    right = np.frombuffer(decode(made, record, present, [lost])[lost], np.float32)
    np.testing.assert_allclose(right, answers[lost], atol=1e-4)
    for factor in (-1.0, 1.1):
        rows = np.array(made.coefficients)
        rows[row, column] *= factor
        wrong = np.frombuffer(decode(code(rows), record, present, [lost])[lost], np.float32)
        assert not np.allclose(wrong, answers[lost], atol=1e-4)


def test_whole_numbers_are_exact() -> None:
    generator = np.random.default_rng(3)
    values = generator.integers(-(1 << 20), 1 << 20, (4, 30)).astype(np.int32)
    rows = np.array([[1.0, 1, 1, 1], [1, 2, 3, 4]])
    answers = [*values, *(rows @ values).astype(np.int32)]
    record = TensorRecord(dtype="int32", shape=(30,))
    found = decode(code(rows, 0.0), record, data(answers, 0, 2, 4, 5), [1, 3])
    assert found == {1: bytearray(values[1].tobytes()), 3: bytearray(values[3].tobytes())}


def test_a_whole_number_that_is_wrong_by_one_is_named() -> None:
    values = np.random.default_rng(4).integers(-(1 << 30), 1 << 30, (3, 30)).astype(np.int32) // 8
    rows = np.array([[1.0, 1, 1], [1, 2, 3]])
    answers = [*values, *(rows @ values).astype(np.int32)]
    record = TensorRecord(dtype="int32", shape=(30,))
    assert disagreeing(code(rows, 0.0), record, data(answers, *range(5))) == ()
    answers[1][7] += 1
    assert disagreeing(code(rows, 0.0), record, data(answers, *range(5))) == (1,)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_an_infinite_value_cannot_be_decoded(value: float) -> None:
    made, answers = drawn(3, 1, seed=0)
    answers[0] = answers[0].copy()
    answers[0][5] = value
    with pytest.raises(InputError, match="fc cannot be decoded: a value is infinite or no number; serve it with --exact"):
        decode(made, TensorRecord(dtype="float32", shape=(50,)), data(answers, 0, 1, 3), [2])


@pytest.mark.parametrize("wrong", range(6))
@pytest.mark.parametrize("change", [1.0, np.nan])
def test_a_wrong_answer_is_named_with_two_more_than_needed(wrong: int, change: float) -> None:
    made, answers = drawn(4, 2, seed=1)
    record = TensorRecord(dtype="float32", shape=(50,))
    assert disagreeing(made, record, data(answers, *range(6))) == ()
    answers[wrong] = answers[wrong].copy()
    answers[wrong][7] += change
    assert disagreeing(made, record, data(answers, *range(6))) == (wrong,)
    five = [wrong, *(number for number in range(6) if number != wrong)][:5]
    assert disagreeing(made, record, data(answers, *five)) is None  # one more than needed: noticed, not named


def test_two_wrong_answers_are_named_with_four_more_than_needed() -> None:
    made, answers = drawn(3, 4, seed=5)
    record = TensorRecord(dtype="float32", shape=(50,))
    for number in (1, 4):
        answers[number] = answers[number] + np.float32(1)
    assert disagreeing(made, record, data(answers, *range(7))) == (1, 4)


def test_coefficients_that_let_nothing_be_decoded_are_refused() -> None:
    """Both parity shards are the same sum: two lost shards have endless solutions."""
    answers = [np.full(50, number + 1, np.float32) for number in range(3)]
    made = code(np.ones((2, 3)))
    answers += [answers[0] + answers[1] + answers[2]] * 2
    record = TensorRecord(dtype="float32", shape=(50,))
    with pytest.raises(InputError, match="cannot be decoded"):
        decode(made, record, data(answers, 0, 3, 4), [1, 2])
    assert decode(made, record, data(answers, 0, 1, 3, 4), [2]) == {2: answers[2].tobytes()}
