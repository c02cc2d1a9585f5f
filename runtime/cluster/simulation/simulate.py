"""Simulate a placement event by event: boards with queues, links, replicas, shards, and boards that change their speed.

The rules are those of the thesis's systems (Hadidi, sections 4.4.3 and 4.6) and of our own cluster:

- a board serves one input at a time, always the oldest that is complete;
- each board has a queue. A sender begins an input only if there is a place for it in the queues of those that read its
  result, so that a full queue blocks it. Only the oldest input of all passes without a place, so that nothing can block for
  ever;
- a board sends one message after another and receives one after another. It begins an input when of the results before at
  most one is unsent. The hub sends on what has come in whole, or chunk by chunk with ``chunk_bytes``, as our cluster does;
- an input goes to the replica with the fewest inputs; shards all get it, and the next stage waits for the slowest;
- a service adds up unpacking the input's messages, reading the weights that do not stay in memory, computing and packing
  the result. An idle board unpacks an input while it arrives, and a result leaves while it is packed;
- outputs leave in the order of their inputs.

The memory does not grow with the number of inputs. The same arguments give the same result. It uses `heapq` and not
a library such as simpy, which would need a generator for each message and would be one more dependency on every board.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from hyps.runtime.cluster.planning.problem import Fleet, PipelineStage, Workload
from hyps.runtime.cluster.simulation.engine import Simulation
from hyps.runtime.cluster.simulation.options import SimulationLimits, SpeedChange
from hyps.runtime.cluster.simulation.result import SimulationResult
from hyps.runtime.cluster.simulation.stations import station_network

#: Inputs that wait at a board, as in the thesis's systems (figure 4.29).
QUEUE_PLACES = 10


def simulate(
    workload: Workload,
    fleet: Fleet,
    stages: Sequence[PipelineStage],
    *,
    seconds: float | None = None,
    inputs: int | None = None,
    queue: int = QUEUE_PLACES,
    arrivals: float | Literal["saturated"] = "saturated",
    jitter: float = 0.0,
    seed: int = 0,
    events: Iterable[SpeedChange] = (),
    chunk_bytes: int | None = None,
) -> SimulationResult:
    """Run a placement for some simulated ``seconds``, or until some ``inputs`` have come out.

    ``arrivals`` are inputs a second, or "saturated": an input enters as soon as there is a place for it. Its latency counts
    from then, or from its arrival. With ``jitter``, each service takes up to that share more or less, drawn by ``seed``.
    Raises what `hyps.runtime.cluster.planning.evaluation.evaluate` raises, for the same reasons.
    """
    if (seconds is None) == (inputs is None):
        raise ValueError("say seconds or inputs")
    network = station_network(workload, fleet, stages)
    rate = None if arrivals == "saturated" else arrivals
    limits = SimulationLimits(seconds=seconds, inputs=inputs, queue=queue, rate=rate, jitter=jitter, chunk_bytes=chunk_bytes)
    simulation = Simulation(workload, fleet, network, limits, random.Random(seed))  # noqa: S311
    for change in events:
        simulation.plan(change)
    for _ in simulation.outputs():
        pass
    return simulation.result()
