"""The cluster's status as the page sees it: boards that are gone stay in the list for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from hyps.runtime.cluster.manager.status import WorkerLine
from hyps.runtime.web.cluster import Cluster
from hyps.runtime.web.schemas import ShareView, StatusView, WorkerView

#: A board that is unplugged is worth knowing for so long.
_KEPT_S = 600.0


class Boards:
    """Makes a `StatusView` of what the manager says now and said before."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: dict[str, tuple[float, WorkerLine]] = {}
        self._lock = threading.Lock()

    def view(self) -> StatusView:
        """How it is."""
        bundle, status = self._cluster.bundle, self._cluster.status()
        workers = self._workers(status.workers if status else self._cluster.workers())
        if status is None:
            state: Literal["starting", "idle"] = "starting" if bundle else "idle"
            return StatusView(
                model=None, bundle=bundle, state=state, problem=None, hub=self._cluster.connected, jobs=0, answered=0,
                answered_per_s=0.0, workers=workers, shares=[],
            )  # fmt: skip
        return StatusView(
            model=status.model,
            bundle=bundle,
            state="serving" if status.sub_bundles else "starting",
            problem=self._cluster.problem(),
            hub=self._cluster.connected,
            jobs=status.jobs,
            answered=status.answered,
            answered_per_s=status.answered_per_s,
            workers=workers,
            shares=[ShareView(**msgspec.structs.asdict(share)) for share in status.sub_bundles],
        )

    def _workers(self, lines: Sequence[WorkerLine]) -> list[WorkerView]:
        now = time.monotonic()
        there = {line.name: line for line in lines}
        with self._lock:
            for name, line in there.items():
                self._last[name] = now - line.seen_s, line
            for name, (at, _) in [*self._last.items()]:
                if now - at > _KEPT_S:
                    del self._last[name]
            return [_view(line, now - at, online=name in there) for name, (at, line) in sorted(self._last.items())]


def _view(line: WorkerLine, seen_s: float, *, online: bool) -> WorkerView:
    known = msgspec.structs.asdict(line) | {"seen_s": round(max(0.0, seen_s), 2)}
    if not online:
        known |= {"loading": (), "loaded": (), "leases": 0, "queue": 0, "computed_per_s": 0.0}
    return WorkerView(**known | {"online": online, "loading": [*known["loading"]], "loaded": [*known["loaded"]]})
