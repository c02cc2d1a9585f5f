"""Test that a manager that starts again goes on with two generations of its placement."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.generations import encode_plan, renumbered, restricted, side_by_side
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.partitioner import WorkerCapacity
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.placement.sharing import judge
from hyps.runtime.cluster.transfer.journal import Journal
from hyps.runtime.errors import BudgetError

OLD_JOB, NEW_JOB = "1" * 32, "2" * 32


def test_jobs_go_on_under_the_generation_that_they_began_with(layers: Path, tmp_path: Path) -> None:
    manifest = read_manifest(layers)
    bundle_sha256 = hashlib.sha256((layers / MANIFEST_NAME).read_bytes()).hexdigest()
    old = Placement(runs=(range(5), range(5, 14)), homes=(("w0",), ("w1",)), reasons=("", ""))
    new = renumbered(Placement(runs=(range(9), range(9, 14)), homes=(("w0",), ("w1",)), reasons=("", "")), old)
    assert new.numbers == (2, 3)
    between = manifest.steps[4].outputs[0]
    with closing(Journal(tmp_path)) as journal:
        journal.accept(OLD_JOB, "c", {"image": b"old"}, 0)
        journal.keep(OLD_JOB, between, b"0" * 32, b"made")
        journal.complete(OLD_JOB, 0, ["image"])
        journal.set_plan(bundle_sha256, encode_plan(side_by_side(old, new, ["w0", "w1"]), {0: (0, 1), 1: (2, 3)}, 1))
        journal.accept(NEW_JOB, "c", {"image": b"new"}, 1)
    said: list[str] = []
    options = ClusterOptions()
    workers = WorkerRegistry(layers, manifest, None, options, MeasuredSpeeds(), Monitor())
    with closing(Journal(tmp_path)) as journal:
        deployment = Deployment(manifest, bundle_sha256, journal, workers, options, said.append)
        deployment.resume()
        scheduler = deployment.scheduler
        assert scheduler
        assert scheduler.generations == {0: (0, 1), 1: (2, 3)}
        assert (scheduler.generation, deployment.move_phase) == (1, "draining")
        assert [scheduler.jobs[job].flow.ready() for job in (OLD_JOB, NEW_JOB)] == [(1,), (2,)]
        assert said == ["jobs that go on: 2"]
        with pytest.raises(BudgetError, match="move already"):
            deployment.move({0: ["w1"]})


def test_what_is_left_of_two_generations_is_in_the_schedule_s_order(layers: Path) -> None:
    """A run that both have keeps its number, so that the numbers' order is not the schedule's; forecasts need the latter."""
    manifest = read_manifest(layers)
    homes, reasons = (("w0",), ("w1",), ("w2",)), ("",) * 3
    old = Placement(runs=(range(4), range(4, 8), range(8, 14)), homes=homes, reasons=reasons)
    new = renumbered(Placement(runs=(range(3), range(3, 8), range(8, 14)), homes=homes, reasons=reasons), old)
    assert new.numbers == (3, 4, 2)
    left = restricted(side_by_side(old, new, ["w0", "w1", "w2"]), new.numbers)
    assert (left.runs, left.homes, left.numbers) == (new.runs, new.homes, new.numbers)
    workers = [
        WorkerCapacity(name=name, memory_bytes=120_000_000, macs_per_s=10**9, storage_bytes_per_s=10**9)
        for name in ("w0", "w1", "w2")
    ]
    assert judge(manifest, left, workers).forecast == judge(manifest, new, workers).forecast
