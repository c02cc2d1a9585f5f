"""Test what bounds a worker's claims and conduct: measured speeds, obedience, quarantine, and the lines that say so."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hyps.runtime.cluster.manager.obedience import Obedience
from hyps.runtime.cluster.manager.options import Timeouts
from hyps.runtime.cluster.manager.quarantine import QUIET_S, Quarantine
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds, Work
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.messages import (
    MAX_GROUP,
    MAX_MACS_PER_S,
    MAX_MEMORY_BYTES,
    WorkerState,
    decode_state,
    encode_message,
)
from hyps.runtime.cluster.protocol.tally import Tally

HERE = WorkerState(online=True, session="1" * 32, memory_bytes=1)
WORK = Work(macs=10**10, moved_bytes=0, read_s=0.0)


def key(attempt: int) -> Key:
    return Key(job="0" * 32, sub_bundle=0, attempt=attempt)


def answers(speeds: MeasuredSpeeds, seconds: list[float], claim: int, work: Work = WORK, start: float = 0.0) -> list[bool]:
    """Have a worker take so many seconds for one lease after the other; return whether its bound changed each time."""
    now, changes = start, []
    for attempt, each in enumerate(seconds):
        speeds.sent("w", key(attempt), work, now)
        now += each
        changes.append(speeds.answered("w", key(attempt), claim, now))
    return changes


def test_a_claim_is_bounded_by_the_best_of_the_last_answers() -> None:
    speeds = MeasuredSpeeds()
    assert answers(speeds, [11, 9, 6, 8, 7], 10**14) == [False] * 4 + [True]
    assert speeds.bound("w") == 8 * 10**10 // 5  # 6 seconds, of which one proves nothing
    assert answers(speeds, [11, 9, 6, 8, 7], 10**14, start=100) == [False] * 5
    answers(speeds, [1.001] * 5, 10**14, start=200)
    assert speeds.bound("w") == pytest.approx(8 * 10**13, rel=0.01)
    speeds.forget("w")
    assert speeds.bound("w") is None


@pytest.mark.parametrize(
    ("seconds", "claim", "work"),
    [
        ([11] * 5, 5 * 10**9, WORK),  # as claimed, within a factor of eight
        ([0.9] * 5, 10**14, WORK),  # too short to prove anything
        ([11, 11, 11, 11, 1.0], 10**14, WORK),  # once it was fast
        ([11] * 5, 10**14, Work(macs=10**10, moved_bytes=0, read_s=10.5)),  # its storage is slow, as it says
        ([11] * 5, 10**14, Work(macs=10**10, moved_bytes=10**9, read_s=0)),  # the network is slow
    ],
    ids=["honest", "short", "once", "storage", "network"],
)
def test_an_honest_claim_is_believed(seconds: list[float], claim: int, work: Work) -> None:
    speeds = MeasuredSpeeds()
    assert not any(answers(speeds, seconds, claim, work))
    assert speeds.bound("w") is None


def test_leases_that_are_never_answered_take_no_memory_for_ever() -> None:
    speeds = MeasuredSpeeds()
    for attempt in range(3000):
        speeds.sent("w", key(attempt), WORK, 0)
    assert not speeds.answered("w", key(0), 1, math.inf)


def test_a_worker_answers_its_orders_soon_and_then_has_time_to_load() -> None:
    obedience = Obedience(Timeouts(obey_s=10, load_s=100), lease_s=50)
    obedience.ordered("idle", 1, 10**6, busy=False, now=0)
    obedience.ordered("busy", 1, 10**6, busy=True, now=0)
    obedience.ordered("loads", 1, 10**6, busy=False, now=0)
    obedience.answered("loads", 1, 5, done=False)
    obedience.answered("idle", 7, 5, done=True)  # of other orders
    assert obedience.overdue(10) == {}
    obedience.ordered("idle", 2, 10**6, busy=True, now=10)  # gives no more time
    assert obedience.overdue(11) == {"idle": "it does not answer its orders"}
    assert obedience.overdue(61) == {"busy": "it does not answer its orders"}
    obedience.ordered("loads", 2, 10**6, busy=True, now=62)  # it reads them only when it has loaded
    assert obedience.overdue(107) == {}
    assert obedience.overdue(123) == {"loads": "it does not answer its orders"}
    obedience.ordered("fetches", 1, 10**6, busy=False, now=0)
    obedience.answered("fetches", 1, 5, done=False)
    assert obedience.overdue(106) == {}
    assert obedience.overdue(108) == {"fetches": "it never loaded its sub-bundles"}
    obedience.ordered("well", 3, 10**6, busy=False, now=0)
    obedience.answered("well", 3, 1, done=True)
    assert obedience.overdue(10**6) == {}


def test_a_second_offence_bars_the_name_for_longer_each_time() -> None:
    obedience = Obedience(Timeouts(), lease_s=1)
    obedience.offended("w", 0)
    assert not obedience.is_barred("w", 1)
    obedience.offended("w", 0)
    assert (obedience.is_barred("w", 299), obedience.is_barred("w", 301)) == (True, False)
    obedience.offended("w", 0)
    assert obedience.is_barred("w", 599)
    for _ in range(1000):
        obedience.offended("w", 0)
    assert not obedience.is_barred("w", 90_000)
    obedience.acquit("w")
    assert not obedience.is_barred("w", 1)


def test_a_worker_that_changes_all_the_time_waits_until_it_is_quiet() -> None:
    quarantine = Quarantine()
    assert all(quarantine.note("w", HERE, 0) for _ in range(20))
    assert not quarantine.note("w", HERE, 0)
    assert quarantine.note("other", HERE, 0)
    assert quarantine.has("w")
    last = WorkerState(online=False, session="2" * 32)
    quarantine.hold("w", last, 50)
    assert quarantine.released(51 + QUIET_S / 2) == {}
    assert quarantine.released(51 + QUIET_S) == {"w": last}
    assert not quarantine.has("w")


def test_a_group_whose_boards_start_one_after_the_other_is_not_quarantined() -> None:
    quarantine = Quarantine()
    assert all(quarantine.note("g", HERE, 0, only_capacity=True) for _ in range(150))
    assert not all(quarantine.note("g", HERE, 0, only_capacity=True) for _ in range(100))


def test_a_board_with_a_bad_link_is_not_quarantined() -> None:
    quarantine = Quarantine()
    assert all(quarantine.note("w", HERE, 6.0 * number) for number in range(1000))


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        ({"memory_bytes": MAX_MEMORY_BYTES, "macs_per_s": MAX_MACS_PER_S}, True),
        ({"memory_bytes": MAX_MEMORY_BYTES + 1}, False),
        ({"macs_per_s": MAX_MACS_PER_S + 1}, False),
        ({"macs_per_s": MAX_MACS_PER_S + 1, "group": 2}, True),
        ({"group": MAX_GROUP + 1}, False),
        ({"storage_bytes_per_s": 1 << 60}, False),
        ({"loaded": tuple(range(2000))}, False),
    ],
    ids=str,
)
def test_impossible_claims(fields: dict[str, Any], possible: bool) -> None:
    payload = encode_message(WorkerState(online=True, session="1" * 32, **fields))
    if possible:
        decode_state(payload)
    else:
        with pytest.raises(Rejection, match=r"impossible claim|bad message"):
            decode_state(payload)


def test_what_repeats_is_said_at_powers_of_ten() -> None:
    tally = Tally()
    said = [text for _ in range(1234) if (text := tally.count("x")) is not None]
    assert said == ["", " (10 times so far)", " (100 times so far)", " (1000 times so far)"]
    for number in range(5000):
        assert tally.count(number) == ""
    assert tally.count("x") == ""  # forgotten meanwhile
