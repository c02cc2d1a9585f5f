"""What a Dask worker does: fetches a share once, keeps it loaded as far as its memory goes, computes it for some inputs.

One inference at a time in a process, whatever threads Dask gives it: that is what its memory was planned for.
"""

from __future__ import annotations

import fcntl
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

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import STORAGE_TYPES, Manifest
from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder
from hyps.runtime.cluster.protocol.tensors import to_value
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.device.process_memory import keep_lean
from hyps.runtime.errors import InputError
from hyps.runtime.execution.batch import Batch, batch_manifest, streams
from hyps.runtime.execution.executor import Executor, Outputs, load_executor
from hyps.runtime.execution.session import TensorValue, memory_of, to_ort

#: What becomes of some inputs: of each its tensors by name, or why there are none.
Samples = Sequence[Mapping[str, NDArray[Any]] | InputError]

#: Of files that no share in use needs, so much is kept.
CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A share, and where its files are fetched; ``inputs`` are computed together at most."""

    orders: Orders
    order: SubBundleOrder
    inputs: int


class Shares:
    """The shares of one process, which computes with as many ``threads`` as it has and a bundle was planned for."""

    def __init__(self, cache: Path, threads: int) -> None:
        self._place, self._threads = cache, threads
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, Executor] = OrderedDict()

    def compute(self, ticket: Ticket, parts: Sequence[Samples]) -> Samples:
        """A share's outputs of some inputs, whose tensors come in ``parts``. Raises `RuntimeFault`."""
        with self._lock:
            executor = self._executor(ticket)
            samples = [_merged(each, executor) for each in zip(*parts, strict=True)]
            found: list[Mapping[str, NDArray[Any]] | InputError] = [
                each if isinstance(each, InputError) else {} for each in samples
            ]
            places = [number for number, each in enumerate(samples) if not isinstance(each, InputError)]
            wanted = (each for each in samples if not isinstance(each, InputError))
            for number, result in zip(places, _results(executor, wanted, batch=ticket.inputs > 1), strict=True):
                found[number] = result if isinstance(result, InputError) else _arrays(result, executor)
            return found

    def _executor(self, ticket: Ticket) -> Executor:
        """The share, loaded; of the others those that were not used for longest go where there is no room for all."""
        sha256 = ticket.order.sha256
        for other, executor in self._loaded.items():
            if other != sha256:
                executor.make_room()
        if sha256 not in self._loaded:
            folder = self._folder(ticket)
            manifest = read_manifest(folder)
            while self._loaded and _peak_bytes(manifest, *self._manifests()) > manifest.budget_bytes:
                self._loaded.popitem(last=False)
            threads = min(self._threads, manifest.target.threads)
            several = ticket.inputs > 1  # one at a time, what is pinned stays
            adapted = batch_manifest(manifest, ticket.inputs) if several else manifest
            self._loaded[sha256] = load_executor(folder, threads=threads, adapt=lambda _: adapted)
        self._loaded.move_to_end(sha256)
        return self._loaded[sha256]

    def _manifests(self) -> Iterator[Manifest]:
        return (executor.manifest for executor in self._loaded.values())

    def _folder(self, ticket: Ticket) -> Path:
        self._place.mkdir(parents=True, exist_ok=True)
        with _locked(self._place / "lock"):  # of all workers on this machine, one fetches
            cache = FileCache(self._place)
            folder = cache.fetch(ticket.orders, ticket.order)
            cache.prune({ticket.order.sha256}, CACHE_BYTES)
        return folder


def compute(ticket: Ticket, *parts: Samples) -> Samples:
    """A task: see `Shares.compute`."""
    return _here().compute(ticket, parts)


def given(samples: Samples) -> Samples:
    """A task: inputs as they are, so that they can be had again when the worker that holds them is lost."""
    return samples


_made = threading.Lock()
_shares: list[Shares] = []


def _here() -> Shares:
    with _made:
        if not _shares:
            from distributed import get_worker

            keep_lean()
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            _shares.append(Shares(Path(caches, "hyps", "dask"), get_worker().state.nthreads))
        return _shares[0]


def _results(
    executor: Executor, samples: Iterator[Mapping[str, TensorValue]], *, batch: bool
) -> Iterator[Outputs | InputError]:
    """In the order of the samples; in a ``batch``, weights that are not kept are read once for all of them."""
    if batch and streams(executor.manifest):
        for done in sorted(Batch(executor).stream(samples), key=lambda done: done.number):
            yield done.error or done.outputs
        return
    for sample in samples:
        try:
            yield executor.run(sample)
        except InputError as error:
            yield error


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


def _arrays(outputs: Outputs, executor: Executor) -> dict[str, NDArray[Any]]:
    """Arrays that can travel, of the bits where numpy does not know the type."""
    found = {}
    for name, value in outputs.items():
        record = executor.manifest.tensors[name]
        storage = STORAGE_TYPES[record.dtype].storage
        same = isinstance(value, np.ndarray) and value.dtype.name == storage
        found[name] = value if same else np.frombuffer(bytes(memory_of(to_ort(value))), storage).reshape(record.shape)
    return found


def _peak_bytes(*manifests: Manifest) -> int:
    """What a process holds with all of these loaded, whichever step runs."""
    steps = [step for manifest in manifests for step in manifest.steps]
    return sum(step.pinned_bytes for step in steps) + max(step.alone_bytes - step.pinned_bytes for step in steps)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
