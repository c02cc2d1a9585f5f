"""Measure how long planning takes for large networks and clusters; prints a line for each."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from hyps.runtime.cluster.planning.objectives import KEYS
from hyps.runtime.cluster.planning.optimal import Objective
from hyps.runtime.cluster.planning.planner import PlacementPlanner
from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, PlacedStep, Workload

#: Steps, boards, and classes of boards.
_SIZES = ((30, 6, 3), (30, 12, 3), (60, 12, 3), (30, 100, 1))
_OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency", "energy")


def large_problem(steps: int, boards: int, classes: int, *, own_links: bool = False) -> tuple[Workload, Fleet]:
    """Return a chain with some skip connections, and a star; with ``own_links`` every board has another link."""
    random_ = random.Random(0)
    tensor_bytes, made = {"t0": 600_000}, []
    for number in range(steps):
        seconds = random_.uniform(0.01, 0.2)
        tensor_bytes[f"t{number + 1}"] = random_.randint(1_000, 800_000)
        skipped = (f"t{number - 8}",) if number % 10 == 0 and number > 9 else ()
        made.append(
            PlacedStep(
                name=f"step{number}",
                seconds={f"c{each}": seconds * (1 + each / 2) for each in range(classes)},
                weight_bytes=random_.randint(0, 4_000_000),
                working_bytes=40_000_000,
                inputs=(f"t{number}", *skipped),
                outputs=(f"t{number + 1}",),
            )
        )
    links: dict[tuple[str, str], NetworkLink] = {}
    for number in range(boards):
        rate = 11.75e6 * (random_.uniform(0.5, 1.5) if own_links else 1)
        link = NetworkLink(bytes_per_s=rate, latency_s=0.0003)
        links |= {(f"b{number}", HUB): link, (HUB, f"b{number}"): link}
    fleet = Fleet(
        boards=tuple(
            Board(
                name=f"b{number}",
                board_class=f"c{number % classes}",
                memory_bytes=(100 + 50 * (number % classes)) * 10**6,
                storage_bytes_per_s=20e6,
                idle_watts=1.5,
                busy_watts=4.0,
            )
            for number in range(boards)
        ),
        links=links,
        hub_watts=4.0,
    )
    workload = Workload(steps=tuple(made), tensor_bytes=tensor_bytes, inputs=("t0",), outputs=(f"t{steps}",))
    return workload, fleet


def measure(objective: Objective, steps: int, boards: int, classes: int, *, own_links: bool = False) -> str:
    """Return a line that says how long one plan takes, and how near it is to the bound."""
    workload, fleet = large_problem(steps, boards, classes, own_links=own_links)
    started, cpu = time.perf_counter(), time.process_time()
    planned = PlacementPlanner(workload, fleet, boards).plan(objective, boards)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    reached = KEYS[objective](planned.evaluation)[0]
    near = "exact" if planned.is_exact else f"within {reached / planned.bound - 1:.1%}"
    links = "own links" if own_links else f"{classes} class{'es' if classes > 1 else ''}"
    return f"{steps} steps, {boards} boards, {links}, {objective}: {seconds:.2f} s ({cpu:.2f} s of processor), {near}"


def largest() -> Iterator[str]:
    """Yield a line for each objective on 1,000 steps and 1,000 boards of 1 and 4 classes, and where links differ."""
    for objective in _OBJECTIVES:
        for classes in (1, 4):
            yield measure(objective, 1000, 1000, classes)
        yield measure(objective, 1000, 1000, 4, own_links=True)


def main() -> None:
    """Print a line for every size and objective."""
    for objective in _OBJECTIVES:
        for steps, boards, classes in _SIZES:
            print(measure(objective, steps, boards, classes), flush=True)
    for line in largest():
        print(line, flush=True)


if __name__ == "__main__":
    main()
