"""Measure a simulation from the time on when its queues have filled."""

from __future__ import annotations

from collections.abc import Sequence

from hyps.runtime.cluster.planning.problem import Fleet
from hyps.runtime.cluster.simulation.links import SimulatedLinks
from hyps.runtime.cluster.simulation.result import LatencyHistogram, SimulatedBoard, SimulationResult
from hyps.runtime.cluster.simulation.station_state import StationState

QUANTILES = (0.5, 0.9, 0.99, 1.0)


class Measurement:
    """The counters of one simulation: of its stations, of its links, and of the inputs that left."""

    def __init__(self, stations: Sequence[StationState], links: SimulatedLinks) -> None:
        self._stations, self._links = stations, links
        self._latencies = LatencyHistogram()
        self._began_s, self._left_before = 0.0, 0

    def restart(self, now: float, left: int) -> None:
        """Forget what was counted: the queues have filled. ``left`` is the number of inputs that have left before."""
        for state in self._stations:
            state.count(now)
            state.counters.restart(now)
        self._began_s, self._left_before, self._latencies = now, left, LatencyHistogram()
        self._links.restart()

    def add_latency(self, seconds: float) -> None:
        """Count the latency of an input that leaves."""
        self._latencies.add(seconds)

    def result(self, fleet: Fleet, now: float, left: int) -> SimulationResult:
        """Return the figures until ``now``; ``left`` is the number of inputs that have left by then."""
        window_s = max(now - self._began_s, 1e-12)
        count = left - self._left_before
        each = max(count, 1)
        boards: dict[str, SimulatedBoard] = {}
        dynamic = 0.0
        for state in self._stations:
            board, counters = state.station.board, state.counters
            extra = (board.busy_watts - board.idle_watts) * counters.busy_s / each
            dynamic += extra
            found = SimulatedBoard(
                busy_fraction=counters.busy_s / window_s,
                served=counters.served,
                occupancy=tuple(seconds / window_s for seconds in counters.occupancy_s),
                joules=extra + board.idle_watts * window_s / each,
            )
            before = boards.get(board.name)
            boards[board.name] = before.joined(found, extra) if before else found
        idle_watts = sum(board.idle_watts for board in fleet.boards) + fleet.hub_watts
        return SimulationResult(
            throughput_per_s=count / window_s,
            latency_mean_s=self._latencies.total_s / max(self._latencies.count, 1),
            latency_s={share: self._latencies.quantile(share) for share in QUANTILES},
            boards=boards,
            static_joules=idle_watts * window_s / each,
            dynamic_joules=dynamic,
            link_bytes={name: nbytes / each for name, nbytes in self._links.nbytes.items()},
            link_busy={name: busy_s / window_s for name, busy_s in self._links.busy_s.items()},
            inferences=count,
            window_s=window_s,
        )
