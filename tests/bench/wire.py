"""Measure the workers' links: bytes against those of the tensors, and the time from one worker to the next."""

from __future__ import annotations

import itertools
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.sub_bundle import boundary
from tests.cluster_network import RATE_BITS_PER_S, Network

#: Acknowledgements of what comes are slower, tensors faster.
_BURST_BYTES_PER_S, _BURST_BYTES = 2e6, 1000
_READING_S = 0.001
#: To the hub and from it. In fact the way is from a worker to the hub, to the manager, to the hub, to the next worker.
HOPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One as the manager placed it: its worker, and the bytes of the tensors that it reads and makes."""

    home: str
    input_bytes: int
    output_bytes: int


def placed(manifest: Manifest, log: str) -> list[Share]:
    """The shares in order, as the manager's log last said."""
    index = {step.name: number for number, step in enumerate(manifest.steps)}
    found = {}
    for line in re.finditer(r"^sub-bundle (\d+) on (\w+): (.+?)(?: to (.+?))?; ", log, re.MULTILINE):
        number, home, first, last = line.groups()
        inputs, outputs = boundary(manifest, range(index[first], index[last or first] + 1))
        found[int(number)] = Share(
            home=home,
            input_bytes=sum(manifest.tensors[name].nbytes for name in inputs),
            output_bytes=sum(manifest.tensors[name].nbytes for name in outputs),
        )
    return [share for _, share in sorted(found.items())]


@dataclass(slots=True)
class Trace:
    """A board's counters whenever they had changed: seconds, bytes received, bytes sent."""

    readings: list[tuple[float, int, int]] = field(default_factory=list)

    def sends_from(self) -> float:
        """When the first tensor began to leave; infinity where only a small one did."""
        return next((start for start, _ in self._bursts(2)), math.inf)

    def received_until(self, limit: float) -> float:
        """When the last tensor that came before then had arrived."""
        return max(stop for _, stop in self._bursts(1) if stop <= limit)

    def _bursts(self, column: int) -> Iterator[tuple[float, float]]:
        for before, after in itertools.pairwise(self.readings):
            nbytes = after[column] - before[column]
            if nbytes > max(_BURST_BYTES, _BURST_BYTES_PER_S * (after[0] - before[0])):
                yield before[0], after[0]


@contextmanager
def traced(links: Network, boards: Sequence[str]) -> Iterator[Mapping[str, Trace]]:
    """Read the boards' counters a thousand times a second meanwhile."""
    traces = {board: Trace() for board in boards}
    done = threading.Event()

    def watch() -> None:
        with ExitStack() as stack:
            counters = {}
            for board in boards:
                with links.inside(board):
                    counters[board] = stack.enter_context(Path("/proc/thread-self/net/dev").open("rb", buffering=0))
            while not done.wait(_READING_S):
                for board, stream in counters.items():
                    stream.seek(0)
                    fields = stream.read().partition(b"eth0:")[2].split()
                    traces[board].readings.append((time.monotonic(), int(fields[0]), int(fields[8])))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield traces
    finally:
        done.set()
        watching.join()


def crossings(shares: Sequence[Share], traces: Mapping[str, Trace]) -> list[tuple[int, float]]:
    """Bytes and seconds of every boundary between two workers that have one share each, in one image's time."""
    found = []
    homes = [share.home for share in shares]
    for before, after in itertools.pairwise(shares):
        if homes.count(before.home) == homes.count(after.home) == 1 and before.output_bytes == after.input_bytes:
            limit = traces[after.home].sends_from()
            seconds = traces[after.home].received_until(limit) - traces[before.home].sends_from()
            found.append((before.output_bytes, seconds))
    return found


def needed_s(nbytes: int) -> float:
    """What the links need for a tensor from one worker to the next, were the hub all between them."""
    return HOPS * nbytes * 8 / RATE_BITS_PER_S
