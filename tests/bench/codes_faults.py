"""Kill workers and pull cables at random under a stream, with coded VGG16: each image once, right within the bound."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from functools import partial

from hyps.runtime.execution.engine import in_memory
from tests.bench.answer_waits import waits_s
from tests.bench.clusters import cluster_on, mosquitto
from tests.bench.coded_networks import VGG16, coded_vgg16, right_scores, start_worker
from tests.bench.codes_kills import LONGEST_S
from tests.bench.codes_results import FaultRun
from tests.bench.drawn_faults import Fault, draw
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
        with closing(devices.engine()) as engine:
            assert not any(done.error for done in engine.run(in_memory(images)))  # paced workers learn the answers
        campaign = Campaign(
            devices,
            links,
            drawn,
            place.say,
            tolerance=VGG16.tolerance,
            start=_start,
            kind_of=partial(_kind, devices),
            longest_s=LONGEST_S,
        )
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
        next_s={kind: tuple(next_s[kind]) for kind in sorted(next_s)},
        calm_next_s=waits_s(
            outcome.times, [(at, at + each.all_s) for at, each in zip(outcome.marks, outcome.recoveries, strict=True)]
        ),
    )


def _kind(devices: Devices, fault: Fault) -> str:
    """Return the kind of a fault that is about to happen, and whether the cluster has not got over the last one."""
    if fault.kind == "cable" and not fault.boards[0].startswith("w"):
        return f"cable of the {fault.boards[0]}"
    return fault.kind if may_be_lost(devices.log("manager")) else f"{fault.kind}, second"


def may_be_lost(log: str) -> bool:
    """Return whether any one board may be lost, by a manager's log: it said so last, and everything is loaded."""
    said = re.findall(r"^(any 1 board may be lost|not every board may be lost|\w+ is gone.*)$", log, re.MULTILINE)
    lives = dict(re.findall(r"sub-bundle (\d+ on \w+): \w+ -> (\w+)$", log, re.MULTILINE))
    return said[-1:] == ["any 1 board may be lost"] and not {"placed", "loading"} & {*lives.values()}


def _start(devices: Devices, board: str) -> None:
    """Start a worker of VGG16's cluster."""
    start_worker(devices, board, VGG16)
