"""The executor: for each step open its session, run it, release it and every tensor past its last use.

It knows nothing of shards or of why the model was cut where it was; the manifest says what to run on what and what to
keep. Kaboubi, section 3.3.1.3 (Algorithm 3), for a batch of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.errors import BudgetError, InputError
from hyps.runtime.manifest import Manifest, Step, TensorRecord, check_files, read_manifest
from hyps.runtime.process import CodePages, memory, storage_bytes_read
from hyps.runtime.sessions import SessionOpener, Value, open_session, to_numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """What one step took: seconds to open its session and to run it, bytes fetched from storage, resident bytes."""

    name: str
    load_s: float
    run_s: float
    read_bytes: int
    resident_bytes: int


class Executor:
    """Runs a checked bundle. Not thread-safe: one inference at a time."""

    def __init__(
        self, bundle: Path, manifest: Manifest, *, threads: int | None = None, opener: SessionOpener = open_session
    ) -> None:
        if threads is not None and not 1 <= threads <= manifest.target.threads:
            raise BudgetError(
                f"--threads {threads}: the budget was planned for 1 to {manifest.target.threads} threads; compile for "
                "a target with more cores, or with 'hypsc compile --threads'"
            )
        self.manifest = manifest
        self._bundle = bundle
        self.threads = threads or min(manifest.target.threads, os.cpu_count() or 1)
        self._open = opener
        self._code = CodePages()
        self.trim()

    def trim(self) -> None:
        """Give back resident pages that nothing needs between steps (see `CodePages`)."""
        self._code.release()

    def run(
        self, inputs: Mapping[str, NDArray[Any]], watch: Callable[[StepProfile], None] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Compute the model's outputs by name from its ``inputs`` by name; ``watch`` is told of each step.

        Raises `InputError` for a missing or unknown input, another dtype or another shape.
        """
        check_inputs(self.manifest, inputs)
        held: dict[str, Value] = dict(inputs)
        for step in self.manifest.steps:
            self._run_step(step, held, watch)
        return {output.name: to_numpy(held[output.name]) for output in self.manifest.outputs}

    def _run_step(self, step: Step, held: dict[str, Value], watch: Callable[[StepProfile], None] | None) -> None:
        started, read_before = time.perf_counter(), storage_bytes_read() if watch else 0
        session = self._open(self._bundle / step.model.path, self.threads)
        opened = time.perf_counter()
        if step is self.manifest.steps[0]:
            self.trim()
        held |= session.run(step.outputs, {name: held[name] for name in step.inputs})
        done = time.perf_counter()
        if watch:
            watch(
                StepProfile(
                    name=step.name,
                    load_s=opened - started,
                    run_s=done - opened,
                    read_bytes=storage_bytes_read() - read_before,
                    resident_bytes=memory().resident_bytes,
                )
            )
        del session
        for name in held.keys() - set(step.live):
            del held[name]


def load(bundle: Path, *, threads: int | None = None, verify: bool = True) -> Executor:
    """Open the bundle in folder ``bundle``; with ``verify`` every file's sha256 is checked first.

    Raises `BundleError` when it is not whole.
    """
    manifest = read_manifest(bundle)
    check_files(bundle, manifest, hashes=verify)
    return Executor(bundle, manifest, threads=threads)


def check_inputs(manifest: Manifest, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raise `InputError` unless ``inputs`` are exactly the model's, with its dtypes and shapes."""
    expected = ", ".join(f"{name} {describe(manifest.tensors[name])}" for name in manifest.inputs)
    for name in inputs:
        if name not in manifest.inputs:
            raise InputError(f"the model has no input {name!r}; it takes {expected}")
    for name in manifest.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r} is missing; the model takes {expected}")
        check_tensor(name, manifest.tensors[name], inputs[name].dtype, inputs[name].shape)


def check_tensor(name: str, record: TensorRecord, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless this dtype and shape are the record's."""
    if dtype.name != record.dtype or tuple(shape) != record.shape:
        given = describe(TensorRecord(dtype=dtype.name, shape=tuple(shape)))
        raise InputError(f"input {name!r} is {given}; the model takes {describe(record)}")


def describe(record: TensorRecord) -> str:
    """A tensor's type for a message: ``float32[1, 3, 224, 224]``."""
    return f"{record.dtype}[{', '.join(map(str, record.shape))}]"
