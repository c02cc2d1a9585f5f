"""Kill workers and pull cables at random under a stream, with a coded network: each image once, right within the bound."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import ExitStack

from hyps.runtime.execution.executor import load_executor
from tests.bench.clusters import cluster_on, mosquitto
from tests.bench.codes_results import FaultRun
from tests.bench.codes_streams import coded_bundle, pictures
from tests.bench.drawn_faults import WORKERS, draw
from tests.bench.faults import Campaign, journal_states
from tests.bench.place import Place

_FAULTS = int(os.environ.get("FAULTS", "200"))
_BOARDS = (*WORKERS, "w3")
_OPTIONS = ("--tolerate", "1", "--hedge", "late")


def fault_run(place: Place) -> FaultRun:
    """Run the campaign on four workers, by links of 94 Mbit/s; faults are of three of them."""
    bundle = coded_bundle(place, 2)
    images = pictures()
    executor = load_executor(bundle)
    expected = [executor.run(picture)["scores"].tobytes() for picture in images]
    with ExitStack() as stack:
        devices, links = cluster_on(stack, place.folder, bundle, mosquitto(), _BOARDS, shaped=True)
        devices.start_hub()
        devices.start_manager("--workers", str(len(_BOARDS)), *_OPTIONS)
        for board in _BOARDS:
            devices.start_worker(board)
        devices.wait_for_sub_bundles(workers=len(_BOARDS))
        kinds = ["worker", "cable"] if links else ["worker"]
        drawn = draw(_FAULTS, 10 * _FAULTS, kinds, seed=18)
        outcome = Campaign(devices, links, drawn, place.say, tolerance=1e-5).run(10 * _FAULTS, images, expected)
        time.sleep(2)  # the last answers are acknowledged
    next_s = defaultdict(list)
    for each in outcome.recoveries:
        next_s[each.kind].append(round(each.next_s, 4))
    return FaultRun(
        network="CIFAR classifier",
        answers=outcome.answers,
        wrong=outcome.wrong,
        jobs=dict(journal_states(place.folder / "journal")),
        next_s={kind: tuple(found) for kind, found in next_s.items()},
    )
