"""Test what a manager keeps of the times that workers measured, and what it does not believe."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.profile_keeper import ProfileKeeper, is_plausible
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.protocol.frames import Key, Rejection
from hyps.runtime.cluster.protocol.messages import (
    MAX_PROFILED_TIMES,
    MESSAGE_LIMIT_BYTES,
    Profiled,
    StepTimes,
    Timed,
    WorkerState,
    decode_worker_message,
    encode_message,
)
from hyps.runtime.profiling.profile_database import ProfileDatabase
from hyps.runtime.profiling.profile_file import Quartiles, ThreadTimes
from hyps.runtime.profiling.step_content import StepContent, step_contents
from hyps.runtime.profiling.step_measurement import StepMeasurement
from tests.runtime.profiling.test_profile_file import PI

NOTHING = Quartiles(lower=0.0, median=0.0, upper=0.0)
STATE = WorkerState(online=True, session="0" * 32, macs_per_s=10**10, threads=4, board=PI, board_class=PI.board_class)
KEY = Key(job="0" * 32, sub_bundle=0, attempt=0)


@pytest.fixture
def manifest(layers: Path) -> Manifest:
    return read_manifest(layers)


@pytest.fixture
def keeper(layers: Path, manifest: Manifest, tmp_path: Path) -> Iterator[ProfileKeeper]:
    made = ProfileKeeper(layers, manifest, tmp_path / "profiles.sqlite")
    yield made
    made.close()


def kept(keeper: ProfileKeeper, tmp_path: Path) -> list[StepMeasurement]:
    keeper.write(math.inf)
    database = ProfileDatabase(tmp_path / "profiles.sqlite")
    found = database.measurements()
    database.close()
    return found


def times(median: float, threads: int = 1) -> ThreadTimes:
    run_s = Quartiles(lower=median, median=median, upper=median)
    return ThreadTimes(threads=threads, runs=3, run_s=run_s, open_s=NOTHING, stored_s=None, read_bytes=0, peak_bytes=0)


def contents(layers: Path) -> tuple[StepContent, ...]:
    return step_contents(layers, read_manifest(layers))


def test_a_profile_of_this_bundles_steps_is_kept(keeper: ProfileKeeper, layers: Path, tmp_path: Path) -> None:
    step = contents(layers)[1]
    keeper.profiled("w0", STATE, Profiled(steps=(StepTimes(key=step.key, times=times(0.001)),)))
    keeper.profiled("w0", STATE, Profiled(steps=(StepTimes(key="0" * 64, times=times(0.001)),)))
    (found,) = kept(keeper, tmp_path)
    assert (found.content, found.board_class, found.run_s.median) == (step, PI.board_class, 0.001)


def test_seconds_of_steps_on_a_class(keeper: ProfileKeeper, layers: Path) -> None:
    """One step is known, which is too little for a regression; then all but one are, and that one is predicted."""
    assert keeper.seconds_on(PI.board_class) == ()
    known = contents(layers)
    keeper.profiled("w0", STATE, Profiled(steps=(StepTimes(key=known[1].key, times=times(0.004)),)))
    assert keeper.seconds_on(PI.board_class) == [None, 0.004, *[None] * (len(known) - 2)]
    rest = [StepTimes(key=step.key, times=times(0.001 + step.multiply_adds / 1e9)) for step in known[:-1]]
    keeper.profiled("w1", STATE, Profiled(steps=tuple(rest)))
    found = keeper.seconds_on(PI.board_class)
    assert len(found) == len(known)
    assert all(seconds and seconds > 0 for seconds in found)
    assert keeper.seconds_on("another class") == ()


def test_a_worker_that_was_slow_is_slow_for_the_next_manager(layers: Path, manifest: Manifest, tmp_path: Path) -> None:
    """Three boards of a class, one of which takes three times as long; what it takes is known to be of now."""
    names, run = ("w0", "w1", "w2"), range(len(manifest.steps))
    first = ProfileKeeper(layers, manifest, tmp_path / "profiles.sqlite")
    for name in names:
        steps_s = tuple((0.3 if name == "w2" else 0.1) * (0.001 + step.multiply_adds / 1e9) for step in manifest.steps)
        for _ in range(7):
            first.answered(name, STATE, run, Timed(key=KEY, compute_s=sum(steps_s), steps_s=steps_s), 60.0, 0.0)
    first.close()
    keeper = ProfileKeeper(layers, manifest, tmp_path / "profiles.sqlite")
    assert keeper.answered_before("w3", PI.board_class) == {}
    assert len(keeper.answered_before("w2", PI.board_class)) == len(run)
    placer = Placer(manifest, ClusterOptions(), keeper.seconds_on, keeper.answered_before)
    workers = [
        WorkerCapacity(name=name, memory_bytes=120_000_000, macs_per_s=10**10, board_class=PI.board_class) for name in names
    ]
    placer.place(workers)
    speeds = placer.speeds(workers)
    assert speeds["w0"] == speeds["w1"] == pytest.approx(3 * speeds["w2"], rel=0.05)
    keeper.close()


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 5.0], ids=["no time", "too fast", "too slow"])
def test_an_impossible_profile_is_rejected(keeper: ProfileKeeper, layers: Path, tmp_path: Path, seconds: float) -> None:
    step = contents(layers)[1]
    with pytest.raises(Rejection, match="impossible profile"):
        keeper.profiled("w0", STATE, Profiled(steps=(StepTimes(key=step.key, times=times(seconds)),)))
    assert kept(keeper, tmp_path) == []


def test_plausible_times_follow_the_claim() -> None:
    step = StepContent(key="0" * 64, kind="Conv", multiply_adds=10**9, weight_bytes=0, tensor_bytes=10**6, operators=1)
    assert is_plausible(step, 0.1, 10**10)
    assert is_plausible(step, 0.02, 10**10)
    assert not is_plausible(step, 0.01, 10**10)
    assert is_plausible(step, 0.01, 10**11)
    assert not is_plausible(step, 60.0, 10**10)
    assert not is_plausible(step, 1e-9, 0)


def answer(keeper: ProfileKeeper, seconds: tuple[float, ...], *, waited_s: float = 10.0, read_s: float = 0.0) -> None:
    message = Timed(key=KEY, compute_s=sum(seconds) + 1e-4, steps_s=seconds)
    keeper.answered("w0", STATE, range(1, 1 + len(seconds)), message, waited_s, read_s)


def test_the_times_of_answers_are_kept_when_they_are_enough(
    keeper: ProfileKeeper, layers: Path, manifest: Manifest, tmp_path: Path
) -> None:
    answer(keeper, (0.5, 0.5))  # the first opens sessions and reads weights: it does not count
    for seconds in (0.001, 0.002, 0.003, 0.004):
        answer(keeper, (seconds, seconds))
    assert kept(keeper, tmp_path) == []
    answer(keeper, (0.005, 0.005))
    found = kept(keeper, tmp_path)
    assert [each.content for each in found] == [*contents(layers)[1:3]]
    assert {each.threads for each in found} == {min(4, manifest.target.threads)}
    assert {each.run_s.median for each in found} == {0.003}


@pytest.mark.parametrize(
    ("seconds", "waited_s", "read_s"),
    [
        ((0.5, 0.5), 0.9, 0.0),
        ((0.001, 0.001), 10.0, 0.2),
        ((1e-9, 1e-9), 10.0, 0.0),
    ],
    ids=["longer than the manager waited", "weights were read", "faster than its claim"],
)
def test_answers_that_say_nothing(
    keeper: ProfileKeeper, tmp_path: Path, seconds: tuple[float, ...], waited_s: float, read_s: float
) -> None:
    for _ in range(10):
        answer(keeper, seconds, waited_s=waited_s, read_s=read_s)
    found = kept(keeper, tmp_path)
    assert [each.content.kind for each in found if each.content.multiply_adds] == []


def test_an_answer_of_other_steps_than_were_asked_for_says_nothing(keeper: ProfileKeeper, tmp_path: Path) -> None:
    for _ in range(10):
        message = Timed(key=KEY, compute_s=1.0, steps_s=(0.001,) * 3)
        keeper.answered("w0", STATE, range(2), message, 10.0, 0.0)
        keeper.answered("w0", STATE, None, message, 10.0, 0.0)
    assert kept(keeper, tmp_path) == []


def test_a_worker_whose_board_is_not_known_is_not_kept(keeper: ProfileKeeper, layers: Path, tmp_path: Path) -> None:
    unknown = msgspec.structs.replace(STATE, board=None)
    message = Profiled(steps=(StepTimes(key=contents(layers)[1].key, times=times(0.001)),))
    keeper.profiled("w0", unknown, message)
    keeper.profiled("w0", None, message)
    assert kept(keeper, tmp_path) == []


def test_without_a_database_nothing_is_kept(layers: Path, manifest: Manifest) -> None:
    keeper = ProfileKeeper(layers, manifest, None)
    keeper.profiled("w0", STATE, Profiled(steps=(StepTimes(key="0" * 64, times=times(0.001)),)))
    keeper.write(math.inf)
    keeper.close()


def test_a_database_that_fails_ends_no_manager(
    keeper: ProfileKeeper, layers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = sqlite3.connect(tmp_path / "profiles.sqlite")
    other.executescript("drop table times; drop table steps")
    other.close()
    message = Profiled(steps=(StepTimes(key=contents(layers)[1].key, times=times(0.001)),))
    keeper.profiled("w0", STATE, message)
    keeper.write(math.inf)
    assert "what workers measure is not kept from now on" in caplog.text
    keeper.profiled("w0", STATE, message)
    keeper.write(math.inf)


def test_the_largest_message_fits() -> None:
    widest = Quartiles(lower=123456.78901234567, median=123456.78901234567, upper=123456.78901234567)
    most = ThreadTimes(
        threads=4096, runs=1 << 62, run_s=widest, open_s=widest, stored_s=widest, read_bytes=1 << 62, peak_bytes=1 << 62
    )
    message = Profiled(steps=(StepTimes(key="f" * 64, times=most),) * MAX_PROFILED_TIMES)
    assert len(encode_message(message)) < MESSAGE_LIMIT_BYTES
    assert decode_worker_message(encode_message(message)) == message
    with pytest.raises(Rejection):
        decode_worker_message(encode_message(Profiled(steps=message.steps * 2)))
