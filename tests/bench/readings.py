"""Define what ``make bench`` keeps in ``docs/benchmarks.json``: every reading of every part, as it was taken.

Each part says when, at which commit and on what machine it was measured, so that parts of different states can stand side by
side and be told apart. Nothing here is a statistic: those are the renderers' (`tests.bench.tables`, `tests.bench.drawing`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from hyps.runtime.io.files import replacing

Result = TypeVar("Result")
#: What one benchmark's file holds.
Kept = TypeVar("Kept")
#: A list of plain values or an object of such stands on one line of the file.
_FLAT = re.compile(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])")


class Skipped(Exception):
    """A part cannot run here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was measured on; ``storage`` is where the benchmark's files lay."""

    processor: str
    architecture: str
    cores: int
    memory_bytes: int
    storage: str
    kernel: str
    python: str
    onnxruntime: str
    numpy: str
    hyps: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[Result]):
    """One part of the benchmark: its result, or why there is none; ``when`` in UTC, ``seconds`` it took.

    ``load_average`` is the machine's over the minute before: what else ran.
    """

    when: str
    commit: str
    machine: Machine
    load_average: float
    seconds: float
    result: Result | None = None
    skipped: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One opening or one run: seconds; bytes that storage gave, and that read calls asked for; VmHWM afterwards."""

    seconds: float
    storage_bytes: int
    asked_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process told: how it opened its model, and its runs in order."""

    opened: Reading
    runs: tuple[Reading, ...]

    @property
    def peak_bytes(self) -> int:
        """The most that was resident."""
        return max(reading.peak_bytes for reading in (self.opened, *self.runs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """The moment of the most resident memory of a process that was looked at every millisecond."""

    anonymous_bytes: int
    file_bytes: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """One contender: processes of its own with cold files, and the one of the race, whose runs took turns with others'."""

    label: str
    mode: str
    budget_bytes: int | None
    resident: Resident
    cold: tuple[Process, ...]
    race: Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """A network, whole and in bundles; ``model_bytes`` are those of its files."""

    network: str
    threads: int
    model_bytes: int
    contenders: tuple[Raced, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One contender of a `Comparison`: processes that opened and ran once, and the one whose runs took turns with others'.

    The label of a bundle is its tier.
    """

    label: str
    budget_bytes: int | None
    starts: tuple[Process, ...]
    race: Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A network in bundles of several budgets, and in stock onnxruntime; ``model_bytes`` are those of its files."""

    network: str
    threads: int
    model_bytes: int
    contenders: tuple[Compared, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A contender on slow storage."""

    label: str
    process: Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What was allowed (bytes read a second; bytes of memory, cached files included), and what came of it."""

    read_bytes_per_s: int
    memory_bytes: int
    rows: tuple[Slow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch by ``hyps-run`` on slow storage: seconds of the process, of computing each image, bytes in all."""

    label: str
    read_bytes_per_s: int
    memory_bytes: int
    seconds: float
    compute_s: tuple[float, ...]
    read_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A network under a budget: bytes predicted and measured (VmHWM)."""

    network: str
    budget_bytes: int
    partitions: int
    predicted_bytes: int
    measured_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Seconds of compiling a small network, of ``cp``, of compiling, one after the other."""

    startup_s: float
    cp_s: float
    compile_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A model compiled and copied in turn, with a pause before each; the compiler's peak."""

    model: str
    model_bytes: int
    pause_s: int
    turns: tuple[Turn, ...]
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One plan: seconds by the clock, and those that the processor worked for it."""

    network: str
    operators: int
    partitions: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Synthetic networks of growing size, and reference networks under the smallest budget of each."""

    synthetic: tuple[Timed, ...]
    tightest: tuple[Timed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A library, and the resident memory after its import, which follows those before it."""

    name: str
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything; a part that was never measured is None."""

    latency: Part[tuple[Race, ...]] | None = None
    networks: Part[tuple[Comparison, ...]] | None = None
    storage: Part[Storage] | None = None
    batch: Part[Batch] | None = None
    prediction: Part[tuple[Predicted, ...]] | None = None
    compilation: Part[tuple[Compiled, ...]] | None = None
    planning: Part[Deployment] | None = None
    dependencies: Part[tuple[Imported, ...]] | None = None
    version: int = field(default=1)


def load(path: Path, kind: type[Kept]) -> Kept:
    """Return what the file holds, nothing if there is none; `msgspec.DecodeError` if it is something else."""
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else kind()


def dump(results: object) -> str:
    """The file's text: a reading a line."""
    text = json.dumps(msgspec.to_builtins(results), indent=1, ensure_ascii=False)
    return _FLAT.sub(lambda found: found[1] + re.sub(r"\n\s+", " ", found[2]) + found[3], text) + "\n"


def save(results: object, path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(dump(results), "utf-8")
