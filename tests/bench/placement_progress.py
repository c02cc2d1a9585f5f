"""Keep what a run of ``make bench-placement ONLY=real`` has measured so far, so that the next one goes on after it.

The file lies in ``build``, and is of one commit: another commit begins anew. It is removed when all cases are done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from hyps.runtime.io.files import replacing
from tests.bench.placement_prediction import Calibration
from tests.bench.placement_results import RealCase
from tests.repository import ROOT

PROGRESS = ROOT / "build" / "placement-real.json"


class Unfinished(Exception):
    """The time is over before all cases are done; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What is measured at a commit."""

    commit: str
    calibration: Calibration | None = None
    cases: tuple[RealCase, ...] = ()


class RealProgress:
    """The calibration and the cases that are done; nothing further begins ``limit_s`` seconds after the start."""

    def __init__(self, commit: str, limit_s: float, path: Path = PROGRESS) -> None:
        self._path, self._until = path, time.monotonic() + limit_s
        self._measured = _Measured(commit=commit)
        if path.exists():
            kept = msgspec.json.decode(path.read_bytes(), type=_Measured)
            if kept.commit == commit:
                self._measured = kept

    @property
    def calibration(self) -> Calibration | None:
        """What predictions need, None until it is measured."""
        return self._measured.calibration

    @property
    def cases(self) -> tuple[RealCase, ...]:
        """The cases that are done."""
        return self._measured.cases

    def calibrated(self, calibration: Calibration) -> None:
        """Keep a calibration."""
        self._keep(replace(self._measured, calibration=calibration))

    def done(self, case: RealCase) -> None:
        """Keep a case, and print it."""
        self._keep(replace(self._measured, cases=(*self._measured.cases, case)))
        measured_s = sorted(case.measured_s)[len(case.measured_s) // 2]
        print(
            f"{case.name}: {case.predicted_per_s:.3f} a second predicted, {case.measured_per_s:.3f} measured "
            f"({case.predicted_per_s / case.measured_per_s - 1:+.1%}); {case.predicted_s:.3f} s alone predicted, "
            f"{measured_s:.3f} measured ({case.predicted_s / measured_s - 1:+.1%})",
            flush=True,
        )

    def check_time(self) -> None:
        """Raise `Unfinished` if the time is over."""
        if time.monotonic() > self._until:
            raise Unfinished(f"{len(self.cases)} cases are done; the same command goes on after them ({self._path})")

    def end(self) -> None:
        """Forget everything: it is in the results."""
        self._path.unlink(missing_ok=True)

    def _keep(self, measured: _Measured) -> None:
        self._measured = measured
        self._path.parent.mkdir(exist_ok=True)
        with replacing(self._path) as partial:
            partial.write_bytes(msgspec.json.encode(measured))
