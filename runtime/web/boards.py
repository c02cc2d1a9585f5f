"""Build the page's view of the cluster's status; it keeps lost boards in the list for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from hyps.runtime.cluster.manager.rebalancer import RebalancingLine
from hyps.runtime.cluster.manager.status import WorkerLine
from hyps.runtime.web.cluster import Cluster
from hyps.runtime.web.schemas import (
    CodesView,
    EnergyView,
    ExitsView,
    MoveView,
    RebalancingView,
    ShareView,
    StatusView,
    WorkerView,
)

#: Seconds for which a lost board stays in the list.
_KEPT_S = 600.0


class Boards:
    """The cluster's status, with the boards that were there in the last ten minutes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: dict[str, tuple[float, WorkerLine]] = {}
        self._lock = threading.Lock()

    def view(self) -> StatusView:
        """Return the status now."""
        bundle, status = self._cluster.bundle, self._cluster.status()
        workers = self._workers(status.workers if status else self._cluster.workers())
        if status is None:
            state: Literal["starting", "idle"] = "starting" if bundle else "idle"
            return StatusView(
                model=None, bundle=bundle, state=state, problem=None, hub=self._cluster.connected, jobs=0, answered=0,
                answered_per_s=0.0, workers=workers, shares=[],
            )  # fmt: skip
        shares = [ShareView(**msgspec.structs.asdict(share)) for share in status.sub_bundles]
        return StatusView(
            model=status.model,
            bundle=bundle,
            state="serving" if shares else "starting",
            problem=_problem(self._cluster.problem(), shares, status.workers),
            hub=self._cluster.connected,
            jobs=status.jobs,
            answered=status.answered,
            answered_per_s=status.answered_per_s,
            workers=workers,
            shares=shares,
            rebalancing=_rebalancing(status.rebalancing) if status.rebalancing else None,
            codes=CodesView.model_validate(msgspec.to_builtins(status.codes)) if status.codes else None,
            exits=ExitsView.model_validate(msgspec.to_builtins(status.exits)) if status.exits else None,
            energy=EnergyView.model_validate(msgspec.to_builtins(status.energy)) if status.energy else None,
        )

    def _workers(self, lines: Sequence[WorkerLine]) -> list[WorkerView]:
        now = time.monotonic()
        online = {line.name: line for line in lines}
        with self._lock:
            for name, line in online.items():
                self._last[name] = now - line.seen_s, line
            for name, (seen_at, _) in [*self._last.items()]:
                if now - seen_at > _KEPT_S:
                    del self._last[name]
            return [
                _view(line, now - seen_at, online=name in online) for name, (seen_at, line) in sorted(self._last.items())
            ]


def _problem(trouble: str | None, shares: Sequence[ShareView], online: Sequence[WorkerLine]) -> str | None:
    """Return why nothing can be computed: the steps that no board holds, and what the manager says of the boards."""
    missing = missing_steps(shares)
    if missing and trouble and online:
        return f"{missing} ({trouble})"
    return missing or trouble


def missing_steps(shares: Sequence[ShareView]) -> str | None:
    """Return which steps no board holds and what to do, or None if each step has a board."""
    runs: list[list[ShareView]] = []
    for share in shares:
        if share.homes or share.replaced:
            continue
        if runs and runs[-1][-1].stop == share.start:
            runs[-1].append(share)
        else:
            runs.append([share])
    if not runs:
        return None
    return f"no board holds {', '.join(map(_run, runs))}; connect a board with enough memory for them"


def _run(shares: Sequence[ShareView]) -> str:
    """Return a run of neighbouring sub-bundles in words, such as "steps 3 to 5 (03-conv to 05-fc)"."""
    first, last = shares[0], shares[-1]
    if last.stop - first.start == 1:
        return f"step {first.start} ({first.first})"
    return f"steps {first.start} to {last.stop - 1} ({first.first} to {last.last})"


def _view(line: WorkerLine, seen_s: float, *, online: bool) -> WorkerView:
    fields = msgspec.structs.asdict(line) | {"seen_s": round(max(0.0, seen_s), 2)}
    if not online:
        fields |= {"loading": (), "loaded": (), "leases": 0, "queue": 0, "computed_per_s": 0.0, "queues": ()}
    lists = {name: [*fields[name]] for name in ("loading", "loaded", "queues")}
    return WorkerView(**fields | lists | {"online": online})


def _rebalancing(line: RebalancingLine) -> RebalancingView:
    moves = [MoveView(**msgspec.structs.asdict(move)) for move in line.moves]
    return RebalancingView(**msgspec.structs.asdict(line) | {"moves": moves})
