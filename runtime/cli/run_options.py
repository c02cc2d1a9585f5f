"""Turn the command line of ``hyps-run`` into frozen options, and refuse options that contradict each other."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from pathlib import Path

from hyps.runtime.errors import InputError, OutputError
from hyps.runtime.io.video_names import names_video
from hyps.runtime.suggestions import did_you_mean

#: The engines by the schemes of their addresses, and the addresses as a message names them.
ENGINES = ("mqtt", "mqtts", "dask", "dask+tls")
ENGINE_URLS = (
    "mqtt://HOST:PORT or mqtts://HOST:PORT for a hub, dask://HOST:PORT, dask+tls://HOST:PORT or dask://local for Dask, or "
    "leave it out to compute here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitOptions:
    """The options of early exits: a policy's name or file, and the limits of an inference, infinite without one.

    ``watts`` are the device's idle and busy power, from which its energy is estimated. ``offload`` is the address, or the
    join file, of the tier above, to which a policy in a file may have the rest go; the first input waits for the link
    ``offload_wait_s`` at most.
    """

    policy: str = "never"
    deadline_s: float = math.inf
    joules_limit: float = math.inf
    watts: str | None = None
    offload: str | None = None
    offload_wait_s: float = 0.0

    @property
    def has_limit(self) -> bool:
        """Whether an inference has a deadline or an energy limit."""
        return not math.isinf(self.deadline_s) or not math.isinf(self.joules_limit)

    @property
    def may_end_early(self) -> bool:
        """Whether an inference may end at an exit before the last."""
        return self.policy != "never" or self.has_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The bundle, the engine that computes it, and how: ``url`` and ``join`` name other devices.

    ``is_tuned`` takes the tuned partitions of a tuned bundle. ``exits`` says where inferences end. ``exact`` has a cluster
    decode nothing; no other engine does.
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
    exits: ExitOptions
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
class VideoOptions:
    """The options of a video: windows begin every ``hop`` frames, of which each ``stride``-th is taken.

    None for ``hop`` is a window's length, for ``live`` what suits the source. A window later than ``max_latency_s`` is left
    out.
    """

    stride: int = 1
    window: int | None = None
    hop: int | None = None
    live: str | None = None
    max_latency_s: float = math.inf

    @property
    def is_given(self) -> bool:
        """Whether any option is given."""
        return self != VideoOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """A valid command line of ``hyps-run``: making one raises `InputError` or `OutputError` for contradictions."""

    inputs: tuple[str, ...]
    engine: EngineOptions
    report: ReportOptions
    energy: EnergyOptions | None = None
    video: VideoOptions = field(default_factory=VideoOptions)

    @property
    def names_video(self) -> bool:
        """Whether the inputs are windows of a video."""
        return self.video.is_given or any(map(names_video, self.inputs))

    @property
    def names_tensors(self) -> bool:
        """Whether the inputs are files of tensors, by their names, or from standard input."""
        return all(each == "-" or each.endswith((".npy", ".npz")) for each in self.inputs)

    def __post_init__(self) -> None:
        engine, report = self.engine, self.report
        if not math.isinf(self.video.max_latency_s) and self.video.live != "every":
            raise InputError("--max-latency is for --live every: other windows have no backlog; add that, or leave this out")
        if self.names_video and (self.energy or report.save or report.output or engine.repeat > 1):
            raise InputError("a video cannot be combined with --energy, --save, --output or --repeat; leave these out")
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
        if engine.is_remote and not math.isinf(engine.exits.joules_limit):
            raise InputError("--energy-limit is for this device, whose power is known; leave it out, or --engine and --join")
        if engine.is_remote and not engine.is_dask and engine.exits.has_limit:
            raise InputError("--deadline is for this device and for Dask; leave it out, or --engine and --join")
        if engine.exits.offload is not None:
            if engine.is_remote:
                raise InputError("--offload is for inferences of this device; leave out --engine and --join")
            if engine.exits.policy == "never" or engine.exits.policy.startswith("threshold:"):
                raise InputError("--offload needs a policy that offloads: give --exit-policy FILE.json or FILE.onnx")
        elif engine.exits.offload_wait_s:
            raise InputError("--offload-wait is for --offload; add it, or leave this out")
        if engine.batch > 1 and engine.exits.has_limit:
            raise InputError(
                "--deadline and --energy-limit are of one inference, and --batch runs many at once; leave one out"
            )
        if self.energy and engine.exits.may_end_early:
            raise InputError("--energy measures one way through the bundle; leave out --exit-policy and its limits")
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
        exits=ExitOptions(
            policy=namespace.exit_policy,
            deadline_s=namespace.deadline,
            joules_limit=namespace.energy_limit,
            watts=None if namespace.energy else namespace.watts,
            offload=namespace.offload,
            offload_wait_s=namespace.offload_wait,
        ),
    )
    video = VideoOptions(
        stride=namespace.stride,
        window=namespace.window,
        hop=namespace.hop,
        live=namespace.live,
        max_latency_s=namespace.max_latency,
    )
    return RunOptions(
        inputs=tuple(namespace.inputs), engine=engine, report=report, energy=_energy_options(namespace), video=video
    )


def _energy_options(namespace: argparse.Namespace) -> EnergyOptions | None:
    """Return the options of ``--energy``, or None without it. Raises `InputError` for options that need it."""
    if not namespace.energy:
        exits = namespace.exit_policy != "never" or not math.isinf(namespace.energy_limit)
        if namespace.meter is not None or (namespace.watts is not None and not exits):
            raise InputError("--meter is for --energy, and --watts for that, --energy-limit or --exit-policy; add one")
        return None
    return EnergyOptions(
        meter=namespace.meter,
        watts=namespace.watts,
        windows=namespace.energy_windows,
        seconds=float(namespace.energy_seconds),
    )
