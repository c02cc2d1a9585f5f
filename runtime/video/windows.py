"""Make windows of frames: the last N frames of a video as one input, with a hop (Hadidi, section 4.5.2).

A window always holds frames that follow each other, but for those that ``--stride`` leaves out: so the answer for a window
does not depend on how fast the frames came. Frames are kept as the network takes them, each made only once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.execution.engine import InputTensors
from hyps.runtime.video.frame_values import frame_values
from hyps.runtime.video.frames import DecodedFrame, Frame, FrameAccount, FrameStamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Consecutive frames that are one input of a bundle: an `hyps.runtime.execution.engine.EngineInput`."""

    name: str
    frames: tuple[Frame, ...]

    @property
    def stamps(self) -> tuple[FrameStamp, FrameStamp]:
        """The first and the last frame's."""
        return self.frames[0].stamp, self.frames[-1].stamp

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensor of the frames; the plan has counted its memory."""
        recipe = manifest.preprocess
        assert recipe is not None
        values = [frame.values for frame in self.frames]
        if recipe.frames is None:
            return {manifest.inputs[0]: values[0][np.newaxis]}
        return {manifest.inputs[0]: np.stack(values, axis=recipe.layout.index("T") - 1)[np.newaxis]}


@dataclass(slots=True)
class _Held:
    """A frame that waits for a window, and what it is counted as if none comes; empty once it was in one."""

    frame: Frame
    fate: str


class WindowRing:
    """The last frames of a video, of which windows are made every ``hop`` frames, each ``stride``-th frame taken.

    Every frame that is put in is counted in ``account`` once: when it leaves, or at `end`.
    """

    def __init__(self, name: str, recipe: Preprocess, account: FrameAccount, *, stride: int, hop: int) -> None:
        self._name, self._recipe, self.account = name, recipe, account
        self._length, self._stride, self._hop = recipe.frames or 1, stride, hop
        self._held: deque[_Held] = deque()
        self._good = 0
        self._until_window = 0  # frames that are to come after the ring is full

    def put(self, decoded: DecodedFrame, arrived_s: float) -> None:
        """Add a frame, and drop the oldest where the ring is full."""
        self.account.read += 1
        if decoded.follows_gap:
            self._leave("gap")
            self._good = self._until_window = 0
        if decoded.picture is None:
            self.account.dropped["broken"] += 1
            return
        self._good += 1
        if (self._good - 1) % self._stride:
            self.account.dropped["stride"] += 1
            return
        values = frame_values(decoded.picture, self._recipe)
        stamp = FrameStamp(number=decoded.number, time_s=decoded.time_s, arrived_s=arrived_s)
        if len(self._held) == self._length:
            oldest = self._held.popleft()
            if self._until_window == 0 and oldest.fate:  # nobody took the window that it began
                oldest.fate = "late"
            self._count(oldest)
        self._held.append(_Held(Frame(stamp=stamp, values=values), "hop"))
        self._until_window = max(0, self._until_window - 1)

    @property
    def is_ready(self) -> bool:
        """Whether the last frames are a window, ``hop`` frames or more after the one before."""
        return len(self._held) == self._length and self._until_window == 0

    def take(self) -> Window:
        """Return the window of the last frames, which then count as used."""
        self._until_window = self._hop
        self.account.windows += 1
        for held in self._held:
            self.account.used += held.fate != ""
            held.fate = ""
        frames = tuple(held.frame for held in self._held)
        return Window(name=f"{self._name}#{frames[0].stamp.number}-{frames[-1].stamp.number}", frames=frames)

    def pass_over(self) -> None:
        """Leave out the window that is ready: its frames are too late, unless another window holds them."""
        self._until_window = self._hop
        for held in self._held:
            held.fate = held.fate and "late"

    def end(self) -> None:
        """Count the frames that are left."""
        self._leave("end")

    def _leave(self, reason: str) -> None:
        for held in self._held:
            held.fate = reason if held.fate == "hop" else held.fate
            self._count(held)
        self._held.clear()

    def _count(self, held: _Held) -> None:
        if held.fate:
            self.account.dropped[held.fate] += 1
