"""How long planning takes: synthetic networks of 1,000, 10,000 and 100,000 operators, whole and in many partitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hyps.passes.planner import plan
from hyps.passes.request import Request
from hyps.passes.weights import Model
from tests.bench.synthetic import inception, residual

COUNTS = (1_000, 10_000, 100_000)
NETWORKS: tuple[Callable[[int], Model], ...] = (residual, inception)
#: Ample, and one that a tenth of 10,000 operators fit.
BUDGETS_BYTES = (1 << 40, 128_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One plan: seconds by the clock, and those that the processor worked for it."""

    network: str
    operators: int
    partitions: int
    wall_s: float
    cpu_s: float


def timed() -> Iterator[Timed]:
    """Plan every network at every size and budget."""
    for network in NETWORKS:
        for count in COUNTS:
            model = network(count)
            for budget in BUDGETS_BYTES:
                wall, cpu = time.perf_counter(), time.process_time()
                planned = plan(model, Request(budget_bytes=budget))
                yield Timed(
                    network=network.__name__,
                    operators=len(planned.graph.operators),
                    partitions=len(planned.plan.partitions),
                    wall_s=time.perf_counter() - wall,
                    cpu_s=time.process_time() - cpu,
                )
