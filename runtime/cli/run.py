"""``hyps-run DIR INPUT ...``: inputs through a bundle, one after the other, in batches, or at a cluster."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from hyps.runtime.bundle.batch_schedule import batch_manifest, most_inputs
from hyps.runtime.cli.reporter import Reporter
from hyps.runtime.device.process_memory import memory
from hyps.runtime.errors import InputError, OutputError, RoomError
from hyps.runtime.execution.batch import Batch
from hyps.runtime.execution.executor import StepProfile, load_executor
from hyps.runtime.execution.session import open_session
from hyps.runtime.io.files import save, save_profile
from hyps.runtime.io.inputs import STDIN_LIMIT_BYTES, read_tensors, sources
from hyps.runtime.units import megabytes

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.cluster.client import ClusterEngine
    from hyps.runtime.dask.engine import DaskEngine
    from hyps.runtime.execution.engine import Engine
    from hyps.runtime.io.inputs import InputSource, Tensors
    from hyps.runtime.io.results import Result

#: Kept free of the budget when a picture is decoded.
ROOM_MARGIN_BYTES = 3_000_000


def run(options: argparse.Namespace) -> int:
    """Run every input; the exit code. Raises `RuntimeFault`."""
    batches = options.batch > 1
    options.watch = options.profile or options.profile_json is not None
    if batches and (options.repeat > 1 or options.watch or options.save):
        raise InputError("--batch goes neither with --repeat nor with --profile nor with --save; leave one out")
    opener = partial(open_session, custom_ops=options.custom_ops)

    def batched(manifest: Manifest) -> Manifest:
        options.batch = min(options.batch, most_inputs(manifest))
        return batch_manifest(manifest, options.batch)

    if options.engine or options.join:
        return _run_at_cluster(options)
    executor = (
        load_executor(options.bundle, threads=options.threads, verify=not options.no_verify, opener=opener, adapt=batched)
        if batches
        else load_executor(options.bundle, threads=options.threads, verify=not options.no_verify, opener=opener)
    )
    found = deque(sources(options.inputs, min(STDIN_LIMIT_BYTES, max(0, _room_bytes(executor)))))
    _check_save(options, len(found))
    status = 0
    with _kept(options, found) as keep, Reporter(options, keep, executor.manifest, len(found)) as telling:
        telling.opened(executor)
        executor.passed = telling.step_done
        while found:
            try:
                if batches and executor.manifest.streams_weights:
                    group = [found.popleft() for _ in range(min(options.batch, len(found)))]
                    status = max(status, _run_many(executor, Batch(executor, telling.step_done), group, telling))
                else:
                    _run_one(executor, found.popleft(), options, telling, more=bool(found))
            except InputError as error:  # the other inputs are still worth running
                status = telling.fault(error)
        peak, budget = memory().peak_bytes, executor.manifest.budget_bytes
        if peak > budget:
            told = f"the peak of {megabytes(peak)} exceeded the budget of {megabytes(budget)}"
            telling.fault(f"{told}: a bug; please report it")
    return status


def _run_at_cluster(options: argparse.Namespace) -> int:
    """Have each input computed by a manager and its workers, or by Dask."""
    if options.batch > 1 or options.watch or options.threads or options.custom_ops:
        raise InputError("--engine goes neither with --batch nor --profile nor --threads nor --custom-ops; leave them out")
    if options.verbose:
        from hyps.runtime.cluster.cli.options import log_to_stderr

        log_to_stderr("hyps-run", options)
    found = deque(sources(options.inputs))
    _check_save(options, len(found))
    with (
        _kept(options, found) as keep,
        closing(_cluster(options, len(found))) as engine,
        Reporter(options, keep, engine.manifest, len(found)) as telling,
    ):
        if len(found) > 1 and options.repeat == 1:
            return _run_many(engine, engine, found, telling)
        status = 0
        while found:
            try:
                _run_one(engine, found.popleft(), options, telling, more=bool(found))
            except InputError as error:
                status = telling.fault(error)
        return status


def _kept(options: argparse.Namespace, found: deque[InputSource]) -> AbstractContextManager[Callable[[Result], None] | None]:
    """What keeps results in the file that was named, if one was; see `hyps.runtime.io.archive.keeping`."""
    if options.output is None:
        return nullcontext()
    if options.repeat > 1 or options.watch or options.save or options.json:
        raise InputError("--output goes neither with --repeat nor --profile nor --save nor --json; leave them out")
    from hyps.runtime.io.archive import keeping

    return keeping(options.output, options.bundle, found)


def _cluster(options: argparse.Namespace, count: int) -> ClusterEngine | DaskEngine:
    if options.engine and options.engine.startswith("dask"):
        from hyps.runtime.dask.engine import DaskEngine

        if options.join:
            raise InputError("--join is for a hub; Dask takes certificates from its own configuration")
        return DaskEngine(options.bundle, options.engine, count)
    from hyps.runtime.cluster.client import ClusterEngine

    return ClusterEngine(options.bundle, options.engine, options.join)


def _check_save(options: argparse.Namespace, count: int) -> None:
    if options.save and count != 1:
        raise InputError(f"--save keeps the outputs of one input, not of {count}; run them one by one")
    if options.save and not options.save.name:
        raise OutputError(f"--save '{options.save}' names no file; give one such as outputs.npz")


def _run_one(engine: Engine, source: InputSource, options: argparse.Namespace, telling: Reporter, *, more: bool) -> None:
    name, tensors = source.name, _read(source, engine, engine.make_room)
    del source  # a picture from standard input is not needed any more
    profiles: list[StepProfile] = []
    seconds = []
    outputs: Tensors = {}

    def watch(profile: StepProfile) -> None:
        profiles.append(profile)
        telling.step(profile)

    for left in reversed(range(options.repeat)):
        profiles.clear()
        outputs = {}  # the last round's are not held while the next computes
        started = time.perf_counter()
        outputs = engine.run(tensors, watch if options.watch or options.verbose else None, again=more or left > 0)
        seconds.append(time.perf_counter() - started)
        telling.round_done()
    if options.save:
        save(options.save, outputs)
    telling.result(engine, name, outputs, _median(seconds))
    if options.profile:
        telling.profile(profiles)
    if options.profile_json:
        save_profile(options.profile_json, profiles)


def _run_many(
    engine: Engine, many: Batch | ClusterEngine | DaskEngine, group: Collection[InputSource], telling: Reporter
) -> int:
    """Run inputs together; those that cannot be read are told of and left out."""
    names, status = list[str](), 0

    def arriving() -> Iterator[Tensors]:
        nonlocal status
        for source in group:
            try:
                tensors = _read(source, engine, many.make_room)
            except InputError as error:
                status = telling.fault(error)
            else:
                names.append(source.name)
                yield tensors

    started = time.perf_counter()
    for done in many.stream(arriving()):
        if not isinstance(many, Batch):
            telling.round_done()
        if done.error:
            status = telling.fault(f"{names[done.number]}: {done.error}")
        else:
            telling.result(engine, names[done.number], done.outputs, done.compute_s)
    telling.together(len(names), time.perf_counter() - started, many.spilled_bytes)
    return status


def _read(source: InputSource, engine: Engine, make_room: Callable[[], None]) -> Tensors:
    """The tensors of an input; where they do not fit, once more after making room."""
    try:
        return read_tensors(source, engine.manifest, _room_bytes(engine))
    except RoomError:
        make_room()
        return read_tensors(source, engine.manifest, _room_bytes(engine))


def _room_bytes(engine: Engine) -> int:
    """What an input may take to read."""
    return engine.room_bytes() - ROOM_MARGIN_BYTES


def _median(seconds: list[float]) -> float:
    """Without the standard library's module, which imports 1.5 MB."""
    ordered, half = sorted(seconds), len(seconds) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
