"""Divide measured joules by inferences, static and dynamic apart: the static part is what the device takes without work.

Hadidi (section 4.6) states both, because a board that waits for others costs as much as one that computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hyps.runtime.energy.choice import OpenedReader

#: The least seconds of a window that averages out what else a system does.
LEAST_WINDOW_S = 30


class EnergyWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The joules that a device took in some seconds, and the inferences that it computed in them, one after the other."""

    seconds: float
    inferences: int
    joules: float

    def per_inference(self, idle_watts: float) -> tuple[float, float]:
        """Return the static and the dynamic joules of one inference."""
        static = idle_watts * self.seconds / self.inferences
        return static, self.joules / self.inferences - static


class EnergyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The energy of one inference as ``--json`` prints it: the medians over the windows, in joules.

    ``spread`` is the range of the windows' totals, as a fraction of the median. ``estimate_error_watts`` is the fit's error
    where the figures are estimated, None where it is not known.
    """

    source: str
    covers: str
    estimated: bool
    estimate_error_watts: float | None
    idle_watts: float
    idle_source: str
    static_joules: float
    dynamic_joules: float
    joules: float
    spread: float
    windows: tuple[EnergyWindow, ...]


def energy_record(
    opened: OpenedReader, idle_watts: float, idle_source: str, windows: Sequence[EnergyWindow]
) -> EnergyRecord:
    """Return the record of some windows, at least one."""
    totals = [window.joules / window.inferences for window in windows]
    statics, dynamics = zip(*(window.per_inference(idle_watts) for window in windows), strict=True)
    middle = _median(totals)
    return EnergyRecord(
        source=opened.reader.name,
        covers=opened.reader.covers,
        estimated=opened.power is not None,
        estimate_error_watts=opened.power.error_watts if opened.power else None,
        idle_watts=idle_watts,
        idle_source=idle_source,
        static_joules=_median(statics),
        dynamic_joules=_median(dynamics),
        joules=middle,
        spread=(max(totals) - min(totals)) / middle if middle > 0 else 0.0,
        windows=tuple(windows),
    )


def energy_lines(record: EnergyRecord, *, quiet: bool = False) -> Iterator[str]:
    """Yield a record as sentences: the medians with their sources and, unless ``quiet``, each window and what is covered."""
    yield (
        f"{joules_text(record.joules)} an inference ({record.source}): {joules_text(record.static_joules)} static "
        f"({record.idle_watts:.3f} W idle by {record.idle_source}), {joules_text(record.dynamic_joules)} dynamic (the rest)"
    )
    if quiet:
        return
    for number, window in enumerate(record.windows, 1):
        static, dynamic = window.per_inference(record.idle_watts)
        yield (
            f"window {number}: {_count(window.inferences, 'inference')} in {window.seconds:.1f} s, "
            f"{window.joules / window.seconds:.3f} W; each {joules_text(static)} static, {joules_text(dynamic)} dynamic"
        )
    yield f"above: the median of {_count(len(record.windows), 'window')}, whose totals spread by {record.spread:.1%}"
    yield f"{record.source} covers {record.covers}" if not record.estimated else f"{record.source}: {record.covers}"
    if min(window.seconds for window in record.windows) < LEAST_WINDOW_S:
        yield f"windows of less than {LEAST_WINDOW_S} s give rough figures"


def joules_text(joules: float) -> str:
    """Return joules, or millijoules below one: ``3.07 J``, ``41.2 mJ``."""
    return f"{joules:,.2f} J" if abs(joules) >= 1 else f"{joules * 1e3:z.1f} mJ"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
