"""Run ``hyps-worker``, which lends this device to a manager."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.cluster.broker.join import Join, resolve_join
from hyps.runtime.cluster.cli.options import add_hub, hub_of
from hyps.runtime.cluster.protocol.topics import MANAGER, checked_name
from hyps.runtime.device.process_memory import HUGE_HEAP_BYTES, restart_lean
from hyps.runtime.errors import DeviceError, HubError, RuntimeFault
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.console import plain, show
from hyps.runtime.terminal.exit import run_and_exit
from hyps.runtime.terminal.logs import log_to_stderr
from hyps.runtime.terminal.parser import Parser, add_about, add_power, count, size

if TYPE_CHECKING:
    from hyps.runtime.cluster.worker.runner import Backend
    from hyps.runtime.energy.board import BoardMeter

_PROGRAM = "hyps-worker"
#: The share of the free memory to use by default: the rest is for the file cache and for other programs.
_FREE_SHARE = 0.8
#: The bytes that are read once to measure the storage.
_PROBE_BYTES = 16 << 20
_MEMORY_BYTES_PER_S = 1_000_000_000
#: With this much memory some is set aside for huge pages: VGG16 in one sub-bundle then takes five sixths of the time.
_HUGE_PAGES_BYTES = 256_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-worker`` and exit with a code of `hyps.runtime.terminal.exit.EXIT_CODES`."""
    exit_on_signals()
    options = worker_parser().parse_args(arguments)
    restart_lean(huge_pages=_affords_huge_pages(options))
    unwind_on_signals()
    log_to_stderr(_PROGRAM, verbose=options.verbose, quiet=options.quiet)
    run_and_exit(_PROGRAM, partial(_run, options), (RuntimeFault,))


def worker_parser() -> Parser:
    """Return the parser of ``hyps-worker``."""
    parser = Parser(
        prog=_PROGRAM,
        description="Run partitions of a network for a manager (see 'hyps-manager --help') on this device. With --sub-hub "
        "or --sub-join, act as the manager of the workers at another hub, and run partitions on those.",
        examples=(
            "hyps-worker --join board.join",
            "hyps-worker --hub mqtt://192.168.1.2:1883 --name board1 --memory 700MB",
        ),
    )
    add_about(parser, ("paho-mqtt",))
    add_hub(parser)
    parser.add_argument(
        "--sub-hub", metavar="URL", help="the hub of the workers below this one: mqtt://HOST:PORT, or mqtts:// for TLS"
    )
    parser.add_argument("--sub-join", type=Path, metavar="FILE", help="the manager.join of that hub, if it has passwords")
    parser.add_argument("--name", metavar="NAME", help="this device's name (default: the join file's)")
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="memory that this process may use (default: 80 %% of the free memory)",
    )
    parser.add_argument("--threads", type=count, metavar="N", help="compute with N threads (default: one for each core)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the folder that keeps partitions (default: ~/.cache/hyps/NAME)"
    )
    parser.add_argument(
        "--cache-size",
        type=size,
        default=4 * 10**9,
        metavar="SIZE",
        help="the most bytes of unused partitions it keeps (default: 4GB)",
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="send what 'hyps-run profile' measured on this board to the manager"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="send what 'hyps-run calibrate --hub' measured on this board, and do not measure the link again",
    )
    add_power(parser)
    return parser


def _affords_huge_pages(options: argparse.Namespace) -> bool:
    return options.memory is None or options.memory >= _HUGE_PAGES_BYTES


def _run(options: argparse.Namespace) -> None:
    join = hub_of(options)
    name = options.name or join.name
    if name is None:
        raise HubError("name this device: --name NAME")
    if join.name not in (None, name):
        raise HubError(f"the join file is for '{join.name}', not for '{name}'; leave out --name")
    checked_name(name)
    from hyps.runtime.cluster.worker.worker import Worker

    cache = options.cache or Path.home() / ".cache" / "hyps" / name
    below = options.sub_hub or options.sub_join
    from hyps.runtime.cluster.worker.introduction import Introduction, introduce_board

    host = _group(options, join, cache) if below else _device(options, cache)
    introduction = Introduction() if below else introduce_board(options.profile, options.calibration)
    with closing(_meter(options)) as energy:
        say = _ignore if options.quiet else _say
        Worker(join, name, host, cache, options.cache_size, introduction=introduction, say=say, energy=energy).run()


def _meter(options: argparse.Namespace) -> BoardMeter:
    """Return the meter of this board. Raises `EnergyError`."""
    from hyps.runtime.energy.board import board_meter
    from hyps.runtime.energy.estimate import given_power

    power = given_power(options.watts, os.cpu_count() or 1) if options.watts is not None else None
    return board_meter(options.meter, power)


def _say(line: str) -> None:
    """Print what happens, as long as somebody reads it."""
    with suppress(OSError, RuntimeFault):
        show([plain(line)])


def _ignore(line: str) -> None:
    """Print nothing."""


def _group(options: argparse.Namespace, join: Join, cache: Path) -> Backend:
    """Return the workers at the hub below. Raises `HubError`."""
    if options.memory or options.threads or options.profile or options.calibration:
        raise HubError(
            "--memory, --threads, --profile and --calibration are for a worker that computes on this device; leave them out "
            "with --sub-hub"
        )
    below = resolve_join(options.sub_hub, options.sub_join, "--sub-hub", "--sub-join")
    if below.name not in (None, MANAGER):
        raise HubError(f"the join file below is for '{below.name}'; a group needs its hub's manager.join")
    if below.address == join.address:
        raise HubError("--sub-hub must name another hub than --hub: a hub has one manager")
    from hyps.runtime.cluster.worker.group import GroupBackend

    return GroupBackend(below, cache.absolute().with_name(f"{cache.absolute().name}.journal"))


def _device(options: argparse.Namespace, cache: Path) -> Backend:
    """Measure this device, and return it."""
    from hyps.runtime.calibration.rates import conv_by_threads
    from hyps.runtime.cluster.worker.runner import Capabilities, LocalBackend
    from hyps.runtime.device.available_memory import available_memory

    cores = os.cpu_count() or 1
    memory_bytes = options.memory or int(available_memory().available_bytes * _FREE_SHARE)
    memory_bytes -= HUGE_HEAP_BYTES if _affords_huge_pages(options) else 0
    threads = min(options.threads or cores, cores)
    rate = conv_by_threads((threads,), rounds=1)[threads]
    capabilities = Capabilities(
        memory_bytes=memory_bytes, threads=threads, macs_per_s=rate, storage_bytes_per_s=_storage_rate(cache)
    )
    return LocalBackend(capabilities)


def _storage_rate(cache: Path) -> int:
    """Return the bytes a second at which uncached weights are read. Raises `HubError`."""
    from hyps.runtime.device.probes import storage

    try:
        cache.mkdir(parents=True, exist_ok=True)
        return storage(cache, _PROBE_BYTES).read_bytes_per_s
    except OSError as error:
        raise HubError(f"cannot keep partitions in {cache}: {error.strerror}; give --cache DIR") from None
    except DeviceError:  # the folder lies in memory, or is full: weights are not read from storage
        return _MEMORY_BYTES_PER_S
