"""Simulate planned placements for ``hyps-manager plan --simulate SECONDS``, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyps.runtime.cluster.planning.comparison import PlanRow
from hyps.runtime.cluster.planning.problem import Fleet, Workload, used_fleet
from hyps.runtime.cluster.planning.reasons import seconds_text
from hyps.runtime.cluster.simulation.result import SimulationResult
from hyps.runtime.cluster.simulation.simulate import simulate
from hyps.runtime.terminal.tables import Column, table


def simulated_row(workload: Workload, fleet: Fleet, row: PlanRow, seconds: float) -> SimulationResult:
    """Simulate a placement for some seconds of a stream that never runs dry, and return the result."""
    return simulate(workload, used_fleet(fleet, row.stages), row.stages, seconds=seconds)


def simulation_lines(found: SimulationResult, seconds: float) -> Iterator[str]:
    """Yield the stream's figures, and a table of its boards."""
    latencies = ", ".join(f"{share:.0%} within {seconds_text(found.latency_s[share])}" for share in (0.5, 0.99))
    yield (
        f"simulated for {seconds:g} s: {found.throughput_per_s:.3g} inferences/s in a stream, {found.joules:.3g} J each; "
        f"with queues full, {latencies}"
    )
    columns = (
        Column("board"),
        *(Column(name, numeric=True) for name in ("busy", "inputs", "waiting", "queue full", "J/inference")),
    )
    yield from table(
        columns,
        (
            [
                name,
                f"{board.busy_fraction:.0%}",
                str(board.served),
                f"{board.mean_occupancy:.1f}",
                f"{board.occupancy[-1]:.0%}",
                f"{board.joules:.3g}",
            ]
            for name, board in found.boards.items()
        ),
    )


def simulation_plain(found: SimulationResult) -> Mapping[str, object]:
    """Return the figures for JSON, in SI units; latencies by quantile."""
    return {
        "inferences_per_s": found.throughput_per_s,
        "latency_s": {f"{share:g}": seconds for share, seconds in found.latency_s.items()},
        "static_j": found.static_joules,
        "dynamic_j": found.dynamic_joules,
        "boards": [
            {
                "board": name,
                "busy": board.busy_fraction,
                "inputs": board.served,
                "queue_occupancy": board.occupancy,
                "energy_j": board.joules,
            }
            for name, board in found.boards.items()
        ],
    }
