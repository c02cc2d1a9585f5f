"""Test the data flow of one inference: shards side by side, partitions in sequence, tensors kept as long as needed."""

from __future__ import annotations

import msgspec
import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.tensors import OutputRecord, TensorRecord
from hyps.runtime.cluster.scheduling.flow import DataFlow, SubBundleGraph

ONE = TensorRecord(dtype="float32", shape=(1,))


def scheduled(manifest: Manifest, *steps: tuple[str, str], results: str = "y") -> Manifest:
    """Return a manifest with these (inputs, outputs) as its steps."""
    made = tuple(
        msgspec.structs.replace(manifest.steps[0], inputs=tuple(reads.split()), outputs=tuple(makes.split()))
        for reads, makes in steps
    )
    names = {name for step in made for name in (*step.inputs, *step.outputs)}
    outputs = tuple(OutputRecord(name=name, probabilities=False) for name in results.split())
    return msgspec.structs.replace(manifest, inputs=("x",), outputs=outputs, tensors=dict.fromkeys(names, ONE), steps=made)


def one_step_each(manifest: Manifest) -> SubBundleGraph:
    return SubBundleGraph(manifest, [range(index, index + 1) for index in range(len(manifest.steps))])


def test_partitions_run_in_sequence(manifest: Manifest) -> None:
    flow = DataFlow(one_step_each(scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "y"))), ["x"])
    assert flow.ready() == (0,)
    assert flow.complete(0) == ("x",)
    assert flow.ready() == (1,)
    assert flow.complete(1) == ("a",)
    assert not flow.finished
    assert flow.complete(2) == ("b",)
    assert flow.finished
    assert (flow.ready(), flow.there) == ((), {"y"})


def test_shards_run_side_by_side(manifest: Manifest) -> None:
    """Kaboubi, figure 3.11: shards may end in any order, and their input stays until the last has ended."""
    shards = scheduled(manifest, ("x", "a"), ("a", "s1"), ("a", "s2"), ("a", "s3"), ("s1 s2 s3", "y"))
    flow = DataFlow(one_step_each(shards), ["x"])
    flow.complete(0)
    assert flow.ready() == (1, 2, 3)
    assert flow.complete(2) == ()
    assert flow.complete(1) == ()
    assert flow.ready() == (3,)
    assert flow.complete(3) == ("a",)
    assert flow.ready() == (4,)
    assert flow.complete(4) == ("s1", "s2", "s3")


def test_a_run_of_steps_shows_only_what_crosses_it(manifest: Manifest) -> None:
    residual = scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "c"), ("a c", "y"))
    graph = SubBundleGraph(residual, [range(1), range(1, 3), range(3, 4)])
    assert [*graph.inputs.values()] == [("x",), ("a",), ("a", "c")]
    assert [*graph.outputs.values()] == [("a",), ("c",), ("y",)]
    flow = DataFlow(graph, ["x"])
    assert [flow.complete(index) for index in range(3)] == [("x",), (), ("a", "c")]


def test_an_inference_resumes_from_its_last_boundary_tensors(manifest: Manifest) -> None:
    graph = one_step_each(scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "y")))
    flow = DataFlow(graph, ["b"])
    flow.done.update({0, 1})
    assert flow.ready() == (2,)


def test_outputs_that_are_early_or_that_nobody_needs(manifest: Manifest) -> None:
    flow = DataFlow(one_step_each(scheduled(manifest, ("x", "y a"), ("a", "waste"), ("a", "z"), results="y z")), ["x"])
    assert flow.complete(0) == ("x",)
    assert flow.ready() == (2,)
    assert flow.complete(2) == ("a",) or flow.there == {"y", "z", "a"}
    assert flow.finished


@pytest.mark.parametrize("runs", [[range(2)], [range(1), range(2, 3)], [range(1, 3), range(1)]])
def test_runs_cover_the_schedule_in_order(manifest: Manifest, runs: list[range]) -> None:
    with pytest.raises(AssertionError):
        SubBundleGraph(scheduled(manifest, ("x", "a"), ("a", "b"), ("b", "y")), runs)
