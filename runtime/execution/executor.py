"""Run a bundle in this process: for each step open its session, run it, release it and every tensor past its last use.

The executor knows nothing of shards or of the reasons for cuts. The manifest says which tensors a step reads, which are
kept after it, and which weights stay in memory (`hyps.runtime.execution.weight_residency`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest, Step, TensorRecord
from hyps.runtime.device.available_memory import available_memory
from hyps.runtime.device.process_memory import CodePages, memory, storage_bytes_read
from hyps.runtime.errors import BudgetError, DeviceError, InputError
from hyps.runtime.execution.session import Session, SessionOpener, TensorValue, open_session, to_numpy
from hyps.runtime.execution.session_pool import SessionPool
from hyps.runtime.execution.weight_residency import WeightResidency

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """The cost of one step: seconds to load weights and session, and to run; bytes read from storage; resident bytes.

    Bytes that are read for the next step while this one runs count here.
    """

    name: str
    load_s: float
    run_s: float
    read_bytes: int
    resident_bytes: int


class _ReadyStep:
    """A step whose weights are resident and whose session is open: call it to run it."""

    def __init__(self, session: Session, step: Step) -> None:
        self._session: Session | None = session
        self._step = step

    def __call__(self, held: MutableMapping[str, TensorValue]) -> None:
        """Run the step on the tensors of one inference, and drop those that are no longer needed."""
        assert self._session
        held.update(self._session.run(self._step.outputs, {name: held[name] for name in self._step.inputs}))
        for name in held.keys() - set(self._step.live):
            del held[name]

    def release(self) -> None:
        """Drop the session."""
        self._session = None


class Executor:
    """The `hyps.runtime.execution.engine.Engine` of this process, for one bundle. Not thread-safe: one run at a time."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        *,
        threads: int | None = None,
        opener: SessionOpener = open_session,
        verify: bool = True,
    ) -> None:
        if threads is not None and not 1 <= threads <= manifest.target.threads:
            raise BudgetError(
                f"--threads {threads}: the budget was planned for 1 to {manifest.target.threads} threads",
                "compile for a target with more cores, or with 'hypsc compile --threads'",
            )
        self.manifest = manifest
        self.threads = threads or min(manifest.target.threads, os.cpu_count() or 1)
        self._sessions = SessionPool(bundle, manifest.steps, self.threads, opener)
        streamed_bytes = sum(step.streamed_bytes for step in manifest.steps)
        self._residency = WeightResidency(
            bundle,
            manifest.steps,
            manifest.budget_bytes,
            huge=manifest.huge_pages,
            steady=manifest.steady,
            verify=verify,
            keep_cached=_has_available(manifest.budget_bytes + streamed_bytes),
        )
        self._code = CodePages()
        #: Of the last inference by `run`: the seconds of each step, from its weights to its outputs.
        self.steps_s: list[float] = []
        #: Called behind each step of `run`; unlike what watches, it costs nothing.
        self.passed: Callable[[], None] = lambda: None
        self.trim()

    def trim(self) -> None:
        """Give back resident pages that are not needed between steps (see `CodePages`)."""
        self._code.release()

    def room_bytes(self) -> int:
        """What is left of the budget between two inferences, what is being read ahead counted as if it were there."""
        pending = self._residency.pending_bytes()  # first of all: it turns into resident bytes, never the reverse
        self.trim()
        return self.manifest.budget_bytes - pending - memory().resident_bytes

    def make_room(self) -> None:
        """Give back everything between two inferences that can be read again."""
        self._residency.release()
        self.trim()

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        watch: Callable[[StepProfile], None] | None = None,
        *,
        again: bool = False,
    ) -> Outputs:
        """Compute the model's outputs by name from its ``inputs`` by name; ``watch`` is told of each step.

        ``again`` says that another inference follows, so that its first weights are read beside the last step.
        Raises `InputError` for a missing or unknown input, another dtype or another shape.
        """
        check_inputs(self.manifest, inputs)
        held: dict[str, TensorValue] = dict(inputs)
        self.steps_s = []
        for index, step in enumerate(self.manifest.steps):
            started, read_before = time.perf_counter(), storage_bytes_read() if watch else 0
            with self.step(index, again=again) as run:
                opened = time.perf_counter()
                run(held)
                if watch:
                    watch(
                        StepProfile(
                            name=step.name,
                            load_s=opened - started,
                            run_s=time.perf_counter() - opened,
                            read_bytes=storage_bytes_read() - read_before,
                            resident_bytes=memory().resident_bytes,
                        )
                    )
            self.steps_s.append(time.perf_counter() - started)
            self.passed()
        return self.outputs(held)

    @contextmanager
    def step(self, index: int, *, again: bool) -> Iterator[_ReadyStep]:
        """Make one step ready to run inside the ``with`` block, on the tensors of any number of inferences.

        With ``again`` the first step follows the last. Raises `BundleError`.
        """
        step = self.manifest.steps[index]
        self._sessions.release_before(step)
        self._residency.enter(index, again=again)
        try:
            ready = _ReadyStep(self._sessions.get(index, self._residency.values(index)), step)
            if index == 0:
                self.trim()
            yield ready
            ready.release()
        finally:
            self._residency.leave(index)

    def outputs(self, held: Mapping[str, TensorValue]) -> Outputs:
        """Return the model's outputs, from the tensors ``held`` after the last step."""
        return {output.name: to_numpy(held[output.name]) for output in self.manifest.outputs}


def load_executor(
    bundle: Path,
    *,
    threads: int | None = None,
    verify: bool = True,
    adapt: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    opener: SessionOpener = open_session,
) -> Executor:
    """Open the bundle in folder ``bundle``. With ``verify`` every file's sha256 is checked before the file is used.

    Models are checked here, weights when they are first read. ``adapt`` may change the schedule. Raises `BundleError` when
    the bundle is not whole.
    """
    manifest = adapt(read_manifest(bundle))
    check_files(bundle, manifest, models=verify, weights=False)
    return Executor(bundle, manifest, threads=threads, opener=opener, verify=verify)


def _has_available(nbytes: int) -> bool:
    """Return whether this much memory is available; false where that is unknown."""
    try:
        return nbytes <= available_memory().available_bytes
    except DeviceError:
        return False


def check_inputs(manifest: Manifest, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Raise `InputError` unless ``inputs`` are exactly the model's, with its dtypes and shapes."""
    expected = ", ".join(f"{name} {describe(manifest.tensors[name])}" for name in manifest.inputs)
    for name in inputs:
        if name not in manifest.inputs:
            raise InputError(f"the model has no input {name!r}", f"it takes {expected}")
    for name in manifest.inputs:
        if name not in inputs:
            raise InputError(f"input {name!r} is missing", f"the model takes {expected}")
        check_tensor(name, manifest.tensors[name], inputs[name].dtype, inputs[name].shape)


def check_tensor(name: str, record: TensorRecord, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless ``dtype`` and ``shape`` are the record's."""
    if dtype.name != record.dtype or tuple(shape) != record.shape:
        given = describe(TensorRecord(dtype=dtype.name, shape=tuple(shape)))
        raise InputError(f"input {name!r} is {given}", f"the model takes {describe(record)}")


def describe(record: TensorRecord) -> str:
    """Return a tensor's type for a message: ``float32[1, 3, 224, 224]``."""
    return f"{record.dtype}[{', '.join(map(str, record.shape))}]"
