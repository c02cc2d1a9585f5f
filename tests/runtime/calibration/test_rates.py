"""Compute rates: the numbers of threads that are tried and chosen, and figures that a processor can have."""

from __future__ import annotations

import numpy as np
import pytest

from hyps.runtime.calibration import rates as module
from hyps.runtime.calibration.rates import (
    CONV_MACS,
    GEMM_MACS,
    best_s,
    conv_by_threads,
    fastest,
    gemv_weight_bytes,
    rates,
    thread_counts,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (4, (1, 2, 3, 4)),
        (6, (1, 2, 3, 4, 6)),
        (8, (1, 2, 3, 4, 8)),
        (20, (1, 2, 3, 4, 8, 16, 20)),
    ],
)
def test_threads_that_are_tried(cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.parametrize(
    ("by_threads", "threads"),
    [
        ({1: 100}, 1),
        ({1: 100, 2: 190, 3: 250, 4: 300}, 4),
        ({1: 100, 2: 190, 3: 250, 4: 200}, 3),
        ({1: 100, 2: 190, 3: 189, 4: 194}, 2),
        ({1: 100, 2: 60}, 1),
    ],
    ids=["one", "all", "one core is busy", "hardly faster", "slower"],
)
def test_the_fewest_threads_that_are_as_fast(by_threads: dict[int, int], threads: int) -> None:
    assert fastest(by_threads) == threads


@pytest.mark.parametrize(
    ("cache_mib", "room_mib", "weight_mib"),
    [(0, 4000, 64), (1, 4000, 16), (32, 4000, 128), (512, 4000, 256), (32, 200, 50), (32, 20, 16)],
    ids=["unknown", "small", "large", "huge", "little memory", "next to no memory"],
)
def test_weights_are_larger_than_the_caches_and_fit(cache_mib: int, room_mib: int, weight_mib: int) -> None:
    assert gemv_weight_bytes(cache_mib * MIB, room_mib * MIB) == weight_mib * MIB


def test_every_number_of_threads_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take turns, and the best of all rounds counts."""
    seconds = iter([3.0, 2.0, 1.0, 5.0, 4.0, 1.5])
    asked = []

    def measured(graph: str, feeds: module.Feeds, threads: int) -> float:
        asked.append((graph, threads))
        return next(seconds)

    monkeypatch.setattr(module, "best_s", measured)
    assert conv_by_threads((1, 2)) == {1: CONV_MACS, 2: round(CONV_MACS / 1.5)}
    assert asked == [("conv", 1), ("conv", 2)] * 3


def test_a_run_is_measured_without_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURE_S", 0.0)
    square = np.ones((64, 64), np.float32)
    assert 1e-7 < best_s("gemm", {"x": square, "w": square}, 1) < 1


def test_rates_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURE_S", 0.05)
    found = rates(2, 1 * MIB, 1000 * MIB)
    assert found.threads in found.conv_by_threads
    assert set(found.conv_by_threads) == {1, 2}
    assert found.conv_macs_per_s == found.conv_by_threads[found.threads]
    assert found.gemv_weight_bytes == 16 * MIB
    for rate in (found.conv_macs_per_s, found.gemm_macs_per_s, found.gemv_bytes_per_s):
        assert 10**7 < rate < 10**14


def test_multiply_adds() -> None:
    assert CONV_MACS == 115_605_504
    assert GEMM_MACS == 16_777_216
