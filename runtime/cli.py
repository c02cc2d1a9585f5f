"""``hyps-run``: run a bundle on photographs or tensors; ``calibrate``, ``doctor``: measure this device, look at it."""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.errors import InputError, OutputError, RoomError, RuntimeFault
from hyps.runtime.options import calibrate_parser, doctor_parser, run_parser, say
from hyps.runtime.output import drop_stdout, save, save_profile, show
from hyps.runtime.process import memory, restart_lean

if TYPE_CHECKING:
    from hyps.runtime.batch import Batch
    from hyps.runtime.cluster.client import ClusterEngine
    from hyps.runtime.dask.engine import DaskEngine
    from hyps.runtime.engine import Engine
    from hyps.runtime.executor import StepProfile
    from hyps.runtime.inputs import Source, Tensors
    from hyps.runtime.manifest import Manifest
    from hyps.runtime.results import Result

#: Kept free of the budget when a picture is decoded.
ROOM_MARGIN_BYTES = 3_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-run``; exits with 0, with 2 after one line on stderr for what the user can mend, 130 on ctrl-C."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    commands = {"calibrate": (calibrate_parser, _calibrate), "doctor": (doctor_parser, _doctor)}
    parser, run = commands.get(given[0] if given else "", (run_parser, _run))
    options = parser().parse_args(given if run is _run else given[1:])
    restart_lean(huge_pages=run is _run and options.batch == 1 and _takes_huge_pages(options.bundle))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that nothing is left
    try:
        sys.exit(run(options))
    except RuntimeFault as error:
        sys.exit(say(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:  # extension modules turn into it whatever a signal raises while they are initialised
        if isinstance(error.__cause__, SystemExit):
            sys.exit(error.__cause__.code)
        if isinstance(error.__cause__, KeyboardInterrupt):
            sys.exit(130)
        raise
    except BrokenPipeError:  # the reader of our output went away
        drop_stdout()
        sys.exit(141)


def _takes_huge_pages(bundle: Path) -> bool:
    """What the manifest says, before what could check it is imported; at its word, it costs speed or memory at most."""
    try:
        with (bundle / "manifest.json").open("rb") as stream:
            return re.search(rb'"huge_pages"\s*:\s*true', stream.read(65_536)) is not None
    except OSError:  # said where it is read
        return False


def _calibrate(options: argparse.Namespace) -> int:
    from hyps.runtime.calibrate import calibrate

    settings = {"test_memory": options.test_memory, "as_json": options.json}
    show(calibrate(options.output, options.name, options.folder, **settings))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from hyps.runtime.doctor import doctor

    return doctor(options.folder, options.bundle, as_json=options.json)


def _run(options: argparse.Namespace) -> int:
    from hyps.runtime.batch import Batch, batch_manifest, most_inputs, streams
    from hyps.runtime.executor import load
    from hyps.runtime.inputs import STDIN_LIMIT_BYTES, sources
    from hyps.runtime.sessions import open_session

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
        load(options.bundle, threads=options.threads, verify=not options.no_verify, opener=opener, adapt=batched)
        if batches
        else load(options.bundle, threads=options.threads, verify=not options.no_verify, opener=opener)
    )
    found = deque(sources(options.inputs, min(STDIN_LIMIT_BYTES, max(0, _room_bytes(executor)))))
    _check_save(options, len(found))
    status = 0
    with _kept(options, found) as options.keep:
        while found:
            try:
                if batches and streams(executor.manifest):
                    group = [found.popleft() for _ in range(min(options.batch, len(found)))]
                    status = max(status, _run_many(executor, Batch(executor), group, options))
                else:
                    _run_one(executor, found.popleft(), options, more=bool(found))
            except InputError as error:  # the other inputs are still worth running
                status = say(error)
    peak, budget = memory().peak_bytes, executor.manifest.budget_bytes
    if peak > budget:
        say(f"the peak of {peak / 1e6:.1f} MB exceeded the budget of {budget / 1e6:.1f} MB: a bug; please report it")
    return status


def _run_at_cluster(options: argparse.Namespace) -> int:
    """Have each input computed by a manager and its workers, or by Dask."""
    from hyps.runtime.inputs import sources

    if options.batch > 1 or options.watch or options.threads or options.custom_ops:
        raise InputError("--engine goes neither with --batch nor --profile nor --threads nor --custom-ops; leave them out")
    found = deque(sources(options.inputs))
    _check_save(options, len(found))
    with _kept(options, found) as options.keep, closing(_cluster(options, len(found))) as engine:
        if len(found) > 1 and options.repeat == 1:
            return _run_many(engine, engine, found, options)
        status = 0
        while found:
            try:
                _run_one(engine, found.popleft(), options, more=bool(found))
            except InputError as error:
                status = say(error)
    return status


def _kept(options: argparse.Namespace, found: deque[Source]) -> AbstractContextManager[Callable[[Result], None] | None]:
    """What keeps results in the file that was named, if one was; see `hyps.runtime.archive.keeping`."""
    if options.output is None:
        return nullcontext()
    if options.repeat > 1 or options.watch or options.save or options.json:
        raise InputError("--output goes neither with --repeat nor --profile nor --save nor --json; leave them out")
    from hyps.runtime.archive import keeping

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


def _run_one(engine: Engine, source: Source, options: argparse.Namespace, *, more: bool) -> None:
    from hyps.runtime.results import profile_lines

    name, tensors = source.name, _read(source, engine, engine.make_room)
    del source  # a picture from standard input is not needed any more
    profiles: list[StepProfile] = []
    seconds = []
    outputs: Tensors = {}
    for left in reversed(range(options.repeat)):
        profiles.clear()
        outputs = {}  # the last round's are not held while the next computes
        started = time.perf_counter()
        outputs = engine.run(tensors, profiles.append if options.watch else None, again=more or left > 0)
        seconds.append(time.perf_counter() - started)
    if options.save:
        save(options.save, outputs)
    _report(engine, name, outputs, statistics.median(seconds), options)
    if options.profile:
        show(profile_lines(profiles), sys.stderr if options.json else sys.stdout)
    if options.profile_json:
        save_profile(options.profile_json, profiles)


def _run_many(
    engine: Engine, many: Batch | ClusterEngine | DaskEngine, group: Collection[Source], options: argparse.Namespace
) -> int:
    """Run inputs together; those that cannot be read are told of and left out."""
    names, status = list[str](), 0

    def arriving() -> Iterator[Tensors]:
        nonlocal status
        for source in group:
            try:
                tensors = _read(source, engine, many.make_room)
            except InputError as error:
                status = say(error)
            else:
                names.append(source.name)
                yield tensors

    started = time.perf_counter()
    for done in many.stream(arriving()):
        if done.error:
            status = say(f"{names[done.number]}: {done.error}")
        else:
            _report(engine, names[done.number], done.outputs, done.compute_s, options)
    seconds = time.perf_counter() - started
    if names and not options.json and not options.keep:
        spilled = f"; {count / 1e6:.1f} MB went through a temporary file" if (count := many.spilled_bytes) else ""
        show([f"batch of {len(names)}: {seconds:.3f} s, {seconds / len(names):.3f} s each{spilled}"])
    return status


def _read(source: Source, engine: Engine, make_room: Callable[[], None]) -> Tensors:
    """The tensors of an input; where they do not fit, once more after making room."""
    from hyps.runtime.inputs import read_tensors

    try:
        return read_tensors(source, engine.manifest, _room_bytes(engine))
    except RoomError:
        make_room()
        return read_tensors(source, engine.manifest, _room_bytes(engine))


def _report(engine: Engine, name: str, outputs: Tensors, latency_s: float, options: argparse.Namespace) -> None:
    import msgspec

    from hyps.runtime.results import Result, result_lines, top_classes

    result = Result(
        input=name,
        top=top_classes(engine.manifest, outputs, options.top),
        outputs={name: tuple(values.shape) for name, values in outputs.items()},
        latency_s=latency_s,
        peak_rss_bytes=memory().peak_bytes,
        budget_bytes=engine.manifest.budget_bytes,
    )
    if options.keep:
        options.keep(result)
    elif options.json:
        show([msgspec.json.encode(result).decode()])
    else:
        show(result_lines(result, outputs, options.repeat))


def _room_bytes(engine: Engine) -> int:
    """What an input may take to read."""
    return engine.room_bytes() - ROOM_MARGIN_BYTES
