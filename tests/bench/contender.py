"""Drive benchmark workers: start each in its own process, run them in turn, keep what they say."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What to run: a label, the worker's mode, and its model or bundle."""

    label: str
    mode: str
    path: Path


@dataclass(slots=True, kw_only=True)
class Measured:
    """What one contender said, a reading a run; the first run is apart, because it meets cold caches."""

    contender: Contender
    load_s: float = 0.0
    run_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    anonymous_bytes: int = 0
    file_bytes: int = 0

    @property
    def first_s(self) -> float:
        """Seconds of the first run."""
        return self.run_s[0]

    @property
    def warm_s(self) -> float:
        """Median seconds of the later runs."""
        return statistics.median(self.run_s[1:])


def race(contenders: list[Contender], values: Path, *, threads: int, rounds: int) -> list[Measured]:
    """Run all contenders in turn for ``rounds`` rounds, so that a slow moment of the machine meets each of them."""
    with ExitStack() as stack:
        workers = [(Measured(contender=c), stack.enter_context(_worker(c, values, threads))) for c in contenders]
        for _ in range(rounds):
            for measured, worker in workers:
                _run(measured, worker)
        return [measured for measured, _ in workers]


def ratio(measured: Measured, base: Measured) -> float:
    """The median, over the rounds, of this contender's time over the base's in the same round."""
    return statistics.median(a / b for a, b in zip(measured.run_s[1:], base.run_s[1:], strict=True))


@contextmanager
def _worker(contender: Contender, values: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.bench.worker", contender.mode, str(contender.path), str(values), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        try:
            yield worker
        finally:
            assert worker.stdin is not None
            worker.stdin.close()


def _run(measured: Measured, worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("run\n")
    worker.stdin.flush()
    said = json.loads(worker.stdout.readline())
    measured.load_s = said["load_s"]
    measured.run_s.append(said["run_s"])
    if said["anonymous_bytes"] + said["file_bytes"] > measured.anonymous_bytes + measured.file_bytes:
        measured.anonymous_bytes, measured.file_bytes = said["anonymous_bytes"], said["file_bytes"]
    measured.peak_bytes = said["peak_bytes"]
