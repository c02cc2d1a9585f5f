"""Run ``hyps-manager`` or ``hyps-worker`` with short waiting times and without measuring the device.

    python fast.py SETTINGS COMMAND ARGUMENT ...

``SETTINGS`` is a `Settings` as JSON. A worker assumes its rates, so that placements are the same on a busy machine.
Otherwise the process does what the installed command does; some tests run the installed commands themselves.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from hyps.runtime.cluster.manager.options import Timeouts

_MACS_PER_S, _STORAGE_BYTES_PER_S, _LINK_BYTES_PER_S = 20_000_000_000, 1_000_000_000, 1e12
_MODULES = {"hyps-manager": "manager", "hyps-worker": "worker"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The waiting times of a test's processes, in seconds.

    ``patience_s``: of a group whose workers are gone; ``reconnect_s``: the least and the most before a connection is tried
    again; ``viewer_s``: until a viewer gives up. ``room_bytes``: what managers and workers have for tensors in transit, if
    no single tensor needs more. ``places_as_measured``: workers measure their links, and managers place by profiles; else
    links are taken for fast and steps by claims, so that a busy machine changes nothing.
    ``counts_messages``: managers place by what a message costs workers; else it is taken to cost nothing.
    ``restless``: the manager moves steps for any gain, at once and again and again.
    """

    timeouts: Timeouts = field(
        default_factory=lambda: Timeouts(settle_s=0.4, silence_s=4, load_retry_s=0.4, status_expiry_s=2)
    )
    patience_s: float = 2
    keepalive_s: int = 4
    reconnect_s: tuple[float, float] = (0.2, 1)
    viewer_s: float = 5
    room_bytes: int | None = None
    places_as_measured: bool = False
    counts_messages: bool = False
    restless: bool = False

    def command(self, name: str, *arguments: Any) -> list[Any]:
        """Return the command line of ``name``, an installed command, with these settings."""
        return [sys.executable, __file__, msgspec.json.encode(asdict(self)).decode(), name, *arguments]


def main() -> None:
    """Apply the settings, then run the command."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    _replace("hyps.runtime.cluster.broker.connection", KEEPALIVE_S=settings.keepalive_s, RECONNECT_S=settings.reconnect_s)
    _replace("hyps.runtime.cluster.broker.connection", WAIT_S=settings.reconnect_s)
    if settings.room_bytes:
        _replace("hyps.runtime.cluster.scheduling.dispatch", LEASED_BYTES=settings.room_bytes)
        _replace("hyps.runtime.cluster.manager.submissions", SENDING_BYTES=settings.room_bytes)
        _replace("hyps.runtime.cluster.manager.tensor_traffic", LEASED_BYTES=settings.room_bytes)
        worker = "hyps.runtime.cluster.worker.computations"
        _replace(worker, _ARRIVING_BYTES=settings.room_bytes, _UNSENT_BYTES=settings.room_bytes)
    name, sys.argv = sys.argv[2], sys.argv[2:]
    if name == "hyps-worker":
        _replace("hyps.runtime.cluster.worker.group", PATIENCE_S=settings.patience_s)
        _replace("hyps.runtime.calibration.rates", conv_by_threads=_assumed_rates)
        _replace("hyps.runtime.device.probes", storage=_assumed_storage)
        if not settings.places_as_measured:
            _replace("hyps.runtime.cluster.worker.hub_probe.HubProbe", start=lambda *_: None)
    else:
        options = importlib.import_module("hyps.runtime.cluster.manager.options")
        _replace(options.__name__, ClusterOptions=partial(options.ClusterOptions, timeouts=settings.timeouts))
        _replace("hyps.runtime.cluster.manager.status", EXPIRY_S=settings.viewer_s)
        if settings.restless:
            _replace("hyps.runtime.cluster.manager.rebalancing", _LEAST_S=0.2, _MOST_S=0.2, _REMEMBERED_S=0.0)
            _replace("hyps.runtime.cluster.manager.rebalancing", _LEAST_OCCUPIED=0.1, _LEAST_EXPLAINED=0.1, MARGIN=0.05)
            _replace("hyps.runtime.cluster.manager.rebalancer", _EVERY_S=0.2)
            _replace("hyps.runtime.cluster.manager.monitor", _WINDOW_S=1.0, _LEAST_ANSWERS=2)
        if not settings.places_as_measured:
            keeper = "hyps.runtime.cluster.manager.profile_keeper.ProfileKeeper"
            _replace(keeper, seconds_on=lambda *_: (), answered_before=lambda *_: {})
    if name == "hyps-manager" or any(option.startswith("--sub-") for option in sys.argv):
        problem = importlib.import_module("hyps.runtime.cluster.placement.problem")
        if not settings.counts_messages and not settings.places_as_measured:
            _replace(problem.__name__, _message_s=lambda worker: 0.0)
        _replace(problem.__name__, ASSUMED_LINK=replace(problem.ASSUMED_LINK, bytes_per_s=_LINK_BYTES_PER_S, latency_s=0.0))
    importlib.import_module(f"hyps.runtime.cluster.cli.{_MODULES[name]}").main()


def _replace(owner: str, **values: Any) -> None:
    """Set names of a module, or of a class in one."""
    module, _, last = owner.rpartition(".")
    place = getattr(importlib.import_module(module), last) if last[0].isupper() else importlib.import_module(owner)
    for name, value in values.items():
        assert hasattr(place, name)
        setattr(place, name, value)


def _assumed_rates(threads: tuple[int, ...], rounds: int = 1) -> dict[int, int]:
    return dict.fromkeys(threads, _MACS_PER_S)


def _assumed_storage(*_: object) -> Any:
    from hyps.runtime.device.probes import StorageProbe

    return StorageProbe(read_bytes_per_s=_STORAGE_BYTES_PER_S, file_bytes=0)


if __name__ == "__main__":
    main()
