"""Turn a video into a stream of windows: every one of a file, and those of a live video that are not too late."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hyps.runtime.errors import RuntimeFault
from hyps.runtime.video.frames import DecodedFrame, FrameSource
from hyps.runtime.video.windows import Window, WindowRing

#: The longest wait of one call on a condition, so that Ctrl-C is heard.
_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EveryWindow:
    """The windows of a video, one after the other: the next frame is decoded when the next window is asked for.

    ``is_paced`` has a file come at its own speed, as a camera's frames do. A window is left out where its last frame is
    ``max_latency_s`` late: later than the fastest frame so far, by the video's own times.
    """

    source: FrameSource
    ring: WindowRing
    is_paced: bool = False
    max_latency_s: float = math.inf

    def __iter__(self) -> Iterator[Window]:
        """Yield the windows. Raises `InputError` where the video cannot be read any further."""
        begun = math.inf
        for decoded in _paced(self.source) if self.is_paced else self.source.frames():
            arrived_s = time.monotonic()
            begun = min(begun, arrived_s - decoded.time_s)
            self.ring.put(decoded, arrived_s)
            if not self.ring.is_ready:
                continue
            if arrived_s - begun - decoded.time_s > self.max_latency_s:
                self.ring.pass_over()
            else:
                yield self.ring.take()
        self.ring.end()


class LatestWindow:
    """The newest window of a live video, each time that one is asked for; a thread decodes meanwhile.

    Frames that leave unused are counted as late.
    """

    def __init__(self, source: FrameSource, ring: WindowRing, *, is_paced: bool = False) -> None:
        self._source, self._ring, self._is_paced = source, ring, is_paced
        self._changed = threading.Condition()
        self._is_over = False
        self._fault: BaseException | None = None

    def __iter__(self) -> Iterator[Window]:
        """Yield windows. Raises `InputError` where the video cannot be read any further."""
        reader = threading.Thread(target=self._read, name="video", daemon=True)
        reader.start()
        try:
            while (window := self._next()) is not None:
                yield window
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            reader.join()
            self._ring.end()
        if self._fault:
            raise self._fault

    def _next(self) -> Window | None:
        """Return the newest window once there is one; None at the end."""
        with self._changed:
            while not self._ring.is_ready and not self._is_over:
                self._changed.wait(_WAIT_S)
            return self._ring.take() if self._ring.is_ready else None

    def _read(self) -> None:
        """Put frames into the ring, on a thread of its own, until the video or its reader ends."""
        try:
            for decoded in _paced(self._source) if self._is_paced else self._source.frames():
                with self._changed:
                    if self._is_over:
                        return
                    self._ring.put(decoded, time.monotonic())
                    self._changed.notify_all()
        except RuntimeFault as error:
            self._fault = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()


def _paced(source: FrameSource) -> Iterator[DecodedFrame]:
    """Yield each frame when it is due by its own time; frames that are late already come at once."""
    begun = time.monotonic()
    for decoded in source.frames():
        time.sleep(max(0.0, begun + decoded.time_s - time.monotonic()))
        yield decoded
