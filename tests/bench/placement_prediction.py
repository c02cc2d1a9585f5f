"""Predict what real workers do: the processor's seconds of each step, and the problem that a simulation needs."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hyps.compiler.validate import random_inputs
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from hyps.runtime.cluster.planning.message_cost import tensor_messages
from hyps.runtime.cluster.planning.problem import (
    HUB,
    Board,
    Fleet,
    NetworkLink,
    PipelineStage,
    PlacedStep,
    SharedLink,
    Workload,
)
from hyps.runtime.device.process_memory import LEAN_ENVIRONMENT
from hyps.runtime.execution.loading import load_executor
from tests.bench.placed_boards import Runs
from tests.cluster_network import RATE_BITS_PER_S

#: What of the rate is payload: Ethernet, IP and TCP headers and acknowledgements take the rest (docs/cluster.md).
_PAYLOAD = 1 / 1.068
#: Of tensors of a megabyte, which go in sixteen chunks.
CHUNK_BYTES = 1 << 16
_WARM, _PROFILED = 3, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The processor's seconds of each step, and of a message that is sent or received (`message_cost`); a message's delay.

    A step takes ``slowdown`` times as long in a worker, which does other things and loses its caches to others.
    """

    step_s: tuple[float, ...]
    slowdown: float
    message_s: float
    delay_s: float


def profiled(bundle: Path) -> tuple[float, ...]:
    """Return the processor's seconds of each step, in a process like a worker's: medians of warm runs."""
    command = [sys.executable, "-m", "tests.bench.placement_prediction", "--profile", str(bundle)]
    done = subprocess.run(command, env={**os.environ, **LEAN_ENVIRONMENT}, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def _mark(marks: list[float], _step: object) -> None:
    marks.append(time.process_time())


def _profile(bundle: Path) -> list[float]:
    executor = load_executor(bundle, threads=1)
    (sample,) = random_inputs(executor.manifest, 1)
    rounds = []
    for _ in range(_WARM + _PROFILED):
        marks = [time.process_time()]
        executor.run(sample, partial(_mark, marks), again=True)
        rounds.append(np.diff(marks))
    return [float(each) for each in np.median(rounds[_WARM:], axis=0)]


def handled_messages(manifest: Manifest, start: int, stop: int) -> float:
    """Return what the tensors that cross into and out of some steps cost, as a number of messages."""
    crossing = boundary(manifest, range(start, stop))
    return sum(tensor_messages(manifest.tensors[name].nbytes) for names in crossing for name in names)


def problem_of(
    manifest: Manifest, calibration: Calibration, runs: Runs, shares: Sequence[float]
) -> tuple[Workload, Fleet, tuple[PipelineStage, ...]]:
    """Return what the simulator needs; every worker is of its own class, as it has a share of its own.

    Tensors go from a worker to the hub, to the manager, to the hub, and to the next worker: twice over the hub's cable.
    """
    steps = tuple(
        PlacedStep(
            name=step.name,
            seconds={
                worker: calibration.slowdown * seconds / share for (_, _, worker), share in zip(runs, shares, strict=True)
            },
            weight_bytes=step.weight_bytes,
            working_bytes=0,
            inputs=tuple(step.inputs),
            outputs=tuple(step.outputs),
        )
        for step, seconds in zip(manifest.steps, calibration.step_s, strict=True)
    )
    workload = Workload(
        steps=steps,
        tensor_bytes={name: record.nbytes for name, record in manifest.tensors.items()},
        inputs=tuple(manifest.inputs),
        outputs=tuple(output.name for output in manifest.outputs),
    )
    boards = tuple(
        Board(
            name=worker,
            board_class=worker,
            memory_bytes=10**9,
            storage_bytes_per_s=1e8,
            idle_watts=0.0,
            busy_watts=0.0,
            message_s=calibration.message_s / share,
        )
        for (_, _, worker), share in zip(runs, shares, strict=True)
    )
    rate = RATE_BITS_PER_S / 8 * _PAYLOAD
    cable = SharedLink(name="hub", boards=frozenset(board.name for board in boards), bytes_per_s=rate / 2)
    links = {}
    for _, _, worker in runs:
        links[worker, HUB] = links[HUB, worker] = NetworkLink(bytes_per_s=rate, latency_s=calibration.delay_s)
    stages = tuple(PipelineStage(steps=range(start, stop), boards=(worker,)) for start, stop, worker in runs)
    return workload, Fleet(boards=boards, links=links, shared_links=(cable,)), stages


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", type=Path, required=True)
    print(json.dumps(_profile(parser.parse_args().profile)))
