"""Run inputs through a bundle: ``hyps-run DIR INPUT ...``, on whichever engine the options name."""

from __future__ import annotations

import math
import os
from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

from hyps.runtime.cli.reporter import Reporter
from hyps.runtime.errors import InputError
from hyps.runtime.io.inputs import AnySource, InputQueue, InputSource, PictureSource, sources
from hyps.runtime.terminal.console import note

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.cli.interface_choice import ChosenLibrary
    from hyps.runtime.cli.run_options import EngineOptions, RunOptions
    from hyps.runtime.execution.engine import Engine
    from hyps.runtime.exits.exit_control import ExitControl
    from hyps.runtime.io.archive import ResultArchive

#: What offloading takes of the budget: the libraries of the link to a hub or to Dask, and live tensors on their way.
OFFLOAD_BYTES: Final = 12_000_000
DASK_OFFLOAD_BYTES: Final = 45_000_000


def run_inputs(options: RunOptions, library: ChosenLibrary | None) -> int:
    """Run every input and report its result; return the exit code. Raises `RuntimeFault`.

    Pictures go through the C ``library`` of onnxruntime, if there is one; else its Python module computes.
    """
    if options.engine.is_remote and options.report.verbose:
        from hyps.runtime.terminal.logs import log_to_stderr

        log_to_stderr("hyps-run", verbose=True)
    with closing(open_engine(options.engine, library)) as engine:
        recipe = engine.manifest.preprocess
        if options.names_video or (recipe and recipe.frames and not options.names_tensors):
            from hyps.runtime.cli.video import run_video

            return run_video(options, engine)
        inputs: list[AnySource] = [
            PictureSource(source=each) if library and isinstance(each, InputSource) else each
            for each in sources(options.inputs)
        ]
        if options.report.save and len(inputs) != 1:
            raise InputError(f"--save keeps the outputs of one input, not of {len(inputs)}; run them one by one")
        if options.energy:
            return _run_for_energy(options, engine, inputs)
        status = 0
        with _open_archive(options) as archive:
            waiting = InputQueue(source for source in inputs if archive is None or source.name not in archive.done)
            with Reporter(options, engine.manifest, len(waiting), archive) as reporter:
                for result in engine.run(waiting, reporter):
                    status = max(status, reporter.report(result))
                    del result  # its outputs are given back before the next input computes
        return status


def _run_for_energy(options: RunOptions, engine: Engine, inputs: list[AnySource]) -> int:
    """Run one input for ``--energy``. Raises `RuntimeFault`."""
    from hyps.runtime.cli.energy import run_for_energy

    assert options.energy
    if len(inputs) != 1:
        raise InputError(f"--energy measures one input, not {len(inputs)}; run them one by one")
    with Reporter(options, engine.manifest, 1, None) as reporter:
        return run_for_energy(options.energy, engine, inputs[0], reporter, quiet=options.report.quiet)


def open_engine(options: EngineOptions, library: ChosenLibrary | None) -> Engine:
    """Open the engine that the options name; the local one with a C ``library``, if there is one. Raises `RuntimeFault`.

    Each engine is imported only where it is used: the local one costs the device no memory for the others.
    """
    if options.is_dask and options.url:
        from hyps.runtime.dask.engine import DaskEngine

        return DaskEngine(
            options.bundle,
            options.url,
            repeat=options.repeat,
            exit_policy=options.exits.policy,
            deadline_s=options.exits.deadline_s,
        )
    if options.is_remote:
        from hyps.runtime.cluster.client import ClusterEngine

        return ClusterEngine(
            options.bundle,
            options.url,
            options.join,
            repeat=options.repeat,
            exact=options.exact,
            exit_policy=options.exits.policy,
        )
    from hyps.runtime.execution.local_engine import LocalEngine

    interface = None
    if library:
        from hyps.runtime.execution.c_api.session import c_interface

        interface = c_interface(library.path, is_lean=library.is_lean)

    return LocalEngine.load(
        options.bundle,
        threads=options.threads,
        verify=options.verify,
        custom_ops=options.custom_ops,
        repeat=options.repeat,
        batch=options.batch,
        profile=options.profile,
        interface=interface,
        is_tuned=options.is_tuned,
        control=partial(_exit_control, options),
        spared_bytes=_offload_bytes(options.exits.offload),
    )


def _offload_bytes(address: str | None) -> int:
    if address is None:
        return 0
    from hyps.runtime.tiers import is_dask

    return DASK_OFFLOAD_BYTES if is_dask(address) else OFFLOAD_BYTES


def _exit_control(engine: EngineOptions, manifest: Manifest) -> ExitControl | None:
    """Return what decides at the exits of a bundle; None where every inference runs to the end. Raises `RuntimeFault`.

    Energy is estimated: a sensor's figures are too coarse for one inference, and a meter's too slow.
    """
    options = engine.exits
    if not options.may_end_early:
        return None
    from hyps.runtime.energy.estimate import EstimateReader, given_power, recorded_power
    from hyps.runtime.exits.exit_control import exit_control
    from hyps.runtime.tiers import open_tier

    power = recorded_power(manifest.target.power, manifest.target.name) if manifest.target.power else None
    power = given_power(options.watts, os.cpu_count() or 1) if options.watts is not None else power
    if power is None and not math.isinf(options.joules_limit):
        raise InputError(
            "--energy-limit needs the device's power: compile for a target that has it, or give --watts IDLE,BUSY"
        )
    reader = EstimateReader(power) if power else None
    return exit_control(
        manifest,
        options.policy,
        deadline_s=options.deadline_s,
        joules_limit=options.joules_limit,
        joules=reader.read if reader else lambda: 0.0,
        energy_source=reader.name if reader else "",
        tier=partial(open_tier, engine.bundle, options.offload, options.offload_wait_s, warn=note)
        if options.offload
        else None,
    )


def _open_archive(options: RunOptions) -> AbstractContextManager[ResultArchive | None]:
    """Return the archive of ``--output``, or None without one. Raises `OutputError`."""
    if options.report.output is None:
        return nullcontext()
    from hyps.runtime.io.archive import open_archive

    return closing(open_archive(options.report.output, options.engine.bundle))
