"""Follow the energy of one board for a cluster: what it has taken so far, and what it takes without work."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.device.available_memory import FILESYSTEM_ROOT, read_text
from hyps.runtime.energy.choice import OpenedReader, open_measuring_reader
from hyps.runtime.energy.estimate import EstimateReader, PowerFigures
from hyps.runtime.energy.reader import EnergyError
from hyps.runtime.energy.sampler import EnergySampler

#: The idle power of a measured board is the least average over this many seconds since the start.
_IDLE_AVERAGE_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardState:
    """The seconds since a board's program began to count, the joules taken in them, the idle power, and their source."""

    seconds: float
    joules: float
    idle_watts: float
    estimated: bool
    source: str


class BoardMeter:
    """The energy of this board, by the best reader that it has. Thread-safe.

    Without a reader and without ``power`` it knows nothing until `estimate_by` names the board's power.
    """

    def __init__(self, opened: OpenedReader | None) -> None:
        self._lock = threading.Lock()
        self._opened, self._sampler = opened, EnergySampler(opened.reader) if opened else None
        self._mark = (0.0, 0.0)
        self._idle_watts = opened.power.idle_watts if opened and opened.power else None

    def estimate_by(self, power: PowerFigures) -> None:
        """Estimate from now on, if nothing measures or estimates yet."""
        with self._lock:
            if self._opened is None:
                self._opened = OpenedReader(reader=EstimateReader(power))
                self._sampler, self._idle_watts = EnergySampler(self._opened.reader), power.idle_watts

    def state(self) -> BoardState | None:
        """Return the state; None while it is not known, and for good once the reader has failed."""
        with self._lock:
            if self._opened is None or self._sampler is None:
                return None
            try:
                seconds, joules = self._sampler.last_sample()
            except EnergyError as fault:
                _log.warning("energy is not measured any more: %s", fault)
                self._sampler.close()
                self._sampler = None
                return None
            if not self._opened.power:
                self._look_for_idle(seconds, joules)
            if self._idle_watts is None:
                return None
            return BoardState(
                seconds=seconds,
                joules=max(0.0, joules),
                idle_watts=self._idle_watts,
                estimated=self._opened.power is not None,
                source=self._opened.reader.name,
            )

    def close(self) -> None:
        """End measuring."""
        with self._lock:
            if self._sampler:
                self._sampler.close()
                self._sampler = None

    def _look_for_idle(self, seconds: float, joules: float) -> None:
        began, before = self._mark
        if seconds >= began + _IDLE_AVERAGE_S:
            watts = max(0.0, joules - before) / (seconds - began)
            self._idle_watts = watts if self._idle_watts is None else min(watts, self._idle_watts)
            self._mark = seconds, joules


def board_meter(meter: str | None, power: PowerFigures | None) -> BoardMeter:
    """Return the meter of this board: by the user's command, a sensor, or else an estimate from ``power`` if it is known.

    Raises `EnergyError` if the user's command does not work.
    """
    opened = open_measuring_reader(meter)
    if isinstance(opened, OpenedReader):
        return BoardMeter(opened)
    for reason in opened:
        _log.info("%s", reason)
    return BoardMeter(OpenedReader(reader=EstimateReader(power)) if power else None)


def machine_number(root: Path = FILESYSTEM_ROOT) -> str:
    """Return 16 hexadecimal digits that all programs of this machine have in common until it starts again.

    Several workers on one machine would else count its power several times.
    """
    return hashlib.sha256(read_text(root / "proc/sys/kernel/random/boot_id").encode()).hexdigest()[:16]
