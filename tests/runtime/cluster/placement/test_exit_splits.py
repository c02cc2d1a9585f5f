"""Runs of steps are cut behind the exits that are asked for, and nowhere else; inferences begin where they are cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.runtime.bundle.exits import rest_inputs, rest_outputs, rest_start
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.cluster.placement.exit_splits import split_at_exits
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.scheduling.flow import DataFlow, SubBundleGraph

ONE = Placement(runs=(range(4),), homes=(("w0",),), reasons=("all",))
TWO = Placement(
    runs=(range(1), range(1, 4)), homes=(("w0",), ("w1", "w2")), reasons=("a", "b"), dealt=frozenset({range(1, 4)})
)


@pytest.mark.parametrize(
    ("placement", "numbers", "runs"),
    [
        (ONE, (), [range(4)]),
        (ONE, (2,), [range(2), range(2, 4)]),
        (ONE, (3, 1, 2), [range(1), range(1, 2), range(2, 3), range(3, 4)]),
        (TWO, (1,), [range(1), range(1, 4)]),
        (TWO, (1, 2), [range(1), range(1, 2), range(2, 4)]),
    ],
)
def test_runs(exiting: Path, placement: Placement, numbers: tuple[int, ...], runs: list[range]) -> None:
    found = split_at_exits(read_manifest(exiting), placement, numbers, ())
    assert [*found.runs] == runs
    assert found.numbers == tuple(range(len(runs)))
    homes = {index: each for run, each in zip(placement.runs, placement.homes, strict=True) for index in run}
    assert [*found.homes] == [homes[run.start] for run in runs]
    assert found.dealt == {run for run in runs if any(run.start in each for each in placement.dealt)}


def test_runs_of_groups_stay_whole(exiting: Path) -> None:
    found = split_at_exits(read_manifest(exiting), TWO, (1, 2, 3), ["w1"])
    assert found.runs == TWO.runs


def test_a_rest_begins_where_runs_are_cut(exiting: Path) -> None:
    """It needs what is live there, and makes the outputs that are left."""
    manifest = read_manifest(exiting)
    graph = SubBundleGraph(manifest, [range(1), range(1, 3), range(3, 4)])
    assert [graph.before(graph.first, rest_start(manifest, number)) for number in (None, 1, 2, 3)] == [
        (),
        (0,),
        None,
        (0, 1),
    ]
    assert [rest_inputs(manifest, number) for number in (None, 1, 3)] == [("x",), ("relu0b",), ("relu2b",)]
    assert rest_outputs(manifest, 1, None) == ("middle", "late", "scores")
    assert rest_outputs(manifest, 1, 3) == ("middle", "late")
    assert rest_outputs(manifest, None, 1) == ("early",)
    flow = DataFlow(graph, rest_inputs(manifest, 1))
    flow.done.add(0)
    assert flow.ready() == (1,)
    assert flow.complete(1) == ("relu0b",)
    assert not flow.finished
    assert flow.complete(2) == ("relu2b",)
    assert flow.finished
    assert flow.there == {"middle", "late", "scores"}
