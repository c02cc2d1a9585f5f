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
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import judge, place
from hyps.runtime.cluster.placement.placement import Placement, assign, repair_placement
from hyps.runtime.cluster.placement.stages import placement_of, stages_as_placed
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.device.link_rates import LinkRates

MB = 1_000_000
#: A link that bounds nothing, and the seconds of a message that costs nothing.
FAST = LinkRates(up_bytes_per_s=10**12, down_bytes_per_s=10**12, latency_s=0.0)
FREE_S = 1e-12


def boards(*rates: float, memory_mb: int = 120) -> list[WorkerCapacity]:
    return [
        WorkerCapacity(
            name=f"w{number}", memory_bytes=memory_mb * MB, macs_per_s=int(rate * 10**9), link=FAST, message_s=FREE_S
        )
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
    found = place(step, workers, shares_inputs=True)
    assert (sorted(found.homes[0]), found.dealt) == (["w0", "w1", "w2"], frozenset(found.runs))
    assert "3 replicas" in found.reasons[0]
    one, three = (judge(step, each, workers).evaluation for each in (place(step, workers[:1]), found))
    assert three.throughput_per_s == pytest.approx(3 * one.throughput_per_s)
    assert three.latency_s == one.latency_s
    assert place(step, workers).homes == (("w0",),)


def test_idle_boards_share_inputs_for_latency_where_no_input_is_slower(step: Manifest) -> None:
    found = place(step, boards(1, 1, 0.9), shares_inputs=True, objective="latency")
    assert found.homes == (("w0", "w1"),)


def test_what_links_bound_is_not_spread(network: Manifest) -> None:
    slow = LinkRates(up_bytes_per_s=100_000, down_bytes_per_s=100_000, latency_s=0.001)
    workers = [dataclasses.replace(each, link=slow) for each in boards(1, 1, 1)]
    assert len(place(network, workers).runs) == 1
    assert len(place(network, boards(1, 1, 1)).runs) == 3


def test_what_messages_bound_is_not_spread(network: Manifest) -> None:
    """A message takes a board as long as it measured, and no longer than 64 times what its claim gives: 128 ms."""
    workers = boards(1, 1, 1)
    costly = [dataclasses.replace(each, message_s=0.1) for each in workers]
    assert len(place(network, costly).runs) == 1
    (cost,) = judge(network, place(network, costly), costly).evaluation.boards
    tensors = [network.tensors[name].nbytes for name in (*network.inputs, network.outputs[0].name)]
    assert cost.holding.handling_s == pytest.approx(0.1 * sum(map(tensor_messages, tensors)), rel=0.13)
    lying = [dataclasses.replace(each, message_s=1e6) for each in workers]
    (cost,) = judge(network, place(network, lying), lying).evaluation.boards
    assert cost.holding.handling_s == pytest.approx(64 * 2e6 / 1e9 * sum(map(tensor_messages, tensors)), rel=0.13)


def test_steps_go_where_they_were_measured_to_be_fast(network: Manifest) -> None:
    """A board may be fast at some steps and slow at others, which no claim says."""
    count = len(network.steps)
    seconds = {"w0": [0.9] * 5 + [0.1] * (count - 5), "w1": [0.1] * 5 + [0.9] * (count - 5)}
    found = place(network, boards(1, 1), seconds=lambda worker: seconds[worker.name])
    assert (found.runs, found.homes) == ((range(5), range(5, count)), (("w1",), ("w0",)))


def test_a_placement_is_that_of_its_stages(network: Manifest) -> None:
    for shares_inputs in (False, True):
        found = place(network, boards(1, 2, 4), shares_inputs=shares_inputs)
        again = placement_of(stages_as_placed(network, found))
        assert (again.runs, again.homes, again.dealt) == (found.runs, found.homes, found.dealt)


def test_a_balanced_pipeline_stays(network: Manifest) -> None:
    assert place(network, boards(1, 1), shares_inputs=True) == place(network, boards(1, 1))


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_that_are_compared_share_nothing(step: Manifest, copies: int) -> None:
    assert not place(step, boards(1, 1, 1), copies=copies, shares_inputs=True).dealt


def test_workers_that_must_not_see_the_input_share_no_run_that_reads_it(step: Manifest) -> None:
    workers = [dataclasses.replace(each, safe=each.name == "w0") for each in boards(1, 1)]
    assert place(step, workers, shares_inputs=True).homes == (("w0",),)


def test_of_many_unequal_boards_those_that_must_not_see_the_input_get_later_steps(network: Manifest) -> None:
    """Too many kinds of boards for the dynamic program."""
    rates = [1 + number / 7 for number in range(12)]
    workers = [dataclasses.replace(each, safe=each.name == "w0") for each in boards(*rates)]
    for shares_inputs in (False, True):
        found = place(network, workers, shares_inputs=shares_inputs)
        assert found.homes[0] == ("w0",)
        assert len({name for homes in found.homes for name in homes}) > 3
        assert judge(network, found, workers).evaluation.throughput_per_s > 1.5 / (
            judge(network, place(network, workers[:1]), workers).evaluation.period_s
        )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rates=st.lists(st.floats(0.1, 10), min_size=1, max_size=6), data=st.data())
def test_never_worse_than_the_pipeline_or_one_board(network: Manifest, rates: list[float], data: st.DataObject) -> None:
    workers = boards(*rates, memory_mb=data.draw(st.sampled_from([90, 120, 300])))
    plain = judge(network, place(network, workers), workers).evaluation
    fast = judge(network, place(network, workers, shares_inputs=True), workers).evaluation
    assert fast.throughput_per_s >= plain.throughput_per_s
    found = place(network, workers, shares_inputs=data.draw(st.booleans()), objective="latency")
    quick = judge(network, found, workers).evaluation
    singles = [judge(network, place(network, [each]), [each]).evaluation.latency_s for each in workers]
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
        assert [restricted(held, each.numbers).runs for each in (old, new)] == [old.runs, new.runs]
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
    return place(network, boards(*rates), shares_inputs=data.draw(st.booleans()))
