"""The frames of a video, and the account of what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

#: Why frames are in no window, and how a message says it.
REASONS = {
    "stride": "skipped by --stride",
    "hop": "between windows",
    "late": "too late",
    "broken": "broken",
    "gap": "next to a gap",
    "end": "fewer than a window",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedFrame:
    """One frame of a video: its number from 0, its time from the video's start, and its upright picture, None if broken.

    ``follows_gap``: the stream stopped before it and came back.
    """

    number: int
    time_s: float
    picture: Image.Image | None
    follows_gap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStamp:
    """A frame's number, its time from the video's start, and when it arrived by `time.monotonic`."""

    number: int
    time_s: float
    arrived_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame as the network takes it: [C, H, W] or [H, W, C]."""

    stamp: FrameStamp
    values: np.ndarray


class FrameSource(Protocol):
    """A video that is read one frame after the other. ``count`` is about how many it has; None where nobody knows."""

    name: str
    count: int | None
    is_live: bool

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield every frame once, broken ones too. Raises `InputError` where nothing more can be read."""
        ...

    def close(self) -> None:
        """Close the file or stream."""
        ...


@dataclass(slots=True)
class FrameAccount:
    """The number of frames read, of those in windows that were computed, and of those dropped, by reason."""

    read: int = 0
    used: int = 0
    windows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def line(self, name: str) -> str:
        """Return the account as one line of text."""
        reasons = ", ".join(f"{self.dropped[key]} {words}" for key, words in REASONS.items() if self.dropped[key])
        dropped = f"{self.dropped.total()} dropped: {reasons}" if reasons else "none dropped"
        return f"{name}: {self.read} frames read, {self.used} used in {self.windows} windows, {dropped}"
