"""``hyps-worker``: lend this device to a manager."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.cli.options import Parser, add_about, count
from hyps.runtime.cluster.broker.join import Join
from hyps.runtime.cluster.cli.options import add_hub, hub_at, hub_of, log_to_stderr, size
from hyps.runtime.cluster.protocol.topics import MANAGER, checked_name
from hyps.runtime.device.process_memory import HUGE_HEAP_BYTES, restart_lean
from hyps.runtime.errors import DeviceError, HubError, RuntimeFault
from hyps.runtime.signals import exit_on_signals, unwind_on_signals
from hyps.runtime.terminal.exit import run_and_exit

if TYPE_CHECKING:
    from hyps.runtime.cluster.worker.runner import Backend

_PROGRAM = "hyps-worker"
#: Of what is free: the rest is for the file cache and for what else starts.
_FREE_SHARE = 0.8
#: Read once to learn how fast the storage is.
_PROBE_BYTES = 16 << 20
_MEMORY_BYTES_PER_S = 1_000_000_000
#: Of so much memory some is spared for huge pages: VGG16 in one share then takes five sixths of the time.
_MUCH_BYTES = 256_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hyps-worker``; exits as `hyps.runtime.terminal.exit.EXIT_CODES` tells."""
    exit_on_signals()
    options = _parser().parse_args(arguments)
    restart_lean(huge_pages=_has_much(options))
    unwind_on_signals()
    log_to_stderr(_PROGRAM, options)
    run_and_exit(_PROGRAM, partial(_run, options), (RuntimeFault,))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_PROGRAM,
        description="Run partitions of a network for a manager (see 'hyps-manager --help'): on this device, or, with "
        "--sub-hub or --sub-join, on the workers at another hub, whose manager this is then.",
    )
    add_about(parser, ("paho-mqtt",))
    add_hub(parser)
    parser.add_argument(
        "--sub-hub", metavar="URL", help="the hub of the workers below: mqtt://HOST:PORT, or mqtts:// for TLS"
    )
    parser.add_argument("--sub-join", type=Path, metavar="FILE", help="that hub's manager.join, where it has passwords")
    parser.add_argument("--name", metavar="NAME", help="this board's name (default: the join file's)")
    parser.add_argument(
        "--memory", type=size, metavar="SIZE", help="what this process may hold resident (default: 80 %% of what is free)"
    )
    parser.add_argument("--threads", type=count, metavar="N", help="compute with N threads (default: the cores)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where partitions are kept (default: ~/.cache/hyps/NAME)")
    parser.add_argument(
        "--cache-size", type=size, default=4 * 10**9, metavar="SIZE", help="what it may hold besides what is in use (4GB)"
    )
    return parser


def _has_much(options: argparse.Namespace) -> bool:
    return options.memory is None or options.memory >= _MUCH_BYTES


def _run(options: argparse.Namespace) -> None:
    join = hub_of(options)
    name = options.name or join.name
    if name is None:
        raise HubError("name this board: --name NAME")
    if join.name not in (None, name):
        raise HubError(f"the join file is for '{join.name}', not for '{name}'; leave out --name")
    checked_name(name)
    from hyps.runtime.cluster.worker.worker import Worker

    cache = options.cache or Path.home() / ".cache" / "hyps" / name
    below = options.sub_hub or options.sub_join
    host = _group(options, join, cache) if below else _device(options, cache)
    Worker(join, name, host, cache, options.cache_size).run()


def _group(options: argparse.Namespace, join: Join, cache: Path) -> Backend:
    """The workers at the hub below."""
    if options.memory or options.threads:
        raise HubError("--memory and --threads are for a worker that computes itself; leave them out with --sub-hub")
    below = hub_at(options.sub_hub, options.sub_join, "--sub-")
    if below.name not in (None, MANAGER):
        raise HubError(f"the join file below is for '{below.name}'; a group needs its hub's manager.join")
    if below.address == join.address:
        raise HubError("the hub below must be another than the one above: a hub has one manager")
    from hyps.runtime.cluster.worker.group import GroupBackend

    return GroupBackend(below, cache.absolute().with_name(f"{cache.absolute().name}.journal"))


def _device(options: argparse.Namespace, cache: Path) -> Backend:
    """This device, measured."""
    from hyps.runtime.calibration.rates import conv_by_threads
    from hyps.runtime.cluster.worker.runner import Capabilities, LocalBackend
    from hyps.runtime.device.available_memory import memory_room

    cores = os.cpu_count() or 1
    memory_bytes = options.memory or int(memory_room().available_bytes * _FREE_SHARE)
    memory_bytes -= HUGE_HEAP_BYTES if _has_much(options) else 0
    threads = min(options.threads or cores, cores)
    rate = conv_by_threads((threads,), rounds=1)[threads]
    capabilities = Capabilities(
        memory_bytes=memory_bytes, threads=threads, macs_per_s=rate, storage_bytes_per_s=_storage_rate(cache)
    )
    return LocalBackend(capabilities)


def _storage_rate(cache: Path) -> int:
    """Bytes a second that weights are read at, cold."""
    from hyps.runtime.device.probes import storage

    try:
        cache.mkdir(parents=True, exist_ok=True)
        return storage(cache, _PROBE_BYTES).read_bytes_per_s
    except OSError as error:
        raise HubError(f"cannot keep partitions in {cache}: {error.strerror}; give --cache DIR") from None
    except DeviceError:  # held in memory, or full: what is there is not read from storage
        return _MEMORY_BYTES_PER_S
