"""Test that a manager that starts again goes on with two generations of its placement."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME
from hyps.runtime.cluster.broker.connection import manager_link
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.manager.deployment import Deployment
from hyps.runtime.cluster.manager.generations import encode_plan, renumbered, restricted, side_by_side
from hyps.runtime.cluster.manager.monitor import Monitor
from hyps.runtime.cluster.manager.options import ClusterOptions, Timeouts
from hyps.runtime.cluster.manager.placing import Placer
from hyps.runtime.cluster.manager.speeds import MeasuredSpeeds
from hyps.runtime.cluster.manager.upkeep import PlacementUpkeep
from hyps.runtime.cluster.manager.worker_watch import WorkerWatch
from hyps.runtime.cluster.manager.workers import WorkerRegistry
from hyps.runtime.cluster.placement.capacity import WorkerCapacity
from hyps.runtime.cluster.placement.choice import judge
from hyps.runtime.cluster.placement.placement import Placement
from hyps.runtime.cluster.planning.step_cost import CLUSTER_BYTES
from hyps.runtime.cluster.protocol.messages import WorkerState
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
        placer = Placer(manifest, options)
        deployment = Deployment(manifest, bundle_sha256, journal, workers, placer, options, said.append)
        upkeep = PlacementUpkeep(manifest, deployment, workers, placer, options, said.append)
        upkeep.resume()
        scheduler = deployment.scheduler
        assert scheduler
        assert scheduler.generations.numbers == {0: (0, 1), 1: (2, 3)}
        assert (scheduler.generations.newest, upkeep.move_phase) == (1, "draining")
        assert [scheduler.jobs[job].flow.ready() for job in (OLD_JOB, NEW_JOB)] == [(1,), (2,)]
        assert said == ["jobs that go on: 2"]
        with pytest.raises(BudgetError, match="move already"):
            upkeep.move({0: ["w1"]})


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
    assert judge(manifest, left, workers).evaluation == judge(manifest, new, workers).evaluation


class Placed:
    """A deployment on two workers, ``w0`` and ``w1``, that say what they are told to have loaded."""

    def __init__(self, layers: Path, journal: Journal, hub: Join) -> None:
        self.manifest = read_manifest(layers)
        options = ClusterOptions(least_workers=2, timeouts=Timeouts(settle_s=0.0))
        self.memory_bytes = dict.fromkeys(("w0", "w1"), 120_000_000)
        speeds = MeasuredSpeeds()
        self.registry = WorkerRegistry(layers, self.manifest, None, options, speeds, Monitor())
        self.connection = manager_link(hub)("manager", received=lambda *_: None, connected=lambda: None)
        self.connection.open()
        self.registry.orders.open(self.connection)
        self.said: list[str] = []
        placer = Placer(self.manifest, options)
        self.deployment = Deployment(self.manifest, "0" * 64, journal, self.registry, placer, options, self.said.append)
        self.upkeep = PlacementUpkeep(self.manifest, self.deployment, self.registry, placer, options, self.said.append)
        self.watch = WorkerWatch(self.registry, self.upkeep, self.deployment, speeds, self.said.append)
        self.obey()

    def obey(self) -> None:
        """Have every worker say that it holds what it was ordered to."""
        for name, memory_bytes in self.memory_bytes.items():
            orders = self.registry.orders.of(name)
            state = WorkerState(
                online=True,
                session="1" * 32,
                memory_bytes=memory_bytes,
                threads=1,
                macs_per_s=10**9,
                storage_bytes_per_s=10**9,
                epoch=orders.epoch if orders else 0,
                loaded=tuple(order.number for order in orders.sub_bundles) if orders else (),
            )
            self.watch.state(name, state)

    def go_on(self, rounds: int = 10) -> None:
        """Let the deployment do what is to be done, and the workers obey."""
        for _ in range(rounds):
            self.upkeep.ensure()
            self.obey()

    def close(self) -> None:
        self.registry.orders.close()
        self.connection.close()


@pytest.fixture
def placed(layers: Path, tmp_path: Path, open_hub: Join) -> Iterator[Placed]:
    with closing(Journal(tmp_path / "journal")) as journal, closing(Placed(layers, journal, open_hub)) as made:
        made.go_on()
        yield made


def test_a_worker_that_shrinks_while_old_steps_are_given_back(placed: Placed) -> None:
    """Its part of the new placement fits no more: it goes to the other worker, and the move comes to its end."""
    deployment = placed.deployment
    scheduler, before = deployment.scheduler, deployment.placement
    assert scheduler
    assert before
    scheduler.add(OLD_JOB, "c", {"image": b"0" * 32})
    steps = placed.manifest.steps
    largest = max(range(len(steps)), key=lambda index: steps[index].alone_bytes)
    cut = 3 if before.runs[0].stop != 3 else 4
    homes = (("w0",), ("w1",)) if largest >= cut else (("w1",), ("w0",))
    after = Placement(runs=(range(cut), range(cut, len(steps))), homes=homes, reasons=("", ""))
    placed.upkeep.begin_move(after)
    placed.go_on()
    assert placed.upkeep.move_phase == "draining"
    scheduler.add(NEW_JOB, "c", {"image": b"0" * 32})
    scheduler.remove(OLD_JOB)
    placed.memory_bytes["w1"] = steps[largest].alone_bytes + CLUSTER_BYTES - 1
    placed.obey()
    placed.go_on()
    assert placed.upkeep.move_phase is None
    assert any("the move is done" in line for line in placed.said)
    assert deployment.placement
    assert deployment.placement.runs == after.runs
    assert deployment.placement.homes == (("w0",), ("w0",))
    assert any("w1 has changed" in line for line in placed.said)
    assert {number for number, held in scheduler.replicas.homes.items() if held} == {*deployment.placement.numbers}
