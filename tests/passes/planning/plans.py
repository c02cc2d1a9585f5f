"""Check plans in tests: what they compute, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.passes.device import DeviceRates
from hyps.passes.errors import DoesNotFit
from hyps.passes.graph import view
from hyps.passes.planning.planner import PlannedModel, plan
from hyps.passes.planning.request import CutMode, Request
from hyps.passes.weights import Model
from tests.passes.nets import Net, random_feeds, run, run_partitions, same_bits

PROCESS_BYTES, START_BYTES = DeviceRates().process_bytes, DeviceRates().start_bytes


def does_not_fit(model: Model, request: Request) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        plan(model, request)
    assert "\n" not in str(caught.value)
    return caught.value


def smallest(model: Model, split: CutMode) -> int:
    found = does_not_fit(model, Request(budget_bytes=PROCESS_BYTES, split=split)).smallest_budget_bytes
    assert found is not None
    return found


def assert_computes_the_same(model: Model, planned: PlannedModel, folder: Path) -> None:
    feeds = random_feeds(model)
    whole = run(model, feeds, folder) | {name: feeds[name] for name in view(model).outputs if name in feeds}
    assert planned.plan.exact
    assert same_bits(run_partitions(planned.model, planned.plan.partitions, feeds, folder), whole)


def wide_layer(rows: int = 1, *after: str) -> Model:
    """Return a model of one Gemm of 32 MB and operators ``after`` it."""
    net = Net()
    net.input("x", rows, 2000)
    net.node("Gemm", "x", net.absent("w", 4000, 2000), net.weight("b", 4000), to="fc", transB=1)
    value = "fc"
    for kind in after:
        value = net.node(kind, value, to=f"{kind.lower()}")
    net.output(value)
    return net.model()
