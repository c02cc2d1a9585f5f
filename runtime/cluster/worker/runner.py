"""Define the backend that computes for a worker, and implement it for this device.

A worker fetches a sub-bundle into a folder and asks its backend for a runner of it. The backend is this device
(`LocalBackend`), or the workers at another hub (`hyps.runtime.cluster.worker.group.GroupBackend`); the worker does not know
which.
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
from hyps.runtime.cluster.protocol.messages import BoardEnergy
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.executor import Executor, Outputs
from hyps.runtime.execution.loading import load_executor

#: Takes a sub-bundle's outputs, or the fault that prevented them.
ResultHandler = Callable[[Outputs | RuntimeFault], None]
#: Schedules a call of a function on the worker's thread. Thread-safe.
CallSoon = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The capacity that a worker advertises. ``group``: how many workers compute below it; 0 if it computes itself."""

    memory_bytes: int
    threads: int
    macs_per_s: int
    storage_bytes_per_s: int
    group: int = 0


class SubBundleRunner(Protocol):
    """A loaded sub-bundle that can be computed."""

    @property
    def manifest(self) -> Manifest:
        """The sub-bundle's manifest."""
        ...

    @property
    def fault(self) -> str | None:
        """The reason why it computes no more, or None."""
        ...

    @property
    def steps_s(self) -> Sequence[float]:
        """The seconds of each step in the last computation; empty if they are not known here."""
        ...

    def start(self, inputs: Mapping[str, Any], on_result: ResultHandler) -> None:
        """Start to compute; ``on_result`` is called on the worker's thread, before this returns or later."""
        ...

    def make_room(self) -> None:
        """Release memory that can be refilled, as another sub-bundle is computed next."""
        ...

    def close(self) -> None:
        """Unload the sub-bundle."""
        ...


class Backend(Protocol):
    """The device or the group of workers that computes for one worker."""

    def begin(self, call_soon: CallSoon, changed: Callable[[], None]) -> None:
        """Start the backend; called before anything else. Raises `HubError`.

        The backend calls ``call_soon(changed)`` when `capabilities` or a runner's fault have changed.
        """
        ...

    def capabilities(self) -> Capabilities | None:
        """Return what to advertise, or None while nothing can be computed."""
        ...

    def energies(self) -> Mapping[str, BoardEnergy]:
        """Return the energy of the boards of a group, by name, as far as it is known."""
        ...

    def open(self, folder: Path) -> SubBundleRunner:
        """Load a sub-bundle. Raises `RuntimeFault`."""
        ...

    def close(self) -> None:
        """End the backend."""
        ...


class LocalBackend:
    """This device, which computes with the executor."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities

    def begin(self, call_soon: CallSoon, changed: Callable[[], None]) -> None:
        """Do nothing: this device never changes."""

    def capabilities(self) -> Capabilities:
        """Return what was measured at the start."""
        return self._capabilities

    def energies(self) -> Mapping[str, BoardEnergy]:
        """Return nothing: there are no boards below."""
        return {}

    def open(self, folder: Path) -> SubBundleRunner:
        """Load a sub-bundle, with no more threads than its budget was planned for."""
        planned = read_manifest(folder).target.threads
        return _LocalRunner(load_executor(folder, threads=min(self._capabilities.threads, planned), is_alone=False))

    def close(self) -> None:
        """Do nothing."""


class _LocalRunner:
    """A sub-bundle in this process, computed at once on the worker's thread."""

    fault = None

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.manifest = executor.manifest
        self.steps_s: list[float] = []

    def start(self, inputs: Mapping[str, Any], on_result: ResultHandler) -> None:
        ends = [time.perf_counter()]
        try:
            outputs: Outputs | RuntimeFault = self._executor.run(inputs, lambda _: ends.append(time.perf_counter()))
        except RuntimeFault as fault:
            outputs = fault
        self.steps_s = [end - start for start, end in itertools.pairwise(ends)]
        on_result(outputs)

    def make_room(self) -> None:
        self._executor.make_room()  # pinned weights stay

    def close(self) -> None:
        pass
