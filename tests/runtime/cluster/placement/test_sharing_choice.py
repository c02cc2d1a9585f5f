"""Test the choice among pipelines and data-parallel replicas."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.manager.generations import (
    decode_plan,
    encode_plan,
    held_numbers,
    renumbered,
    restricted,
    side_by_side,
)
from hyps.runtime.cluster.placement.partitioner import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement, assign, place, repair_placement
from hyps.runtime.cluster.placement.sharing import judge, place_well

MB = 1_000_000


def boards(*rates: float, memory_mb: int = 120) -> list[WorkerCapacity]:
    return [
        WorkerCapacity(name=f"w{number}", memory_bytes=memory_mb * MB, macs_per_s=int(rate * 10**9))
        for number, rate in enumerate(rates)
    ]


@pytest.fixture(scope="module")
def network(layers: Path) -> Manifest:
    return read_manifest(layers)


@pytest.fixture(scope="module")
def step(cifar_bundle: Path) -> Manifest:
    """The network as one step."""
    return read_manifest(cifar_bundle)


def test_idle_boards_share_the_slowest_run(step: Manifest) -> None:
    workers = boards(1, 1, 1)
    found = place_well(step, workers)
    assert (sorted(found.homes[0]), found.dealt) == (["w0", "w1", "w2"], frozenset(found.runs))
    assert "dealt out to 3" in found.reasons[0]
    one, three = judge(step, place(step, workers[:1]), workers).forecast, judge(step, found, workers).forecast
    assert three.computed_per_s == pytest.approx(3 * one.computed_per_s)
    assert three.latency_s == one.latency_s


def test_a_balanced_pipeline_stays(network: Manifest) -> None:
    assert place_well(network, boards(1, 1)) == place(network, boards(1, 1))


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_that_are_compared_share_nothing(step: Manifest, copies: int) -> None:
    assert not place_well(step, boards(1, 1, 1), copies).dealt


def test_workers_that_must_not_see_the_input_share_no_run_that_reads_it(step: Manifest) -> None:
    workers = [dataclasses.replace(each, safe=each.name == "w0") for each in boards(1, 1)]
    assert place_well(step, workers).homes == (("w0",),)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rates=st.lists(st.floats(0.1, 10), min_size=1, max_size=6), data=st.data())
def test_never_worse_than_the_pipeline_or_one_board(network: Manifest, rates: list[float], data: st.DataObject) -> None:
    workers = boards(*rates, memory_mb=data.draw(st.sampled_from([90, 120, 300])))
    plain = judge(network, place(network, workers), workers).forecast
    fast = judge(network, place_well(network, workers), workers).forecast
    assert fast.computed_per_s >= plain.computed_per_s
    quick = judge(network, place_well(network, workers, objective="latency"), workers).forecast
    singles = [judge(network, place(network, [each]), [each]).forecast.latency_s for each in workers]
    assert quick.latency_s <= min(plain.latency_s, *singles) * 1.000001


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_two_generations_fit_side_by_side(network: Manifest, data: st.DataObject) -> None:
    """Whatever is held meanwhile, each worker's sub-bundles of both fit in its memory, and each run has its home."""
    old, new = (_drawn(network, data) for _ in range(2))
    new = renumbered(new, old)
    assert len({*zip(old.numbers, old.runs, strict=True), *zip(new.numbers, new.runs, strict=True)}) == len(
        {*old.runs, *new.runs}
    )
    workers = boards(1, 1, 1, memory_mb=90)
    names = [worker.name for worker in workers]
    for count in range(4):
        held = side_by_side(old, new, names[:count])
        for parts in assign(network, held, workers).values():
            peaks = [step.peak_bytes for part in parts.values() for step in part.steps]
            assert max(peaks, default=0) <= 74 * MB
        assert restricted(held, old.numbers).runs == old.runs
        assert {*old.numbers} <= {*held.numbers}
        assert decode_plan(encode_plan(held, {0: old.numbers, 1: new.numbers}, 1))[0].homes == held.homes
    whole = side_by_side(old, new, names)
    assert all(held_numbers(old)[name] <= held_numbers(whole)[name] for name in held_numbers(old))
    assert all(held_numbers(new)[name] <= held_numbers(whole)[name] for name in held_numbers(new))
    after = repair_placement(network, whole, workers[:1])
    assert all(homes == ("w0",) for homes in after.homes)
    assert after.numbers == whole.numbers


def _drawn(network: Manifest, data: st.DataObject) -> Placement:
    rates = data.draw(st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
    return data.draw(st.sampled_from([place, place_well]))(network, boards(*rates))
