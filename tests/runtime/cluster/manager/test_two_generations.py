"""Test that a manager that starts again goes on with two generations of its placement."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.generations import encode_plan, renumbered, side_by_side
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.options import ClusterOptions
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.placement import Placement
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
