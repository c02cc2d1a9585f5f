"""Measure every step of a bundle on this board: its seconds with weights in memory and from storage, and its memory.

Kaboubi (section 4.4.2) profiles every layer once for each hardware system. A step is measured with the options that a worker
of a cluster gives its session: placements are planned from profiles. It runs on what the steps before it computed from a
seeded random input. Steps run one after the other, each alone with its weights, so that a board can profile a network that
does not fit in its memory as a whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import MANIFEST_NAME, FileRecord, Manifest, Step
from hyps.runtime.bundle.sub_bundle import sub_bundles
from hyps.runtime.bundle.tuned_steps import untuned
from hyps.runtime.calibration.rates import thread_counts
from hyps.runtime.device.process_memory import forget_peak, memory, storage_bytes_read
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.io.random_inputs import random_inputs
from hyps.runtime.profiling.board_facts import this_board
from hyps.runtime.profiling.profile_file import ProfiledStep, StepProfileFile, ThreadTimes
from hyps.runtime.profiling.step_content import StepContent, step_contents
from hyps.runtime.profiling.step_measurement import quartiles

#: How often each step is opened and read from storage; its runs are spread over these passes, so that a disturbance of a
#: second or two does not meet all runs of one step.
_PASSES = 3
#: The share of a bundle's bytes that must have come from storage, or its times are not those of storage.
_LEAST_READ = 0.9


@dataclass(slots=True, kw_only=True)
class _Samples:
    """What was measured of one step with one number of threads: seconds, bytes read, and the largest peak."""

    run_s: list[float] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)
    stored_s: list[float] = field(default_factory=list)
    read_bytes: list[int] = field(default_factory=list)
    peak_bytes: int = 0


def planned_threads(bundle: Path) -> tuple[int, ...]:
    """Return the numbers of threads to profile by default: up to the plan's, as far as this board has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return thread_counts(min(cores, read_manifest(bundle).target.threads))


def profile_steps(
    bundle: Path,
    threads: Sequence[int],
    repeats: int,
    *,
    board_class: str | None = None,
    custom_ops: Path | None = None,
    step_done: Callable[[], None] = lambda: None,
) -> StepProfileFile:
    """Measure the steps of the bundle in a folder, each at least ``repeats`` times, with each of these thread counts.

    ``step_done`` is called `measurement_count` times. Raises `BundleError` for a damaged bundle, `BudgetError` for more
    threads than it was planned for.
    """
    manifest = untuned(read_manifest(bundle)).without_parity()
    check_files(bundle, manifest)
    contents = step_contents(bundle, manifest)
    measured = {each: _measure(bundle, each, repeats, custom_ops, step_done) for each in threads}
    board = this_board()
    return StepProfileFile(
        version=1,
        created_by="hyps-run profile",
        bundle=hashlib.sha256((bundle / MANIFEST_NAME).read_bytes()).hexdigest(),
        network=manifest.model.name[:500],
        board_class=board_class or board.board_class,
        board=board,
        steps=tuple(
            _profiled(step, contents[index], {each: samples[index] for each, samples in measured.items()})
            for index, step in enumerate(manifest.steps)
        ),
    )


def measurement_count(bundle: Path, threads: Sequence[int]) -> int:
    """Return how many times `profile_steps` calls ``step_done``."""
    return len(read_manifest(bundle).without_parity().steps) * len(threads) * _PASSES


def as_profiled(manifest: Manifest) -> Manifest:
    """Return the schedule that is measured: as on a worker, but with nothing in memory besides the step that runs."""
    (as_worker,) = sub_bundles(manifest, [range(len(manifest.steps))], manifest.budget_bytes)
    return msgspec.structs.replace(as_worker, steps=tuple(_alone(step) for step in as_worker.steps))


def _alone(step: Step) -> Step:
    session = msgspec.structs.replace(step.session, stays_open=False)
    return msgspec.structs.replace(step, pinned_bytes=0, ahead_bytes=0, session=session)


def _measure(
    bundle: Path, threads: int, repeats: int, custom_ops: Path | None, step_done: Callable[[], None]
) -> list[_Samples]:
    """Return the samples of every step with this number of threads."""
    executor = load_executor(
        bundle,
        threads=threads,
        verify=False,  # the files were checked; hashing them again would count as reading
        adapt=as_profiled,
        opener=partial(open_session, custom_ops=custom_ops) if custom_ops else None,
        is_tuned=False,
    )
    with closing(executor):
        samples = [_Samples() for _ in executor.manifest.steps]
        inputs = next(random_inputs(executor.manifest, 1))
        before = storage_bytes_read()
        for _ in range(_PASSES):
            held: dict[str, TensorValue] = dict(inputs)
            for index, each in enumerate(samples):
                _measure_step(executor, bundle, index, held, -(-repeats // _PASSES), each)
                step_done()
        read = storage_bytes_read() - before
        expected = _PASSES * sum(file.size_bytes for step in executor.manifest.steps for file in _files(step))
        if read < _LEAST_READ * expected:
            for each in samples:
                each.stored_s.clear()
        return samples


def _measure_step(
    executor: Executor, bundle: Path, index: int, held: dict[str, TensorValue], runs: int, samples: _Samples
) -> None:
    """Run a step from storage once and then ``runs`` times more; leave in ``held`` what it leaves."""
    for file in _files(executor.manifest.steps[index]):
        _drop_from_cache(bundle / file.path)
    can_forget = forget_peak()
    before, began = storage_bytes_read(), time.perf_counter()
    with executor.step(index, again=False) as ready:
        opened = time.perf_counter()
        for number in range(runs + 1):
            tensors = dict(held)
            started = time.perf_counter()
            ready.run(tensors)
            ended = time.perf_counter()
            if number == 0:
                samples.stored_s.append(ended - began)
                samples.read_bytes.append(storage_bytes_read() - before)
            else:
                samples.run_s.append(ended - started)
        samples.open_s.append(max(0.0, opened - ready.loaded_at))
        if can_forget:
            samples.peak_bytes = max(samples.peak_bytes, memory().peak_bytes)
    held.clear()
    held.update(tensors)


def _files(step: Step) -> list[FileRecord]:
    return [step.model, *step.data_files]


def _drop_from_cache(path: Path) -> None:
    """Have the kernel forget a file's pages, once they are on storage."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as stream:
            os.fdatasync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _profiled(step: Step, content: StepContent, samples: dict[int, _Samples]) -> ProfiledStep:
    times = tuple(
        ThreadTimes(
            threads=threads,
            runs=len(each.run_s),
            run_s=quartiles(each.run_s),
            open_s=quartiles(each.open_s),
            stored_s=quartiles(each.stored_s) if each.stored_s else None,
            read_bytes=sorted(each.read_bytes)[len(each.read_bytes) // 2],
            peak_bytes=each.peak_bytes,
        )
        for threads, each in samples.items()
    )
    return ProfiledStep(
        name=step.name,
        key=content.key,
        kind=content.kind,
        multiply_adds=content.multiply_adds,
        weight_bytes=content.weight_bytes,
        tensor_bytes=content.tensor_bytes,
        operators=content.operators,
        times=times,
    )
