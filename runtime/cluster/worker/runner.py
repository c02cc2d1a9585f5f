"""The seam between a worker and what computes its shares: this device alone, or workers below it (`Group`).

A worker fetches a share, which is a bundle, and asks its host for a runner of that folder; it knows no more of either.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.executor import Executor, Outputs, load_executor

#: Takes what became of a share's inputs.
Done = Callable[[Outputs | RuntimeFault], None]
#: Has something done on the worker's thread, later.
Post = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a worker advertises. ``group``: how many workers compute below it; 0 where it computes itself."""

    memory_bytes: int
    threads: int
    macs_per_s: int
    storage_bytes_per_s: int
    group: int = 0


class Runner(Protocol):
    """Computes a share that is loaded."""

    @property
    def manifest(self) -> Manifest:
        """The share."""
        ...

    @property
    def fault(self) -> str | None:
        """Why it computes no more, if so."""
        ...

    @property
    def steps_s(self) -> Sequence[float]:
        """The seconds of each step when it last computed; empty where nobody here knows."""
        ...

    def start(self, inputs: Mapping[str, Any], done: Done) -> None:
        """Compute; ``done`` is called on the worker's thread, before this returns or later."""
        ...

    def make_room(self) -> None:
        """Another share is computed next: give back what can be had again."""
        ...

    def close(self) -> None:
        """The share is not wanted any more."""
        ...


class Host(Protocol):
    """What a worker computes on."""

    def begin(self, post: Post, changed: Callable[[], None]) -> None:
        """Called first; `changed` is to be posted when `abilities` or a runner's fault are others. Raises `HubError`."""
        ...

    def abilities(self) -> Abilities | None:
        """What to advertise; None while nothing can be computed."""
        ...

    def open(self, folder: Path) -> Runner:
        """Load a share. Raises `RuntimeFault`."""
        ...

    def close(self) -> None:
        """The worker ends."""
        ...


class LocalHost:
    """This device alone, by the executor."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities

    def begin(self, post: Post, changed: Callable[[], None]) -> None:
        """Nothing here ever changes."""

    def abilities(self) -> Abilities:
        """What was measured at the start."""
        return self._abilities

    def open(self, folder: Path) -> Runner:
        """Load a share, for as many threads as its budget was planned for."""
        most = read_manifest(folder).target.threads
        return _Loaded(load_executor(folder, threads=min(self._abilities.threads, most)))

    def close(self) -> None:
        """There is nothing to end."""


class _Loaded:
    """A share in this process: computed at once, on the worker's thread."""

    fault = None

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.manifest = executor.manifest
        self.steps_s: list[float] = []

    def start(self, inputs: Mapping[str, Any], done: Done) -> None:
        ends = [time.perf_counter()]
        try:
            outputs: Outputs | RuntimeFault = self._executor.run(inputs, lambda _: ends.append(time.perf_counter()))
        except RuntimeFault as fault:
            outputs = fault
        self.steps_s = [end - start for start, end in itertools.pairwise(ends)]
        done(outputs)

    def make_room(self) -> None:
        self._executor.make_room()  # pinned weights stay

    def close(self) -> None:
        pass
