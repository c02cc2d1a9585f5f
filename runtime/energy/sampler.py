"""Add up the joules of a reader while something else runs."""

from __future__ import annotations

import threading
import time

from hyps.runtime.energy.reader import EnergyError, EnergyReader

#: Seconds between two samples of watts; and of a counter, which is read only often enough to see each overflow.
_WATTS_EVERY_S, _JOULES_EVERY_S = 0.5, 5.0


class EnergySampler:
    """The joules of one reader since the sampler was made, sampled on a thread of its own.

    Watts are taken to change evenly between two samples. It closes the reader.
    """

    def __init__(self, reader: EnergyReader) -> None:
        self.reader = reader
        self._lock = threading.Lock()
        self._last, self._last_at = reader.read(), time.monotonic()
        self._began_at = self._last_at
        self._total = (0.0, 0.0)  # seconds and joules, replaced at once: other threads read it
        self._fault: EnergyError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample_regularly, name="energy", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Return the joules until now. Raises `EnergyError` if the reader failed since the sampler was made."""
        with self._lock:
            if self._fault:
                raise EnergyError(self._fault.fault.problem, self._fault.fault.remedy)
            self._sample()
            return self._total[1]

    def last_sample(self) -> tuple[float, float]:
        """Return the seconds and the joules until the last sample; a counter is sampled now.

        Raises `EnergyError` as `joules` does.
        """
        if self.reader.counts_joules or self._fault:
            self.joules()
        return self._total

    def close(self) -> None:
        """End sampling, and close the reader."""
        self._closed.set()
        self._thread.join()
        self.reader.close()

    def _sample(self) -> None:
        value, now = self.reader.read(), time.monotonic()
        is_counter = self.reader.counts_joules
        more = value - self._last if is_counter else (value + self._last) / 2 * (now - self._last_at)
        self._total = now - self._began_at, self._total[1] + more
        self._last, self._last_at = value, now

    def _sample_regularly(self) -> None:
        every_s = _JOULES_EVERY_S if self.reader.counts_joules else _WATTS_EVERY_S
        while not self._closed.wait(every_s):
            with self._lock:
                try:
                    self._sample()
                except EnergyError as fault:
                    self._fault = fault
                    return
