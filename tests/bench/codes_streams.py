"""Measure coded groups on links with heavy-tailed delays."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from hyps.runtime.execution.engine import in_memory
from tests.bench.clusters import mosquitto
from tests.bench.coded_networks import CIFAR, coded_classifier
from tests.bench.codes_results import DelayRun
from tests.bench.delayed_links import delayed_links
from tests.bench.place import Place
from tests.repository import BIN
from tests.runtime.cluster.devices import Devices
from tests.runtime.cluster.fast import Settings

INFERENCES = int(os.environ.get("INFERENCES", "100"))
SHARDS = (2, 4, 8)
#: What a manager of each row is started with.
MODES = {
    "without codes": ("--exact",),
    "codes, late": ("--hedge", "late"),
    "codes, always": ("--hedge", "always"),
}


def delay_runs(place: Place) -> tuple[DelayRun, ...]:
    """Infer one input at a time by delayed links, for each number of shards and each mode."""
    made = []
    for shards in SHARDS:
        for name, options in MODES.items():
            place.say(f"{shards} shards, {name}")
            with ExitStack() as stack:
                made.append(_delayed(stack, place, name, shards, options))
    return tuple(made)


def _delayed(stack: ExitStack, place: Place, name: str, shards: int, options: Sequence[str]) -> DelayRun:
    folder = place.folder / f"delayed-{name.replace(' ', '-')}-{shards}"
    folder.mkdir()
    devices = Devices(stack, folder, coded_classifier(place, shards), BIN, mosquitto(), Settings(keepalive_s=60))
    devices.start_hub()
    workers = [f"w{number}" for number in range(shards + 1)]
    links = stack.enter_context(delayed_links(devices.port, workers, b"conv4_1/"))
    devices.start_manager("--workers", str(len(workers)), *options)
    hub = devices.url
    for worker in workers:
        devices.url = f"mqtt://127.0.0.1:{links[worker].port}"
        devices.start_worker(worker)
    devices.url = hub
    devices.wait_for_sub_bundles()
    time.sleep(1)
    for link in links.values():
        link.delays = True
    images = CIFAR.pictures(64)
    decoded = 0
    seconds = []
    with closing(devices.engine()) as engine:
        for number in range(INFERENCES + 15):  # the first ones teach the manager what is late
            (done,) = engine.run(in_memory([images[number % len(images)]]))
            assert not done.error, done.error
            if number >= 15:
                seconds.append(round(done.compute_s, 5))
                decoded += bool(done.decoded)
    return DelayRun(name=name, shards=shards, seconds=tuple(seconds), decoded=decoded)
