"""Run a Dask worker's tasks: fetch a sub-bundle once, keep it loaded while memory allows, compute it for some inputs.

A process computes one inference at a time, whatever threads Dask gives it: its memory was planned for that.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.batch_schedule import batch_manifest
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.device.process_memory import keep_lean
from hyps.runtime.errors import InputError
from hyps.runtime.execution.batch import run_batch
from hyps.runtime.execution.engine import EngineAnswer, in_memory
from hyps.runtime.execution.executor import Executor, Outputs
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import memory_of
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.exits.exit_control import ExitControl
from hyps.runtime.exits.policies import ExitPolicy

#: For each input, its tensors by name, or the error that left it without tensors.
Samples = Sequence[Mapping[str, NDArray[Any]] | InputError]

#: The cache is pruned to this size; the files of the sub-bundle in use stay.
CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A sub-bundle, where to fetch its files, and how many ``inputs`` are computed together at most."""

    orders: Orders
    order: SubBundleOrder
    inputs: int


class SubBundleStore:
    """The sub-bundles of one process; it computes with ``threads`` threads, or fewer if a bundle was planned for fewer.

    What decides at the exits of each stays with it, so that the times of its steps are known from one task to the next.
    """

    def __init__(self, cache: Path, threads: int) -> None:
        self._cache, self._threads = cache, threads
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Executor] = OrderedDict()
        self._controls: dict[str, ExitControl] = {}

    @property
    def loaded(self) -> tuple[Manifest, ...]:
        """The manifests of the loaded sub-bundles, the most recently used last."""
        return tuple(executor.manifest for executor in self._loaded.values())

    def compute(self, ticket: Ticket, parts: Sequence[Samples]) -> Samples:
        """Return a sub-bundle's outputs for some inputs, whose tensors come in ``parts``. Raises `RuntimeFault`."""
        return [each if isinstance(each, InputError) else each[0] for each in self.answers(ticket, parts, None)]

    def answers(
        self, ticket: Ticket, parts: Sequence[Samples], policy: ExitPolicy | None, deadline_s: float = math.inf
    ) -> Sequence[EngineAnswer | InputError]:
        """Do as `compute` does, and end each inference where a ``policy`` says so, or its deadline."""
        with self._lock:
            executor = self._executor(ticket)
            control = self._control(ticket.order.sha256, executor, policy, deadline_s) if policy else None
            samples = [_merged(each, executor) for each in zip(*parts, strict=True)]
            results: list[EngineAnswer | InputError] = [
                each if isinstance(each, InputError) else ({}, None) for each in samples
            ]
            places = [number for number, each in enumerate(samples) if not isinstance(each, InputError)]
            usable = (each for each in samples if not isinstance(each, InputError))
            found = _results(executor, usable, control, batch=ticket.inputs > 1)
            for number, answer in zip(places, found, strict=True):
                results[number] = answer if isinstance(answer, InputError) else (_arrays(answer[0]), answer[1])
            return results

    def _control(self, sha256: str, executor: Executor, policy: ExitPolicy, deadline_s: float) -> ExitControl:
        """Return what decides at the exits of a loaded sub-bundle, by this policy and deadline from now on."""
        if sha256 not in self._controls:
            self._controls[sha256] = ExitControl(executor.manifest, policy)
        control = self._controls[sha256]
        control.policy, control.deadline_s = policy, deadline_s
        return control

    def _executor(self, ticket: Ticket) -> Executor:
        """Return the loaded sub-bundle; if there is no room for all, unload the least recently used others."""
        sha256 = ticket.order.sha256
        for other, executor in self._loaded.items():
            if other != sha256:
                executor.make_room()
        if sha256 not in self._loaded:
            folder = self._folder(ticket)
            manifest = read_manifest(folder)
            while self._loaded and _peak_bytes(manifest, *self.loaded) > manifest.budget_bytes:
                unloaded, _ = self._loaded.popitem(last=False)
                self._controls.pop(unloaded, None)
            threads = min(self._threads, manifest.target.threads)
            several = ticket.inputs > 1  # one at a time, pinned weights stay
            adapted = batch_manifest(manifest, ticket.inputs) if several else manifest
            self._loaded[sha256] = load_executor(
                folder, threads=threads, adapt=lambda _: adapted, is_tuned=False, is_alone=False
            )
        self._loaded.move_to_end(sha256)
        return self._loaded[sha256]

    def _folder(self, ticket: Ticket) -> Path:
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / "lock"):  # one worker of this machine fetches, the others wait
            cache = FileCache(self._cache)
            folder = cache.fetch(ticket.orders, ticket.order)
            cache.prune({ticket.order.sha256}, CACHE_BYTES)
        return folder


def compute(ticket: Ticket, *parts: Samples) -> Samples:
    """Run a task: see `SubBundleStore.compute`."""
    return _process_store().compute(ticket, parts)


def compute_to_exits(
    ticket: Ticket, policy: ExitPolicy, deadline_s: float, *parts: Samples
) -> Sequence[EngineAnswer | InputError]:
    """Run a task whose inputs end at exits: see `SubBundleStore.answers`."""
    return _process_store().answers(ticket, parts, policy, deadline_s)


def given(samples: Samples) -> Samples:
    """Run a task that returns inputs unchanged: Dask can run it again where the worker that held them is lost."""
    return samples


_store_lock = threading.Lock()
_stores: list[SubBundleStore] = []


def _process_store() -> SubBundleStore:
    """Return this process's store, made when the first task arrives."""
    with _store_lock:
        if not _stores:
            from distributed import get_worker

            keep_lean()
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            _stores.append(SubBundleStore(Path(caches, "hyps", "dask"), get_worker().state.nthreads))
        return _stores[0]


def _results(
    executor: Executor, samples: Iterator[Mapping[str, TensorValue]], control: ExitControl | None, *, batch: bool
) -> Iterator[EngineAnswer | InputError]:
    """Yield answers in the order of the samples; a ``batch`` reads weights that are not kept once for all of them."""
    if batch and executor.manifest.streams_weights:
        results = run_batch(executor, in_memory(samples), exits=control)
        for result in sorted(results, key=lambda result: result.number):
            yield result.error or (result.outputs, result.exit)
        return
    for sample in samples:
        exits = control.begin() if control else None
        try:
            outputs = executor.run(sample, exits=exits)
        except InputError as error:
            yield error
        else:
            yield outputs, exits.report if exits else None


def _merged(
    parts: Sequence[Mapping[str, NDArray[Any]] | InputError], executor: Executor
) -> dict[str, TensorValue] | InputError:
    tensors: dict[str, TensorValue] = {}
    for part in parts:
        if isinstance(part, InputError):
            return part
        for name in part.keys() & set(executor.manifest.inputs):
            tensors[name] = to_value(np.ascontiguousarray(part[name]), executor.manifest.tensors[name])
    return tensors


def _arrays(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Return arrays that can be pickled: where numpy does not know a type, arrays of its bytes."""
    return {
        name: value if isinstance(value, np.ndarray) else np.frombuffer(bytes(memory_of(value)), np.uint8)
        for name, value in outputs.items()
    }


def _peak_bytes(*manifests: Manifest) -> int:
    """Return the peak of a process with all of these loaded, whichever step runs."""
    steps = [step for manifest in manifests for step in manifest.steps]
    return sum(step.pinned_bytes for step in steps) + max(step.alone_bytes - step.pinned_bytes for step in steps)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
