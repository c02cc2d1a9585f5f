"""Simulate the thesis's systems with each planner's placement, and compare the factors that the thesis states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hyps.runtime.cluster.planning.algorithm1 import task_assignment
from hyps.runtime.cluster.planning.algorithm2 import Monitored, monitored_assignment
from hyps.runtime.cluster.planning.evaluation import evaluate
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import Fleet, Stages, Workload, used_fleet
from hyps.runtime.cluster.planning.simple_pipeline import simple_pipeline
from hyps.runtime.cluster.simulation.simulate import simulate
from hyps.runtime.errors import BudgetError
from tests.bench.placement_results import PLANNERS, PlacementCase, SimulatedSystem, Stated
from tests.bench.thesis import Statement, System, Thesis, own_placement, read_thesis, system_workload, thesis_fleet

#: How many periods of the slowest stage a simulation lasts, and one round of Algorithm 2's monitoring.
_PERIODS, _MONITORED_PERIODS = 1000, 100
#: Figure 4.29 shows the queues of this system.
_WITH_QUEUES = "xception_c"


def simulated_systems(say: Callable[[str], None]) -> tuple[SimulatedSystem, ...]:
    """Every system on every number of devices by every planner."""
    thesis = read_thesis()
    made = []
    for key, system in thesis.systems.items():
        say(key)
        cases = {(case.planner, case.devices): case for case in _cases(thesis, key, system)}
        stated = tuple(_compared(statement, cases) for statement in system.stated)
        made.append(
            SimulatedSystem(
                key=key,
                title=system.title,
                source=system.source,
                note=" ".join(system.note.split()),
                cases=tuple(cases.values()),
                stated=stated,
            )
        )
    return tuple(made)


def _cases(thesis: Thesis, key: str, system: System) -> Iterator[PlacementCase]:
    workload = system_workload(thesis, system)
    for count in map(int, system.placements):
        fleet = thesis_fleet(thesis, count)
        for planner in PLANNERS:
            try:
                stages = _placement(thesis, system, workload, fleet, planner)
                if stages is None:
                    yield PlacementCase(planner=planner, devices=count, skipped="not described")
                    continue
                yield _simulated(thesis, workload, fleet, stages, planner, with_queues=key == _WITH_QUEUES)
            except BudgetError as error:
                yield PlacementCase(planner=planner, devices=count, skipped=str(error))


def _placement(thesis: Thesis, system: System, workload: Workload, fleet: Fleet, planner: str) -> Stages | None:
    count, chunk_bytes = len(fleet.boards), thesis.network.packet_bytes
    if planner == "own":
        return own_placement(thesis, system, count)
    if planner == "algorithm1":
        return task_assignment(workload, fleet, count)
    if planner == "algorithm2":
        return monitored_assignment(workload, fleet, count, lambda stages: _monitored(workload, fleet, stages, chunk_bytes))[
            0
        ]
    if planner == "ours":
        return PlacementPlanner(workload, fleet, count).plan("throughput", count).stages
    return simple_pipeline(workload, fleet, count)


def _monitored(workload: Workload, fleet: Fleet, stages: Stages, chunk_bytes: int) -> Monitored:
    """What Algorithm 2 sees of a deployed placement: how long each device works on an input."""
    seconds = _MONITORED_PERIODS * evaluate(workload, fleet, stages).period_s
    found = simulate(workload, fleet, stages, seconds=seconds, chunk_bytes=chunk_bytes)
    board_s = {name: board.busy_fraction * found.window_s / max(1, board.served) for name, board in found.boards.items()}
    return Monitored(throughput_per_s=found.throughput_per_s, board_s=board_s)


def _simulated(
    thesis: Thesis, workload: Workload, fleet: Fleet, stages: Stages, planner: str, *, with_queues: bool
) -> PlacementCase:
    """Devices that hold nothing are switched off."""
    used, chunk_bytes = used_fleet(fleet, stages), thesis.network.packet_bytes
    expected = evaluate(workload, used, stages)
    stream = simulate(workload, used, stages, seconds=_PERIODS * expected.period_s, chunk_bytes=chunk_bytes)
    alone = simulate(workload, used, stages, inputs=1, chunk_bytes=chunk_bytes)
    queues = {name: tuple(round(share, 3) for share in board.occupancy) for name, board in stream.boards.items()}
    return PlacementCase(
        planner=planner,
        devices=len(fleet.boards),
        groups=described(workload, stages),
        throughput_per_s=round(stream.throughput_per_s, 5),
        formula_per_s=round(expected.throughput_per_s, 5),
        latency_s=round(alone.latency_mean_s, 5),
        static_joules=round(stream.static_joules, 4),
        dynamic_joules=round(stream.dynamic_joules, 4),
        queues=queues if with_queues else {},
    )


def described(workload: Workload, stages: Stages) -> str:
    """Return the stages in words: ``conv_1 to conv_5 on 3 replicas; fc_1 in 2 shards; ...``."""
    words = []
    for stage in stages:
        first, last = (workload.steps[index].name.partition(".")[0] for index in (stage.steps.start, stage.steps.stop - 1))
        name = first if first == last else f"{first} to {last}"
        how = {"alone": "", "replicas": f" on {len(stage.boards)} replicas", "shards": f" in {len(stage.boards)} shards"}
        words.append(name + how[stage.sharing])
    return "; ".join(words)


def _compared(statement: Statement, cases: Mapping[tuple[str, int], PlacementCase]) -> Stated:
    figures: list[float | None] = []
    for planner, devices in (statement.of, statement.to):
        case = cases.get((planner, devices))
        figures.append(getattr(case, statement.figure) if case and case.skipped is None else None)
    of, to = figures
    found = round(of / to, 3) if of and to else None
    return Stated(what=statement.what, factor=statement.factor, found=found, source=statement.source)
