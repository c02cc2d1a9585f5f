"""Time planning: synthetic networks of 1,000, 10,000 and 100,000 operators, and the hardest real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hyps.compiler.jobs import Compilation
from hyps.compiler.model_io.load import load_model
from hyps.compiler.planning import plan_model
from hyps.models.catalogue import NETWORKS, build
from hyps.passes.errors import DoesNotFit
from hyps.passes.planning.planner import PlannedModel, plan
from hyps.passes.planning.request import Request
from hyps.passes.weights import Model
from tests.bench.place import Place
from tests.bench.readings import Deployment, Timed
from tests.bench.synthetic import inception, residual

COUNTS = (1_000, 10_000, 100_000)
SYNTHETIC: tuple[Callable[[int], Model], ...] = (residual, inception)
#: Ample, and one that a tenth of 10,000 operators fit.
BUDGETS_BYTES = (1 << 40, 128_000_000)


def planning(place: Place) -> Deployment:
    """Synthetic networks of growing size, and every reference network for its smallest budget, which is tried longest."""
    place.say("planning synthetic networks")
    synthetic = tuple(timed())
    tightest = []
    for name in NETWORKS:
        place.say(f"planning for the smallest budget: {name}")
        model = place.folder / f"{name}.onnx"
        build(name, model)
        tightest.append(timed_tight(model))
        for path in place.folder.glob(f"{name}.*"):
            path.unlink()
    return Deployment(synthetic=synthetic, tightest=tuple(tightest))


def timed() -> Iterator[Timed]:
    """Plan every synthetic network at every size and budget."""
    for network in SYNTHETIC:
        for count in COUNTS:
            model = network(count)
            for budget in BUDGETS_BYTES:
                yield _timed(network.__name__, partial(plan, model, Request(budget_bytes=budget)))


def timed_tight(path: Path) -> Timed:
    """Plan a model for the smallest budget that works, which takes longest: from its loaded file to the checked plan."""
    with load_model(path) as loaded:

        def planned(budget_bytes: int) -> PlannedModel:
            request = Request(budget_bytes=budget_bytes, threads=1)
            return plan_model(loaded, Compilation(model=path, output=path.parent, request=request, target_name="bench"))

        try:
            smallest = planned(1).plan.smallest_budget_bytes
        except DoesNotFit as refusal:
            smallest = refusal.smallest_budget_bytes or 0
        return _timed(path.stem, partial(planned, smallest))


def _timed(network: str, planning: Callable[[], PlannedModel]) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    planned = planning()
    return Timed(
        network=network,
        operators=len(planned.graph.operators),
        partitions=len(planned.plan.partitions),
        wall_s=round(time.perf_counter() - wall, 6),
        cpu_s=round(time.process_time() - cpu, 6),
    )
