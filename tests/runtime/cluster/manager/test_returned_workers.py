"""Test when a stream's manager gives lost sub-bundles out: at once to a worker that is back, to others when all is quiet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hyps.runtime.cluster.manager.options import ClusterOptions, Timeouts
from hyps.runtime.cluster.manager.upkeep import PlacementUpkeep
from hyps.runtime.cluster.placement.placement import Placement

_OPTIONS = ClusterOptions(tolerate=1, timeouts=Timeouts(settle_s=1000))


class Cluster:
    """A stream on w0 and w1, which hold the same run; ``holding`` are those with orders, ``mended`` counts placements."""

    def __init__(self) -> None:
        self.homes: dict[int, tuple[str, ...]] = {0: ("w0", "w1")}
        self.holding = {"w0", "w1"}
        self._mends: list[int] = []
        placement = Placement(runs=(range(2),), homes=(("w0", "w1"),), reasons=("",))
        replicas = SimpleNamespace(sub_bundles_of=lambda name: [0] if name in self.homes[0] else [])
        self.deployment = SimpleNamespace(
            placement=placement,
            scheduler=SimpleNamespace(jobs={"job": None}, has_exact_jobs=False, replicas=replicas),
            homes=lambda: [self.homes[0]],
            workers=[SimpleNamespace(name="w0"), SimpleNamespace(name="w1")],
            ordered_to={"w0", "w1"},
            coverage=(),
        )
        workers = SimpleNamespace(holds_orders=self.holding.__contains__)
        fakes: list[Any] = [SimpleNamespace(codes=()), self.deployment, workers, None]
        self.upkeep = PlacementUpkeep(fakes[0], fakes[1], fakes[2], fakes[3], _OPTIONS, lambda text: None)
        self.upkeep.mend = self._mend  # type: ignore[method-assign]

    def lose(self, name: str) -> None:
        self.homes[0] = tuple(home for home in self.homes[0] if home != name)
        self.deployment.workers = [each for each in self.deployment.workers if each.name != name]
        self.upkeep.workers_changed()
        self.upkeep.mend_if_needed()

    def join(self, name: str) -> None:
        self.deployment.workers.append(SimpleNamespace(name=name))
        self.upkeep.workers_changed()

    @property
    def mended(self) -> int:
        return len(self._mends)

    def _mend(self) -> None:
        self._mends.append(1)
        self.deployment.ordered_to = {each.name for each in self.deployment.workers}


def test_a_worker_that_is_back_gets_its_part_at_once() -> None:
    """It is the same worker as before, and nobody was given orders meanwhile."""
    cluster = Cluster()
    cluster.lose("w1")
    cluster.upkeep.ensure()
    assert cluster.mended == 0  # the other goes on alone
    cluster.join("w1")
    cluster.upkeep.ensure()
    assert cluster.mended == 1
    cluster.upkeep.ensure()
    assert cluster.mended == 1


@pytest.mark.parametrize("name", ["w1", "w2"], ids=["started empty", "another"])
def test_a_worker_without_files_waits_until_no_more_come(name: str) -> None:
    cluster = Cluster()
    cluster.lose("w1")
    cluster.holding.discard("w1")
    cluster.join(name)
    cluster.upkeep.ensure()
    assert cluster.mended == 0
    cluster.upkeep._changed_at -= 2000
    cluster.upkeep.ensure()
    assert cluster.mended == 1
