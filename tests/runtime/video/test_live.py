"""Test live videos: the newest window when there is time, no backlog, and every frame accounted for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from PIL import Image

from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.errors import InputError
from hyps.runtime.video.frames import DecodedFrame, FrameAccount
from hyps.runtime.video.streams import EveryWindow, LatestWindow
from hyps.runtime.video.windows import Window, WindowRing

RECIPE = Preprocess(size=(2, 2), frames=3, layout="NCTHW")
PERIOD_S = 0.01


class Camera:
    """A source whose frame number k is of colour k, and comes k periods after the first."""

    name: str = "camera"
    count: int | None = None
    is_live: bool = True

    def __init__(self, count: int, gap_before: int = -1, fails: bool = False) -> None:
        self._count, self._gap_before, self._fails = count, gap_before, fails

    def frames(self) -> Iterator[DecodedFrame]:
        begun = time.monotonic()
        for number in range(self._count):
            time.sleep(max(0.0, begun + number * PERIOD_S - time.monotonic()))
            picture = Image.new("RGB", (2, 2), (number, 0, 0)) if number % 10 != 9 else None
            yield DecodedFrame(
                number=number, time_s=number * PERIOD_S, picture=picture, follows_gap=number == self._gap_before
            )
        if self._fails:
            raise InputError("the camera is gone")

    def close(self) -> None:
        pass


def ring(account: FrameAccount, hop: int) -> WindowRing:
    return WindowRing("camera", RECIPE, account, stride=1, hop=hop)


def good(count: int) -> list[int]:
    return [number for number in range(count) if number % 10 != 9]


def check_consecutive(window: Window, count: int) -> None:
    numbers = [frame.stamp.number for frame in window.frames]
    frames = good(count)
    first = frames.index(numbers[0])
    assert numbers == frames[first : first + 3]
    assert [int(frame.values[0, 0, 0]) for frame in window.frames] == numbers


@pytest.mark.parametrize("hop", [1, 3, 5])
def test_the_newest_window_has_no_backlog(hop: int) -> None:
    account, count = FrameAccount(), 60
    behind = []
    for window in LatestWindow(Camera(count), ring(account, hop)):
        check_consecutive(window, count)
        behind.append(time.monotonic() - window.stamps[1].arrived_s)
        time.sleep(6 * PERIOD_S)  # an inference takes as long as six frames
    assert account.read == count == account.used + account.dropped.total()
    assert account.dropped["broken"] == 6
    assert account.dropped["late"] > 0
    assert account.windows == len(behind) < count / 5
    assert account.used <= 3 * account.windows


def test_every_window_in_time_is_computed_and_late_ones_are_counted() -> None:
    account, count = FrameAccount(), 60
    stream = EveryWindow(source=Camera(count), ring=ring(account, 3), max_latency_s=0.05)
    for window in stream:
        check_consecutive(window, count)
        time.sleep(8 * PERIOD_S)
    assert account.read == count == account.used + account.dropped.total()
    assert account.dropped["late"] > 0
    assert 0 < account.windows < len(good(count)) // 3


def test_without_a_limit_nothing_is_late() -> None:
    account, count = FrameAccount(), 40
    windows = list(EveryWindow(source=Camera(count), ring=ring(account, 3)))
    assert len(windows) == len(good(count)) // 3 == account.windows
    assert dict(account.dropped) == {"broken": 4}


def test_no_window_crosses_a_gap() -> None:
    account = FrameAccount()
    windows = list(EveryWindow(source=Camera(16, gap_before=8), ring=ring(account, 1)))
    numbers = [[frame.stamp.number for frame in window.frames] for window in windows]
    assert not [each for each in numbers if each[0] < 8 <= each[-1]]
    assert [6, 7, 8] not in numbers
    assert [5, 6, 7] in numbers
    assert [8, 10, 11] in numbers  # frame 9 is broken
    account = FrameAccount()
    list(EveryWindow(source=Camera(16, gap_before=8), ring=ring(account, 3)))
    assert account.dropped["gap"] == 2


def test_a_source_that_fails_is_told_after_its_windows() -> None:
    account = FrameAccount()
    found: list[str] = []
    with pytest.raises(InputError, match="the camera is gone"):
        found.extend(window.name for window in LatestWindow(Camera(4, fails=True), ring(account, 3)))
    assert account.read == 4 == account.used + account.dropped.total()


def test_a_reader_that_stops_ends_the_thread() -> None:
    stream = iter(LatestWindow(Camera(1000), ring(FrameAccount(), 3)))
    next(stream)
    begun = time.monotonic()
    stream.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 5


def test_the_account_in_words() -> None:
    account = FrameAccount(read=10, used=6, windows=2)
    account.dropped.update(late=3, end=1)
    assert account.line("clip") == (
        "clip: 10 frames read, 6 used in 2 windows, 4 dropped: 3 too late, 1 fewer than a window"
    )
    assert FrameAccount(read=3, used=3, windows=1).line("clip").endswith("none dropped")
