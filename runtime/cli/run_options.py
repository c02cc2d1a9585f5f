"""Turn the command line of ``hyps-run`` into frozen options, and refuse options that contradict each other."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from hyps.runtime.errors import InputError, OutputError
from hyps.runtime.suggestions import did_you_mean

#: The engines by the schemes of their addresses, and the addresses as a message names them.
ENGINES = ("mqtt", "mqtts", "dask", "dask+tls")
ENGINE_URLS = (
    "mqtt://HOST:PORT or mqtts://HOST:PORT for a hub, dask://HOST:PORT, dask+tls://HOST:PORT or dask://local for Dask, or "
    "leave it out to compute here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The bundle, the engine that computes it, and how: ``url`` and ``join`` name other devices.

    ``is_tuned`` takes the tuned partitions of a tuned bundle. ``exact`` has a cluster decode nothing; no other engine does.
    """

    bundle: Path
    url: str | None
    join: Path | None
    threads: int | None
    custom_ops: Path | None
    verify: bool
    batch: int
    repeat: int
    profile: bool
    is_tuned: bool
    exact: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether other devices compute."""
        return bool(self.url or self.join)

    @property
    def is_dask(self) -> bool:
        """Whether Dask computes."""
        return bool(self.url and self.url.startswith("dask"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """The options of the output: ``profile`` is the table, ``profile_json``, ``save`` and ``output`` are files."""

    top: int
    json: bool
    quiet: bool
    verbose: bool
    profile: bool
    profile_json: Path | None
    save: Path | None
    output: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyOptions:
    """The options of ``--energy``: so many ``windows`` of so many ``seconds``.

    ``meter`` is a command that prints watts; ``watts`` are the device's idle and busy power, for an estimate.
    """

    meter: str | None
    watts: str | None
    windows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """A valid command line of ``hyps-run``: making one raises `InputError` or `OutputError` for contradictions."""

    inputs: tuple[str, ...]
    engine: EngineOptions
    report: ReportOptions
    energy: EnergyOptions | None = None

    def __post_init__(self) -> None:
        engine, report = self.engine, self.report
        scheme, separator, _ = (engine.url or "").partition("://")
        if engine.url is not None and (not separator or scheme.lower() not in ENGINES):
            near = did_you_mean(scheme, ENGINES) if scheme else ""
            raise InputError(f"--engine '{engine.url[:80]}' names no engine; {near}give {ENGINE_URLS}")
        writes_profile = report.profile or report.profile_json is not None
        if engine.batch > 1 and (engine.repeat > 1 or writes_profile or report.save):
            raise InputError("--batch cannot be combined with --repeat, --profile, --profile-json or --save; leave one out")
        if engine.is_remote and (engine.batch > 1 or writes_profile or engine.threads or engine.custom_ops):
            raise InputError(
                "--engine and --join cannot be combined with --batch, --profile, --profile-json, --threads or --custom-ops; "
                "leave these out"
            )
        if engine.is_remote and not engine.is_tuned:
            raise InputError("--untuned is for this device: other devices run every bundle as it was compiled; leave it out")
        if engine.is_dask and engine.join:
            raise InputError("--join is for a hub; Dask takes certificates from its own configuration")
        if report.output and (engine.repeat > 1 or writes_profile or report.save or report.json):
            raise InputError(
                "--output cannot be combined with --repeat, --profile, --profile-json, --save or --json; leave these out"
            )
        if self.energy and (engine.is_remote or engine.batch > 1 or engine.repeat > 1 or writes_profile or report.output):
            raise InputError(
                "--energy repeats one input on this device; leave out --engine, --join, --batch, --repeat, --profile, "
                "--profile-json and --output ('hyps-manager status' shows a cluster's energy)"
            )
        if report.save and not report.save.name:
            raise OutputError(f"--save '{report.save}' names no file; give one such as outputs.npz")


def run_options(namespace: argparse.Namespace) -> RunOptions:
    """Return the options that `hyps.runtime.cli.options.run_parser` parsed. Raises `InputError`, `OutputError`."""
    report = ReportOptions(
        top=namespace.top,
        json=namespace.json,
        quiet=namespace.quiet,
        verbose=namespace.verbose,
        profile=namespace.profile,
        profile_json=namespace.profile_json,
        save=namespace.save,
        output=namespace.output,
    )
    engine = EngineOptions(
        bundle=namespace.bundle,
        url=namespace.engine,
        join=namespace.join,
        threads=namespace.threads,
        custom_ops=namespace.custom_ops,
        verify=not namespace.no_verify,
        batch=namespace.batch,
        repeat=namespace.repeat,
        profile=report.profile or report.profile_json is not None or report.verbose,
        is_tuned=not namespace.untuned,
        exact=namespace.exact,
    )
    return RunOptions(inputs=tuple(namespace.inputs), engine=engine, report=report, energy=_energy_options(namespace))


def _energy_options(namespace: argparse.Namespace) -> EnergyOptions | None:
    """Return the options of ``--energy``, or None without it. Raises `InputError` for options that need it."""
    if not namespace.energy:
        if namespace.meter is not None or namespace.watts is not None:
            raise InputError("--meter and --watts are for --energy; add it")
        return None
    return EnergyOptions(
        meter=namespace.meter,
        watts=namespace.watts,
        windows=namespace.energy_windows,
        seconds=float(namespace.energy_seconds),
    )
