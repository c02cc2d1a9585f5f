"""Measure what a worker's processor spends on messages under load: receiving, checking, unpacking, packing and sending."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

#: The answers over which the mean is taken, and those that are enough.
_ANSWERS, _ENOUGH = 64, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Total:
    """Sums since the start, in seconds: the processor's for messages and for computing, and those that computing took."""

    messages: float
    handling_s: float
    computing_s: float
    took_s: float


class MessageMeter:
    """The measurement of one worker, whose thread and whose connection's thread spend time on messages.

    ``message_s`` is the seconds of a message (`hyps.runtime.cluster.planning.message_cost`), None until enough is measured:
    the processor's, times how much longer computing takes than the processor works at it, as under a quota. A worker's other
    threads, which compute, too, do not count.
    """

    def __init__(self) -> None:
        self.message_s: float | None = None
        self._connection_s = 0.0
        self._messages = self._computing_s = self._took_s = 0.0
        self._totals: deque[_Total] = deque(maxlen=_ANSWERS)
        self._began = 0.0, 0.0

    def received(self) -> None:
        """Note that a message came (on the connection's thread)."""
        self._connection_s = time.thread_time()

    def restart(self) -> None:
        """Forget what was measured: the worker did other things meanwhile."""
        self._totals.clear()

    def begin(self) -> None:
        """Note that computing begins (on the worker's thread)."""
        self._began = time.thread_time(), time.perf_counter()

    def computed(self) -> None:
        """Note that computing has ended."""
        processor_s, at_s = self._began
        self._computing_s += time.thread_time() - processor_s
        self._took_s += time.perf_counter() - at_s

    def answered(self, messages: float) -> None:
        """Note that an answer is packed; with its inputs, it cost as much as so many messages."""
        self._messages += messages
        new = _Total(
            messages=self._messages,
            handling_s=self._connection_s + time.thread_time() - self._computing_s,
            computing_s=self._computing_s,
            took_s=self._took_s,
        )
        self._totals.append(new)
        old = self._totals[0]
        computing_s = new.computing_s - old.computing_s
        if len(self._totals) < _ENOUGH or computing_s <= 0 or new.handling_s <= old.handling_s:
            return
        slower = max(1.0, (new.took_s - old.took_s) / computing_s)
        self.message_s = slower * (new.handling_s - old.handling_s) / (new.messages - old.messages)
