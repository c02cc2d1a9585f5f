"""Drive benchmark workers: each in its own process; alone with cold files, looked at while it works, and in turn."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyps.models.writer import data_path
from tests.bench.readings import Process, Raced, Reading, Resident
from tests.bench.throttled import forget, remember

#: Processes of each contender whose files are cold, and the runs of each.
COLD_PROCESSES, COLD_RUNS = 3, 2
_LOOK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What to run: a label, the worker's mode, its model or bundle, and a bundle's budget."""

    label: str
    mode: str
    path: Path
    budget_bytes: int | None = None

    def arguments(self, values: Path, threads: int) -> list[str]:
        """Of `tests.bench.worker`."""
        return [self.mode, str(self.path), str(values), str(threads)]

    def files(self) -> list[Path]:
        """What it reads its network from."""
        return [path for path in (self.path, data_path(self.path)) if path.exists()]


class Worker:
    """A process that has opened its model, or is about to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def opened(self) -> Reading:
        """Wait until the model is open; to be asked once."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender died: {self.process.args!r}")
        return msgspec.json.decode(line, type=Reading)

    def run(self) -> Reading:
        """One run."""
        assert self.process.stdin
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self.opened()


@contextmanager
def worker(arguments: Sequence[str], before: Sequence[str] = ()) -> Iterator[Worker]:
    """A worker with these arguments, started through the command ``before``; it has ended when this has."""
    command = [*before, sys.executable, "-m", "tests.bench.worker", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Worker(process)
        finally:
            assert process.stdin
            process.stdin.close()


def served(arguments: Sequence[str], runs: int, before: Sequence[str] = ()) -> Process:
    """A process that opens its model, runs so often and ends."""
    with worker(arguments, before) as each:
        return Process(opened=each.opened(), runs=tuple(each.run() for _ in range(runs)))


def race(
    contenders: Sequence[Contender], values: Path, *, threads: int, rounds: int, cold: int, say: Callable[[str], None]
) -> tuple[Raced, ...]:
    """Each contender alone, looked at once and ``cold`` times from cold files; then ``rounds`` rounds in turn.

    In turn, so that a slow moment of the machine meets each of them; alone, because a file that another process has mapped
    cannot be forgotten.
    """
    orders = [contender.arguments(values, threads) for contender in contenders]
    residents, colds = [], []
    for contender, order in zip(contenders, orders, strict=True):
        say(f"{contender.label}, threads {threads}: alone")
        residents.append(_resident(order))
        alone = []
        for _ in range(cold):
            forget(*contender.files())
            alone.append(served(order, COLD_RUNS))
        colds.append(tuple(alone))
    with ExitStack() as stack:
        workers, readings = [], []
        for contender, order in zip(contenders, orders, strict=True):
            remember(*contender.files())
            workers.append(stack.enter_context(worker(order)))
            readings.append([workers[-1].opened(), workers[-1].run()])
        for done in range(1, rounds):
            say(f"threads {threads}: round {done + 1} of {rounds}")
            for told, each in zip(readings, workers, strict=True):
                told.append(each.run())
    return tuple(
        Raced(
            label=contender.label,
            mode=contender.mode,
            budget_bytes=contender.budget_bytes,
            resident=resident,
            cold=alone,
            race=Process(opened=opened, runs=tuple(runs)),
        )
        for contender, resident, alone, (opened, *runs) in zip(contenders, residents, colds, readings, strict=True)
    )


def _resident(order: Sequence[str]) -> Resident:
    """The moment of the most resident memory in opening and two runs."""
    most, samples, done = (0, 0), 0, threading.Event()

    def look(status: Path) -> None:
        nonlocal most, samples
        while not done.wait(_LOOK_S):
            most = max(most, _sample(status), key=sum)
            samples += 1

    with worker(order) as each:
        looking = threading.Thread(target=look, args=(Path(f"/proc/{each.process.pid}/status"),))
        looking.start()
        try:
            each.opened()
            for _ in range(COLD_RUNS):
                each.run()
        finally:
            done.set()
            looking.join()
    return Resident(anonymous_bytes=most[0], file_bytes=most[1], samples=samples)


def _sample(status: Path) -> tuple[int, int]:
    """(anonymous, file-backed) resident bytes of a process (proc(5))."""
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    anonymous, file, shared = (int(fields.get(f"Rss{kind}", "0").split()[0]) * 1024 for kind in ("Anon", "File", "Shmem"))
    return anonymous, file + shared
