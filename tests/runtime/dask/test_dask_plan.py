"""Steps become tasks such that fewer bytes are read and sent, within the workers' memory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.dask.task_plan import DASK_BYTES, task_plan
from hyps.runtime.errors import BudgetError

MB = 1_000_000


@pytest.fixture(scope="module")
def network(layers: Path) -> Manifest:
    return read_manifest(layers)


def workers(count: int, memory_bytes: int) -> dict[str, int]:
    return {f"tcp://w{number}": memory_bytes for number in range(count)}


def test_one_input_is_spread(network: Manifest) -> None:
    made = task_plan(network, workers(3, 300 * MB), count=1, chunk=1)
    assert [step.name for stage in made.stages for step in stage.part.steps] == [step.name for step in network.steps]
    assert len({stage.home for stage in made.stages}) == 3
    assert all(stage.memory_bytes == max(step.alone_bytes for step in stage.part.steps) for stage in made.stages)


def test_many_inputs_go_where_no_tensor_travels(network: Manifest) -> None:
    made = task_plan(network, workers(3, 300 * MB), count=10_000, chunk=16)
    (stage,) = made.stages
    assert (stage.home, stage.memory_bytes, len(stage.part.steps)) == (None, 300 * MB - DASK_BYTES, len(network.steps))
    assert made.reason == "one task for 16 inputs"


def test_weights_that_do_not_fit_are_not_read_again_by_all(network: Manifest) -> None:
    """Three workers together can keep all weights, one cannot: steps are spread, unless many inputs go together."""
    heavy = msgspec.structs.replace(network, steps=tuple(map(a_hundred_times_heavier, network.steps)))
    alone_bytes = max(step.alone_bytes for step in heavy.steps)
    weights = sum(step.weights.size_bytes for step in heavy.steps if step.weights)
    tight = workers(3, DASK_BYTES + alone_bytes + weights // 2)
    spread = task_plan(heavy, tight, count=1000, chunk=1)
    assert len(spread.stages) > 1
    assert sum(step.pinned_bytes for stage in spread.stages for step in stage.part.steps) > 0.9 * weights
    assert len(task_plan(heavy, tight, count=1000, chunk=1000).stages) == 1


def a_hundred_times_heavier(step: Step) -> Step:
    if step.weights is None:
        return step
    weights = msgspec.structs.replace(step.weights, size_bytes=100 * step.weights.size_bytes)
    return msgspec.structs.replace(step, weights=weights, alone_bytes=step.alone_bytes + 99 * step.weights.size_bytes)


def test_what_fits_no_worker_is_refused(network: Manifest) -> None:
    with pytest.raises(BudgetError, match="MB on a worker, the largest has"):
        task_plan(network, workers(3, DASK_BYTES + 40 * MB), count=1000, chunk=16)


def test_a_step_that_fits_one_worker_goes_there(network: Manifest) -> None:
    mixed = {"tcp://large": 300 * MB, "tcp://small": DASK_BYTES + 40 * MB}
    made = task_plan(network, mixed, count=1000, chunk=16)
    assert {stage.home for stage in made.stages} == {"tcp://large"}


def test_a_batch_that_streams_reads_all_weights(network: Manifest) -> None:
    """A batch pins nothing (`hyps.runtime.execution.batch.batch_manifest`), which the estimate knows."""
    heavy = msgspec.structs.replace(network, steps=tuple(map(a_hundred_times_heavier, network.steps)))
    weights = sum(step.weights.size_bytes for step in heavy.steps if step.weights)
    tight = workers(1, DASK_BYTES + max(step.alone_bytes for step in heavy.steps) + weights // 2)
    (one, two) = (task_plan(heavy, tight, count=count, chunk=100) for count in (100, 200))
    assert len(one.stages) == len(two.stages) == 1
    assert 0 < weights <= two.nbytes - one.nbytes < 1.1 * weights
