"""Statistics of raw readings: medians, and ratios within rounds, because machines are noisy and a round meets one noise."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.readings import Compared, Process, Race, Raced, Reading

#: The runs before a process is warm: after two a bundle may keep more in memory, which the third brings there.
WARM_UP = 3
#: Contenders that others are compared with, by their labels, and how columns call them.
STOCK = "stock onnxruntime"
DEFAULT, MAPPED, LEAN = "whole, default", "whole, mapped, no prepacking", "whole, bundles' options"
_SHORT = {DEFAULT: "default", MAPPED: "mapped", LEAN: "bundles' options"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A median and its quartiles."""

    low: float
    median: float
    high: float


def find(race: Race, label: str) -> Raced | None:
    """The contender of this label."""
    return next((each for each in race.contenders if each.label == label), None)


def bases(race: Race) -> list[tuple[str, Raced]]:
    """Contenders that others are compared with, by short names."""
    return [(_SHORT[each.label], each) for each in race.contenders if each.label in _SHORT]


def warm_ratio(contender: Raced | Compared, other: Raced | Compared) -> Spread:
    """This contender's time over the other's in the same round, warm runs alone."""
    pairs = zip(warm_runs(contender.race), warm_runs(other.race), strict=True)
    return spread([mine.seconds / its.seconds for mine, its in pairs])


def warm_s(contender: Raced | Compared) -> float:
    """Median seconds of a warm run, in the race."""
    return statistics.median(run.seconds for run in warm_runs(contender.race))


def warm_runs(process: Process) -> tuple[Reading, ...]:
    """Its runs without the first three; of fewer than five, without the first."""
    return process.runs[WARM_UP:] if len(process.runs) > WARM_UP + 1 else process.runs[1:]


def run_s(process: Process) -> float:
    """Median seconds of a process's runs after the first."""
    return statistics.median(run.seconds for run in process.runs[1:])


def peak_bytes(contender: Raced) -> float:
    """The median VmHWM of its processes."""
    return statistics.median(process.peak_bytes for process in (*contender.cold, contender.race))


def kept(contender: Raced) -> bool:
    """Whether every process kept the budget; True where there is none."""
    budget_bytes = contender.budget_bytes
    return budget_bytes is None or all(each.peak_bytes <= budget_bytes for each in (*contender.cold, contender.race))


def start_s(process: Process) -> float:
    """Seconds until the first result: opening and the first run."""
    return process.opened.seconds + process.runs[0].seconds


def cold(contender: Raced, figure: Callable[[Process], float]) -> float:
    """The median of a figure over the processes with cold files."""
    return statistics.median(map(figure, contender.cold))


def spread(values: list[float]) -> Spread:
    """Median and quartiles; of a single value, itself."""
    if len(values) < 2:
        return Spread(low=values[0], median=values[0], high=values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low=low, median=median, high=high)
