"""Costs of steps: figures that a machine can have."""

from __future__ import annotations

import msgspec
import pytest

from hyps.runtime.calibration import rates
from hyps.runtime.calibration import step_costs as module
from hyps.runtime.calibration.step_costs import step_costs


def test_costs_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURE_S", 0.05)
    monkeypatch.setattr(rates, "_MEASURE_S", 0.05)
    found = step_costs(1)
    assert all(value >= 1 for value in msgspec.to_builtins(found).values())
    for rate in (
        found.depthwise_macs_per_s,
        found.memory_bytes_per_s,
        found.cached_read_bytes_per_s,
        found.fresh_bytes_per_s,
    ):
        assert 10**6 < rate < 10**13
    assert found.open_us > found.open_node_us
