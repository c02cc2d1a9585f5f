"""Predict and measure placements on real worker processes: network namespaces, links of 94 Mbit/s, shares of a core.

First, what a prediction needs is measured: the processor's seconds of each step at full speed, and with workers of a
fifth of a core how much longer steps take in a worker, what it spends on a message, and the delay of a message. Then the
simulator predicts what five placements do with workers of small shares, and they are run. Workers' groups weigh more than
other processes: what else runs on the machine disturbs less. The network is VGG16 up to its last pooling, cut behind
poolings: its weights are loaded in seconds.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from hyps.compiler.validate import random_inputs
from hyps.models.catalogue import build
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.simulation.simulate import simulate
from hyps.runtime.execution.engine import in_memory, run_one
from tests.bench.clusters import mosquitto
from tests.bench.place import Place
from tests.bench.placed_boards import PlacedBoards, Runs
from tests.bench.placement_prediction import CHUNK_BYTES, Calibration, handled_messages, problem_of, profiled
from tests.bench.placement_progress import RealProgress
from tests.bench.placement_results import RealCase, RealRuns
from tests.bench.readings import Skipped
from tests.bench.slices import Limits, limited
from tests.cluster_network import RATE_BITS_PER_S, NoNetwork, network
from tests.repository import BIN

NETWORK, UNTIL = "vgg16", "pool5"
_WEIGHT, _PERIOD_US = 200_000, 10_000
_MEMORY = "300MB"
#: The share of a core of workers that calibrate: a fast worker wakes up for every chunk, a slow one finds several.
_SHARE = 0.2
_WARM, _CALIBRATED, _ALONE, _STREAMED = 3, 16, 5, 24
#: Shares of a core, and the poolings behind which to cut.
CASES: Mapping[str, tuple[tuple[float, ...], tuple[int, ...]]] = {
    "one worker": ((0.2,), (5,)),
    "two equal workers": ((0.2, 0.2), (3, 5)),
    "two workers 1 : 2, work to match": ((0.1, 0.2), (2, 5)),
    "two workers 1 : 2, the slow one has too much": ((0.1, 0.2), (3, 5)),
    "three equal workers": ((0.15, 0.15, 0.15), (2, 3, 5)),
}


def real_runs(place: Place, progress: RealProgress) -> RealRuns:
    """Measure what ``progress`` lacks, a case after the other; each is kept when it ends.

    Raises `Unfinished` when the time is over, `Skipped` where there are no namespaces or no control groups.
    """
    model = place.folder / f"{NETWORK}.onnx"
    build(NETWORK, model)
    bundle = place.folder / "bundle"
    options = ["--until", UNTIL, "--memory", _MEMORY, "--split", "layers", "--threads", "1", "-o", str(bundle)]
    subprocess.run([str(BIN / "hypsc"), "compile", str(model), *options], check=True, capture_output=True)
    manifest = read_manifest(bundle)
    calibration = progress.calibration
    done = {case.name for case in progress.cases}
    try:
        if calibration is None:
            place.say("real: steps")
            calibration = _calibrated(place, bundle, manifest, profiled(bundle))
            progress.calibrated(calibration)
        for name, (shares, cuts) in CASES.items():
            if name not in done:
                progress.check_time()
                place.say(f"real: {name}")
                runs = _runs(manifest, cuts)
                progress.done(_case(place, bundle, manifest, calibration, name, shares, runs))
    except (NoNetwork, OSError) as reason:
        raise Skipped(f"no namespaces or control groups here: {reason}") from reason
    return RealRuns(
        network=NETWORK,
        rate_bits_per_s=RATE_BITS_PER_S,
        slowdown=round(calibration.slowdown, 4),
        megabyte_s=round(calibration.message_s * tensor_messages(1_000_000), 5),
        delay_s=round(calibration.delay_s, 5),
        cases=progress.cases,
    )


def _runs(manifest: Manifest, poolings: Sequence[int]) -> Runs:
    """Return a run up to each of these poolings, counted from 1."""
    behind = [number for number, step in enumerate(manifest.steps, start=1) if "pool" in step.name]
    ends = [behind[number - 1] for number in poolings]
    return [(start, stop, f"w{number}") for number, (start, stop) in enumerate(itertools.pairwise([0, *ends]))]


@contextmanager
def _cluster(folder: Path, bundle: Path, runs: Runs, shares: Sequence[float]) -> Iterator[PlacedBoards]:
    """A cluster that is ready: links are shaped, workers have shares of a core, and all else has what it needs."""
    workers = [worker for _, _, worker in runs]
    folder.mkdir()
    with ExitStack() as stack:
        links = stack.enter_context(network(["hub", "manager", "client", *workers]))
        slices = {
            worker: stack.enter_context(limited(worker, Limits(share=share, period_us=_PERIOD_US, weight=_WEIGHT), folder))
            for worker, share in zip(workers, shares, strict=True)
        }
        rest = stack.enter_context(limited("rest", Limits(share=8, weight=_WEIGHT), folder))
        rest.take(os.getpid())
        boards = PlacedBoards(stack, folder, bundle, BIN, mosquitto(), links)
        boards.start_hub()
        boards.start_placed(runs, len(workers))
        for worker in workers:
            boards.start_worker(worker, memory=_MEMORY)
        boards.wait_for_sub_bundles(workers=len(workers))
        links.shape()
        for worker, own in slices.items():
            own.take(boards.processes[worker].pid)
        try:
            yield boards
        finally:
            Path("/sys/fs/cgroup/cpu/cgroup.procs").write_text(str(os.getpid()))


def _calibrated(place: Place, bundle: Path, manifest: Manifest, step_s: tuple[float, ...]) -> Calibration:
    """Run one worker, and two with an early cut; fit what their processes take for steps and for messages."""
    (image,) = random_inputs(manifest, 1)
    work, spent, delays = [], [], []
    for number, cuts in enumerate(((5,), (1, 5))):
        runs = _runs(manifest, cuts)
        place.say(f"real: calibration with {len(runs)} workers")
        with _cluster(place.folder / f"calibration-{number}", bundle, runs, [_SHARE] * len(runs)) as boards:
            with closing(boards.engine()) as engine:
                for _ in range(_WARM):
                    run_one(engine, image)
                seconds = []
                for _ in range(_CALIBRATED):
                    started = time.perf_counter()
                    run_one(engine, image)
                    seconds.append(time.perf_counter() - started)
                before = {worker: boards.cpu_s(worker) for _, _, worker in runs}
                for _ in engine.run(in_memory([image] * _CALIBRATED)):
                    pass
            for start, stop, worker in runs:
                used = (boards.cpu_s(worker) - before[worker]) / _CALIBRATED
                work.append((sum(step_s[start:stop]), handled_messages(manifest, start, stop)))
                spent.append(used)
            delays.append((runs, statistics.median(seconds)))
    (slowdown, message_s), *_ = np.linalg.lstsq(np.array(work), np.array(spent), rcond=None)
    fitted = Calibration(step_s=step_s, slowdown=float(slowdown), message_s=max(0.0, float(message_s)), delay_s=0.0)
    waits = []
    for runs, measured in delays:
        predicted = simulate(*problem_of(manifest, fitted, runs, [_SHARE] * len(runs)), inputs=1, chunk_bytes=CHUNK_BYTES)
        waits.append((measured - predicted.latency_mean_s) / (2 * len(runs)))
    return replace(fitted, delay_s=max(0.0, float(statistics.mean(waits))))


def _case(
    place: Place,
    bundle: Path,
    manifest: Manifest,
    calibration: Calibration,
    name: str,
    shares: Sequence[float],
    runs: Runs,
) -> RealCase:
    problem = problem_of(manifest, calibration, runs, shares)
    stream = simulate(*problem, seconds=1000, queue=2, chunk_bytes=CHUNK_BYTES)
    alone = simulate(*problem, inputs=1, chunk_bytes=CHUNK_BYTES)
    (image,) = random_inputs(manifest, 1)
    folder = place.folder / f"case-{len([*place.folder.glob('case-*')])}"
    seconds = []
    with _cluster(folder, bundle, runs, shares) as boards, closing(boards.engine()) as engine:
        for number in range(1 + _ALONE):
            started = time.perf_counter()
            run_one(engine, image)
            if number:
                seconds.append(round(time.perf_counter() - started, 4))
        filling = 2 * len(runs) + 2
        answered = [time.perf_counter() for _ in engine.run(in_memory([image] * (_STREAMED + filling)))]
    rate = (_STREAMED - 1) / (answered[-1] - answered[-_STREAMED])
    groups = "; ".join(
        f"{manifest.steps[start].name} to {manifest.steps[stop - 1].name} on {share:.0%} of a core"
        for (start, stop, _), share in zip(runs, shares, strict=True)
    )
    return RealCase(
        name=name,
        shares=tuple(shares),
        groups=groups,
        predicted_per_s=round(float(stream.throughput_per_s), 4),
        measured_per_s=round(rate, 4),
        predicted_s=round(float(alone.latency_mean_s), 4),
        measured_s=tuple(seconds),
    )
