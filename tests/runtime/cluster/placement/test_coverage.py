"""Test coded placements and what they can lose: boards of a group differ, copies elsewhere, figure 6.15."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.codes.covering import Covering
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.coded_placement import place_coded, repair_coded
from hyps.runtime.cluster.placement.coverage import bundle_stages, coverage_curve, coverage_lines, placement_coverage
from hyps.runtime.cluster.placement.placement import Placement, assign
from hyps.runtime.errors import BudgetError


def workers(count: int, first: int = 0) -> list[WorkerCapacity]:
    return [
        WorkerCapacity(name=f"w{number}", memory_bytes=120_000_000, macs_per_s=10**9)
        for number in range(first, first + count)
    ]


def survives(manifest: Manifest, placement: Placement, lost: tuple[str, ...]) -> bool:
    left = [[name for name in homes if name not in lost] for homes in placement.homes]
    return not Covering(manifest, 1).lacks(placement, left)


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_what_is_said_to_be_tolerated_is(coded: Manifest, count: int, copies: int) -> None:
    """Tried with every set of boards."""
    placement = place_coded(coded, workers(count), copies)
    assert [index for run in placement.runs for index in run] == [*range(len(coded.steps))]
    assign(coded, placement, workers(count))
    members = [homes for run, homes in zip(placement.runs, placement.homes, strict=True) if 1 <= run.start <= 5]
    assert all(len(homes) == 1 for homes in members)
    assert len({*members}) == min(count, 5)
    found = placement_coverage(coded, placement)
    for losses in range(1, count):
        lost = [*itertools.combinations(found.boards, losses)]
        assert all(survives(coded, placement, names) for names in lost) == (losses <= found.tolerated), losses
    assert found.tolerated == {5: min(2, copies - 1), 7: min(2, copies - 1)}.get(count, found.tolerated)


def test_a_lost_shard_stays_lost_where_no_board_is_free(coded: Manifest) -> None:
    placement = place_coded(coded, workers(5), 2)
    lost = placement.homes[[run.start for run in placement.runs].index(2)][0]
    left = [worker for worker in workers(5) if worker.name != lost]
    mended = repair_coded(coded, placement, left, 2, spare_only=True)
    assert () in mended.homes
    assert all(homes == tuple(name for name in before if name != lost) for homes, before in
               zip(mended.homes, placement.homes, strict=True))  # fmt: skip
    spare = repair_coded(coded, mended, [*left, *workers(1, first=9)], 2, spare_only=True)
    assert () not in spare.homes
    assert spare.homes[mended.homes.index(())] == ("w9",)


def test_more_losses_than_parity_shards_are_mended(coded: Manifest) -> None:
    placement = place_coded(coded, workers(5), 1)
    mended = repair_coded(coded, placement, workers(2), 1, spare_only=True)
    assert not Covering(coded, 1).lacks(mended, mended.homes)
    with pytest.raises(BudgetError, match=r"step .* fits no worker"):
        repair_coded(coded, placement, [replace(workers(1)[0], memory_bytes=20_000_000)], 1)


def test_an_exact_result_needs_every_shard_and_a_vote_one_answer_more(coded: Manifest) -> None:
    placement = place_coded(coded, workers(5), 2)
    shard = [run.start for run in placement.runs].index(2)
    lost = placement.homes[shard][0]
    left = [worker for worker in workers(5) if worker.name != lost]
    homes = [tuple(name for name in each if name != lost) for each in placement.homes]
    assert [Covering(coded, 2).lacks(placement, homes, exact=exact) for exact in (False, True)] == [False, True]
    assert [Covering(coded, 2, margin).lacks(placement, homes) for margin in (1, 2)] == [False, True]
    exact = Covering(coded, 2).repair(placement, left, exact=True)
    assert not Covering(coded, 2).lacks(exact, exact.homes, exact=True)
    parity = [place for place, run in enumerate(exact.runs) if 4 <= run.start <= 5]
    assert [exact.homes[place] for place in parity] == [placement.homes[place] for place in parity]
    voted = Covering(coded, 2, 2).repair(placement, left)
    assert () not in voted.homes
    assert next(coverage_lines(coded, place_coded(coded, workers(5), 3), 1, 1)) == "any 1 board may be lost"


def test_the_operator_is_told(coded: Manifest) -> None:
    lines = [*coverage_lines(coded, place_coded(coded, workers(5), 3), 2)]
    assert lines[0] == "any 2 boards may be lost"
    assert lines[1].startswith("boards hold ")
    assert "full replication for 2 losses" in lines[1]
    few = [*coverage_lines(coded, place_coded(coded, workers(2), 1), 1)]
    assert few[0] == "not every board may be lost"
    assert "5 boards are needed so that any 1 board may be lost; 2 boards have steps" in few


@pytest.mark.parametrize(
    ("stages", "extra", "replicated", "coded"),
    [((1, 2, 1, 2, 1), 2, 0.44, 0.67), ((1, 3, 1, 3, 1), 2, 0.36, 0.73)],
    ids=["two", "three"],
)
def test_figure_6_15(stages: tuple[int, ...], extra: int, replicated: float, coded: float) -> None:
    """C3D's two distributions, with two extra devices (Hadidi, section 6.3.3)."""
    curve = {point.extra: point for point in coverage_curve(stages)}
    assert (round(curve[extra].replicated, 2), round(curve[extra].coded, 2)) == (replicated, coded)
    assert curve[sum(stages)].replicated == 1
    assert next(point.extra for point in curve.values() if point.coded == 1) == len(stages)


def test_a_bundles_stages(coded: Manifest) -> None:
    """A board for the first step, three for the shards, one for what follows; parity is what comes on top."""
    assert bundle_stages(coded) == (1, 3, 1)


def test_measured_seconds_place_shards(coded: Manifest) -> None:
    """A board that is slow by measurement gets no shard where there are others, although it claims to be the fastest."""
    claims = [replace(worker, macs_per_s=10**10 if worker.name == "w3" else 10**9) for worker in workers(6)]
    seconds = {worker.name: (5.0 if worker.name == "w3" else 1.0,) * len(coded.steps) for worker in claims}
    placement = place_coded(coded, claims, seconds=lambda worker: seconds[worker.name])
    held = {name: sum(len(run) for run, homes in zip(placement.runs, placement.homes, strict=True) if name in homes)
            for name in seconds}  # fmt: skip
    assert held["w3"] == 0
    assert max(held.values()) == 2
    shards = [homes for run, homes in zip(placement.runs, placement.homes, strict=True) if 1 <= run.start <= 5]
    assert len({*shards}) == 5
    claimed = place_coded(coded, claims)
    assert any("w3" in homes for homes in claimed.homes)
