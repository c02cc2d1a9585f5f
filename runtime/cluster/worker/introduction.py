"""Collect what a worker says of its board when it joins: its class, its step profile and its calibration if it has them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.cluster.planning.boards_file import read_target
from hyps.runtime.cluster.protocol.messages import MAX_PROFILED_TIMES, Profiled, StepTimes
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.errors import DeviceError, ProfileError
from hyps.runtime.profiling.board_facts import BoardFacts, this_board
from hyps.runtime.profiling.profile_file import StepProfileFile, read_step_profile

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a worker says of its board; nothing of what is None is known. A group of workers says nothing."""

    board: BoardFacts | None = None
    board_class: str | None = None
    profile: StepProfileFile | None = None
    link: LinkRates | None = None
    message_s: float | None = None

    def profile_messages(self) -> Iterator[Profiled]:
        """Yield the step profile in messages."""
        times = [
            StepTimes(key=step.key, times=each)
            for step in (self.profile.steps if self.profile else ())
            for each in step.times
        ]
        for start in range(0, len(times), MAX_PROFILED_TIMES):
            yield Profiled(steps=tuple(times[start : start + MAX_PROFILED_TIMES]))


def introduce_board(profile: Path | None, calibration: Path | None = None) -> Introduction:
    """Return what this board says of itself; its class is the one in the step ``profile``, if that is given.

    ``calibration`` is a target file of ``hyps-run calibrate --hub``. Raises `ProfileError` for a file that is no profile, or
    that was measured on a board of another class, and `BoardsError` for a file that is no target.
    """
    figures = read_target(calibration) if calibration else None
    measured = read_step_profile(profile) if profile else None
    board = _board()
    if measured and board and measured.board.board_class != board.board_class:
        raise ProfileError(
            f"{profile} was measured on another kind of board ({measured.board.board_class}) than this one "
            f"({board.board_class})",
            "profile this board with 'hyps-run profile', or leave out --profile",
        )
    board_class = measured.board_class if measured else board.board_class if board else None
    return Introduction(
        board=board,
        board_class=board_class,
        profile=measured,
        link=figures.link if figures else None,
        message_s=figures.message_s if figures else None,
    )


def _board() -> BoardFacts | None:
    try:
        return this_board()
    except DeviceError as error:
        _log.info("the class of this board is not known: %s", error)
        return None
