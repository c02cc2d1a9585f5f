"""Kill workers and pull cables at random under a stream, with coded VGG16: each image once, right within the bound."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import ExitStack

from tests.bench.clusters import cluster_on, mosquitto
from tests.bench.coded_networks import VGG16, coded_vgg16, right_scores
from tests.bench.codes_results import FaultRun
from tests.bench.drawn_faults import draw
from tests.bench.faults import Campaign, journal_states
from tests.bench.place import Place
from tests.runtime.cluster.devices import Devices

#: Faults, and inputs for each of them.
_FAULTS, _INPUTS, _PICTURES = int(os.environ.get("FAULTS", "200")), 5, 16
_OPTIONS = ("--tolerate", "1", "--hedge", "late")


def fault_run(place: Place) -> FaultRun:
    """Run the campaign on six workers, by links of 94 Mbit/s; faults are of three of them."""
    bundle = coded_vgg16(place)
    images = VGG16.pictures(_PICTURES)
    expected = [scores.tobytes() for scores in right_scores(bundle, images)]
    folder = place.folder / "faults"
    folder.mkdir()
    boards = [f"w{number}" for number in range(VGG16.workers)]
    with ExitStack() as stack:
        devices, links = cluster_on(stack, folder, bundle, mosquitto(), boards, shaped=True)
        devices.start_hub()
        devices.start_manager("--workers", str(len(boards)), *_OPTIONS)
        for board in boards:
            _start(devices, board)
        devices.wait_for_sub_bundles(workers=len(boards))
        kinds = ["worker", "cable"] if links else ["worker"]
        drawn = draw(_FAULTS, _INPUTS * _FAULTS, kinds, seed=18)
        campaign = Campaign(devices, links, drawn, place.say, tolerance=VGG16.tolerance, start=_start)
        outcome = campaign.run(_INPUTS * _FAULTS, images, expected)
        time.sleep(2)  # the last answers are acknowledged
    next_s = defaultdict(list)
    for each in outcome.recoveries:
        next_s[each.kind].append(round(each.next_s, 4))
    return FaultRun(
        network=VGG16.name,
        answers=outcome.answers,
        wrong=outcome.wrong,
        jobs=dict(journal_states(folder / "journal")),
        next_s={kind: tuple(found) for kind, found in next_s.items()},
    )


def _start(devices: Devices, board: str) -> None:
    """Start a worker of VGG16's cluster."""
    devices.start_worker(board, *VGG16.options, memory=VGG16.memory)
