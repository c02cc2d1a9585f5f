"""Test placements: every step once, within each worker's memory, the slowest worker as fast as possible."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import judge, place
from hyps.runtime.cluster.placement.placement import assign, repair_placement
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES, step_cost
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.errors import BudgetError
from tests.runtime.cluster.scheduling.test_flow import scheduled

MB = 1_000_000
#: A link that bounds nothing, and the seconds of a message that costs nothing.
FAST = LinkRates(up_bytes_per_s=10**12, down_bytes_per_s=10**12, latency_s=0.0)
FREE_S = 1e-12


def worker(name: str, memory_mb: int = 120, rate: int = 10**9) -> WorkerCapacity:
    return WorkerCapacity(name=name, memory_bytes=memory_mb * MB, macs_per_s=rate, link=FAST, message_s=FREE_S)


@pytest.fixture(scope="module")
def network(layers: Path) -> Manifest:
    return read_manifest(layers)


def test_a_steps_cost_is_its_multiply_adds(network: Manifest) -> None:
    """A 3x3 convolution has input channels x output channels x 9 x height x width multiply-adds."""
    by_name = {step.name: step_cost(network, step) for step in network.steps}
    assert by_name["07-relu3_2"] == 128 * 128 * 9 * 8 * 8
    assert by_name["10-relu4_2"] == 256 * 256 * 9 * 4 * 4


@pytest.fixture
def shards(manifest: Manifest) -> Manifest:
    """Return a step, four heavy ones that need nothing of each other, and one that joins them."""
    made = scheduled(manifest, ("x", "a"), *[("a", f"s{number}") for number in range(4)], ("s0 s1 s2 s3", "y"))
    heavy = [msgspec.structs.replace(step, weight_bytes=MB if 0 < index < 5 else 0) for index, step in enumerate(made.steps)]
    return msgspec.structs.replace(made, steps=tuple(heavy))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_in_sequence(network: Manifest, count: int) -> None:
    workers = [worker(f"w{number}") for number in range(count)]
    placement = place(network, workers)
    assert [index for run in placement.runs for index in run] == [*range(len(network.steps))]
    assert list(placement.homes) == sorted(set(placement.homes))
    assert all(len(homes) == 1 for homes in placement.homes)
    works = [sum(step_cost(network, network.steps[index]) for index in run) for run in placement.runs]
    largest = max(step_cost(network, step) for step in network.steps)
    assert max(works) <= sum(works) / count + largest
    parts = assign(network, placement, workers)
    assert sorted(number for sub_bundles in parts.values() for number in sub_bundles) == [*range(len(placement.runs))]


def test_a_faster_worker_has_more(network: Manifest) -> None:
    placement = place(network, [worker("fast", rate=3 * 10**9), worker("slow")])
    works = {"fast": 0, "slow": 0}
    for run, (home,) in zip(placement.runs, placement.homes, strict=True):
        works[home] += sum(step_cost(network, network.steps[index]) for index in run)
    assert works["fast"] > 1.5 * works["slow"]


def test_shards_are_spread(manifest: Manifest) -> None:
    """Kaboubi, section 4.3.2.2: heavy steps that need nothing of each other run side by side."""
    made = scheduled(manifest, ("x", "a"), *[("a", f"s{number}") for number in range(4)], ("s0 s1 s2 s3", "y"))
    heavy = [msgspec.structs.replace(step, weight_bytes=MB if 0 < index < 5 else 0) for index, step in enumerate(made.steps)]
    shards = msgspec.structs.replace(made, steps=tuple(heavy))
    light = place(shards, [worker("w0"), worker("w1")], objective="latency")
    assert not any("side by side" in reason for reason in light.reasons)
    slow = place(shards, [worker("w0", rate=1), worker("w1", rate=1)], objective="latency")
    homes = {index: home for run, (home,) in zip(slow.runs, slow.homes, strict=True) for index in run}
    assert sorted(homes[index] for index in range(1, 5)) == ["w0", "w0", "w1", "w1"]
    assert any("side by side" in reason for reason in slow.reasons)


def test_a_step_that_fits_nobody(network: Manifest) -> None:
    with pytest.raises(BudgetError, match=r"step \S+ needs 7\d\.\d MB on a worker, the largest has 70\.0 MB"):
        place(network, [worker("w0", 60), worker("w1", 70)])


def test_a_lost_workers_steps_go_to_the_worker_that_is_free_soonest(network: Manifest) -> None:
    placement = place(network, [worker("w0"), worker("w1"), worker("w2")])
    after = repair_placement(network, placement, [worker("w0"), worker("w2")])
    assert after.runs == placement.runs
    assert [after.homes[0], after.homes[2]] == [("w0",), ("w2",)]
    assert after.homes[1] in (("w0",), ("w2",))
    assert after.reasons[1] == "w1 is gone"
    with pytest.raises(BudgetError, match="fit no other worker"):
        repair_placement(network, placement, [worker("w0"), worker("w2", 60)][1:])


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_are_on_workers_of_their_own(network: Manifest, copies: int) -> None:
    workers = [worker(f"w{number}") for number in range(3)]
    placement = place(network, workers, copies=copies)
    assert all(len(set(homes)) == len(homes) == copies for homes in placement.homes)
    after = repair_placement(network, placement, workers[:2], copies)
    assert all(set(homes) == {"w0", "w1"} for homes in after.homes)
    assert repair_placement(network, after, workers, copies).runs == placement.runs


@pytest.mark.parametrize("copies", [1, 2])
def test_only_safe_workers_see_the_inputs(network: Manifest, copies: int) -> None:
    workers = [dataclasses.replace(worker(name), safe=name == "z") for name in "abz"]
    placement = place(network, workers, copies=copies)
    for run, homes in zip(placement.runs, placement.homes, strict=True):
        reads = {name for index in run for name in network.steps[index].inputs}
        assert homes == ("z",) or not reads.intersection(network.inputs)
    assert len({home for homes in placement.homes for home in homes}) == 3
    with pytest.raises(BudgetError, match="no worker that may see the inputs is there"):
        place(network, workers[:2])
    with pytest.raises(BudgetError, match="fit no other worker that may see what they read; start another"):
        repair_placement(network, placement, workers[:2])


def test_the_forecast_is_of_the_slowest(network: Manifest) -> None:
    """Two workers of the same rate have nearly twice the throughput of one, and a latency longer by the transfers."""
    found = {}
    for count in (1, 2):
        workers = [worker(f"w{number}", rate=10**8) for number in range(count)]
        placement = place(network, workers)
        found[count] = judge(network, placement, workers).evaluation
    total_s = sum(step_cost(network, step) for step in network.steps) / 10**8
    assert found[1].latency_s == pytest.approx(total_s, rel=0.02)
    assert found[1].throughput_per_s == pytest.approx(1 / total_s)
    assert 1.7 / total_s < found[2].throughput_per_s <= 2 / total_s
    assert total_s < found[2].latency_s < 1.1 * total_s


@settings(max_examples=60, deadline=None)
@given(
    workers=st.lists(st.tuples(st.integers(60, 130), st.integers(10**7, 10**10)), min_size=1, max_size=5),
    gone=st.integers(0, 4),
)
def test_every_plan_fits(network: Manifest, workers: list[tuple[int, int]], gone: int) -> None:
    made = [worker(f"w{number}", memory, rate) for number, (memory, rate) in enumerate(workers)]
    try:
        placement = place(network, made)
    except BudgetError:
        assert min(step.alone_bytes for step in network.steps) > 0
        return
    assert [index for run in placement.runs for index in run] == [*range(len(network.steps))]
    rooms = {each.name: each.memory_bytes - CLUSTER_BYTES for each in made}
    for name, sub_bundles in assign(network, placement, made).items():
        for part in sub_bundles.values():
            assert all(step.peak_bytes <= rooms[name] for step in part.steps)
    left = [each for each in made if each.name != f"w{gone}"]
    if left:
        try:
            assign(network, repair_placement(network, placement, left), left)
        except BudgetError as error:
            assert "fit no other worker" in str(error)


def fits(manifest: Manifest, run: range, worker: WorkerCapacity) -> bool:
    steps = [manifest.steps[index] for index in run]
    reads = {name for step in steps for name in step.inputs}
    room = worker.memory_bytes - CLUSTER_BYTES
    return all(step.alone_bytes <= room for step in steps) and (worker.safe or not reads.intersection(manifest.inputs))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.tuples(st.integers(60, 130), st.integers(0, 3), st.booleans()), min_size=1, max_size=5),
    sharded=st.booleans(),
    copies=st.integers(1, 3),
    gone=st.integers(0, 4),
)
def test_a_group_holds_one_run_unless_no_other_worker_is_left(
    network: Manifest, shards: Manifest, members: list[tuple[int, int, bool]], sharded: bool, copies: int, gone: int
) -> None:
    manifest = shards if sharded else network
    made = [
        dataclasses.replace(worker(f"w{number}", memory), group=group, safe=safe)
        for number, (memory, group, safe) in enumerate(members)
    ]
    try:
        placement = place(manifest, made, copies=copies)
        left = [each for each in made if each.name != f"w{gone}"] or made
        after = repair_placement(manifest, placement, left, copies)
    except BudgetError as error:
        assert re.search("MB on a worker|may see the inputs|fit no other", str(error))
        return
    for plan, there in ((placement, made), (after, left)):
        assert [index for run in plan.runs for index in run] == [*range(len(manifest.steps))]
        runs = Counter(home for homes in plan.homes for home in homes)
        free = [each for each in there if not (each.group and runs[each.name])]
        for group in (each.name for each in there if each.group):
            held = [run for run, homes in zip(plan.runs, plan.homes, strict=True) if group in homes]
            assert sum(any(fits(manifest, run, each) for each in free) for run in held) <= 1


def test_shards_are_not_spread_to_groups(shards: Manifest) -> None:
    for rate in (1, 2, 10):
        group = dataclasses.replace(worker("g", rate=rate), group=4)
        placement = place(shards, [worker("w0", rate=1), worker("w1", rate=1), group])
        rows = zip(placement.homes, placement.reasons, strict=True)
        assert not any("side by side" in reason for homes, reason in rows if "g" in homes)
        assert sum("g" in homes for homes in placement.homes) <= 1  # not both the steps before the shards and those after
    alone = place(shards, [group, dataclasses.replace(group, name="h")])
    assert not any("side by side" in reason for reason in alone.reasons)


def test_steps_that_fit_only_groups(network: Manifest) -> None:
    """Only a group has room for a step in the middle, and it may not see the model's inputs."""
    largest = max(step.alone_bytes for step in network.steps)
    middle = next(index for index, step in enumerate(network.steps) if step.alone_bytes == largest)
    room_mb = -(-(max(step.alone_bytes for step in network.steps if step.alone_bytes < largest) + CLUSTER_BYTES) // MB)
    assert 0 < middle < len(network.steps) - 1
    assert room_mb * MB < largest + CLUSTER_BYTES
    group = dataclasses.replace(worker("g"), group=2, safe=False)
    placement = place(network, [group, worker("w0", room_mb), worker("w1", room_mb)])
    held = [run for run, homes in zip(placement.runs, placement.homes, strict=True) if homes == ("g",)]
    assert len(held) == 1
    assert middle in held[0]
