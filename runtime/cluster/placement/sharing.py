"""Choose among placements: pipelines of fewer or more workers, with the others as data-parallel replicas of the slowest run.

A pipeline is as fast as its slowest run. Where one step takes most of the time, more runs do not help, but a second worker
that holds the slowest run does: inputs are dealt out to both (Hadidi, section 4.4.3: data parallelism raises the throughput
and leaves the work per input as it is). For latency, a run that crosses no link is often the best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.forecast import Forecast, forecast
from hyps.runtime.cluster.placement.partitioner import LINK_BYTES_PER_S, WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, assign, place, runnable_steps
from hyps.runtime.errors import BudgetError

PlacementObjective = Literal["throughput", "latency"]
#: The plain pipeline stays unless another placement is better by this factor: it shows each worker the least of the network.
_WORTHWHILE = 1.2
#: For latency, a replica must not be slower than this part of the run's fastest home.
_EQUAL = 0.9
#: Pipelines of so many workers at most are tried one by one, and so many workers alone.
_TRIED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A placement with its forecast."""

    placement: Placement
    forecast: Forecast


def place_well(
    manifest: Manifest,
    workers: Sequence[WorkerCapacity],
    copies: int = 1,
    objective: PlacementObjective = "throughput",
    link_bytes_per_s: float = LINK_BYTES_PER_S,
) -> Placement:
    """Place all steps for the objective. Raises `BudgetError` if a step fits no worker.

    With ``copies``, that many workers compute every input, and none shares inputs with another.
    """
    plain = place(manifest, workers, copies)
    if copies > 1 or len(workers) == 1:
        return plain
    best = judge(manifest, plain, workers, link_bytes_per_s)
    bar = _WORTHWHILE if objective == "throughput" else 1.0
    for candidate in _candidates(manifest, workers, objective):
        choice = judge(manifest, candidate, workers, link_bytes_per_s)
        if _merit(choice.forecast, objective) > bar * _merit(best.forecast, objective):
            best, bar = choice, 1.0
    return best.placement


def judge(
    manifest: Manifest, placement: Placement, workers: Sequence[WorkerCapacity], link_bytes_per_s: float = LINK_BYTES_PER_S
) -> Choice:
    """Return a placement with its forecast on these workers. Raises `BudgetError` if it does not fit."""
    assigned = assign(manifest, placement, workers)
    return Choice(placement=placement, forecast=forecast(manifest, placement, assigned, workers, link_bytes_per_s))


def _merit(expected: Forecast, objective: PlacementObjective) -> float:
    """Return what is larger for a better placement; the link counts for latency alone, as all pipelines share it."""
    return 1 / expected.latency_s if objective == "latency" else expected.computed_per_s


def _candidates(manifest: Manifest, workers: Sequence[WorkerCapacity], objective: PlacementObjective) -> Iterator[Placement]:
    """Yield pipelines of the fastest workers, and workers alone, each with replicas on the rest; groups get no replicas."""
    fastest = sorted(workers, key=lambda worker: (not worker.safe, -worker.macs_per_s, worker.name))
    counts = {len(workers), (len(workers) + 1) // 2, *range(1, min(_TRIED, len(workers)) + 1)}
    crews = [fastest[:count] for count in sorted(counts, reverse=True)]
    crews += [[worker] for worker in fastest[1:_TRIED]]
    for crew in crews:
        try:
            chain = place(manifest, crew)
        except BudgetError:
            continue
        yield _with_replicas(manifest, chain, workers, objective)


def _with_replicas(
    manifest: Manifest, placement: Placement, workers: Sequence[WorkerCapacity], objective: PlacementObjective
) -> Placement:
    """Give the slowest run to idle workers, too, one by one, as long as that makes a stream faster."""
    by_name = {worker.name: worker for worker in workers}
    used = {home for homes in placement.homes for home in homes}
    idle = sorted((each for each in workers if each.name not in used and not each.group), key=lambda each: -each.macs_per_s)
    best = judge(manifest, placement, workers)
    for worker in idle:
        slowest = _slowest(best)
        run, homes = best.placement.runs[slowest], best.placement.homes[slowest]
        speed = max(by_name[home].macs_per_s for home in homes)
        is_slow = objective == "latency" and worker.macs_per_s < _EQUAL * speed
        if is_slow or any(by_name[home].group for home in homes) or not runnable_steps(manifest, worker).issuperset(run):
            continue
        new_homes = [*best.placement.homes]
        new_homes[slowest] = (*homes, worker.name)
        reasons = [*best.placement.reasons]
        reasons[slowest] = f"the slowest run; its inputs are dealt out to {len(homes) + 1}"
        more = replace(
            best.placement, homes=tuple(new_homes), reasons=tuple(reasons), dealt=best.placement.dealt | {run}
        )  # fmt: skip
        choice = judge(manifest, more, workers)
        if choice.forecast.computed_per_s > best.forecast.computed_per_s:
            best = choice
    return best.placement


def _slowest(choice: Choice) -> int:
    """Return the place of the run to relieve: the longest of the busiest worker's."""
    runs_s, busiest = choice.forecast.runs_s, choice.forecast.busiest
    held = [place for place, homes in enumerate(choice.placement.homes) if busiest in homes]
    return max(held, key=lambda place: runs_s[place])
