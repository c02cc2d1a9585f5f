"""The table's rows: what runs on which board, what must come of it, and how an outcome is judged."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from tests.arm.board import SAVED, Job, Outcome, boot
from tests.arm.networks import IMAGES, Disk, Network, Values, deviation
from tests.arm.parts import Parts

#: Over the largest output: another processor adds in another order. Measured: 5e-6 on VGG16.
TOLERANCE = 1e-4
ALLOW_OVERCOMMIT = {"/proc/sys/vm/overcommit_memory": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A board, what it runs on how many images, and how that must end.

    ``mode`` is ``bundle`` (within ``budget_mb``), or how the whole model is run: ``inside``, ``mapped`` or ``lean`` (see
    whole.py; all but the first have their weights in a file of their own).
    """

    memory_mib: int
    mode: Literal["inside", "mapped", "lean", "bundle"]
    budget_mb: int = 0
    images: int = 1
    overcommit: bool = False
    expected: Literal["runs", "killed", "fails"] = "runs"

    @property
    def key(self) -> str:
        """A short name, to ask for this row alone."""
        words = [str(self.memory_mib), self.mode, *(["overcommit"] if self.overcommit else [])]
        return "-".join([*words, *([f"{self.images}-images"] if self.images > 1 else [])])

    @property
    def settings(self) -> Mapping[str, str]:
        """Kernel settings by path."""
        return ALLOW_OVERCOMMIT if self.overcommit else {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the table says of a row; ``wrong`` lists what should have come out otherwise."""

    key: str
    result: str
    date: str
    predicted_bytes: int | None = None
    peak_bytes: int = 0
    anonymous_bytes: int = 0
    file_bytes: int = 0
    major_faults: int = 0
    available_bytes: int = 0
    read_bytes: int = 0
    run_read_bytes: int | None = None
    seconds: float = 0.0
    run_s: float | None = None
    deviation: float | None = None
    wrong: list[str] = []


def prepare(row: Row, network: Network) -> Disk:
    """The disk that the row's board needs."""
    return network.bundle(row.budget_mb) if row.mode == "bundle" else network.whole(external_data=row.mode != "inside")


def execute(row: Row, network: Network, parts: Parts) -> Outcome:
    """Boot the row's board and run."""
    job = Job(
        memory_mib=row.memory_mib,
        disk=prepare(row, network).image,
        command=_command(row),
        settings=row.settings,
        timeout_s=900.0 + 600.0 * row.images,
    )
    return boot(parts, job)


def judge(row: Row, outcome: Outcome, predicted_bytes: int | None, expected: Mapping[str, Values]) -> Record:
    """Return an outcome's row, compared with the predicted peak and the outputs ``expected`` for each image."""
    run_s, run_read_bytes = _run_costs(row, outcome)
    worst = _deviation(row, outcome, expected) if outcome.exit == 0 else None
    return Record(
        key=row.key,
        result=_result(outcome),
        date=now(),
        predicted_bytes=predicted_bytes,
        peak_bytes=outcome.peak_bytes,
        anonymous_bytes=outcome.anonymous_bytes,
        file_bytes=outcome.file_bytes,
        major_faults=outcome.major_faults,
        available_bytes=outcome.available_bytes,
        read_bytes=outcome.read_bytes,
        run_read_bytes=run_read_bytes,
        seconds=outcome.seconds,
        run_s=run_s,
        deviation=worst,
        wrong=_complaints(row, outcome, predicted_bytes, worst),
    )


def now() -> str:
    """The time, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _command(row: Row) -> tuple[str, ...]:
    if row.mode != "bundle":
        inputs = (f"/data/images/{name}.npy" for name in IMAGES[: row.images])
        return ("python3", "/opt/board/whole.py", row.mode, "/data/model.onnx", SAVED, *inputs)
    if row.images > 1:
        return ("hyps-run", "/data/bundle", "/data/images", "--batch", str(row.images), "--json")
    return ("hyps-run", "/data/bundle", f"/data/images/{IMAGES[0]}.npy", "--json", "--profile", "--save", SAVED)


def _result(outcome: Outcome) -> str:
    if outcome.killed_for_memory:
        return "killed for memory"
    if outcome.exit == 0:
        return "ran"
    if "bad_alloc" in outcome.stderr:
        return "std::bad_alloc"
    return f"failed: {outcome.stderr.strip().splitlines()[-1] if outcome.stderr.strip() else f'exit {outcome.exit}'}"[:100]


def _run_costs(row: Row, outcome: Outcome) -> tuple[float | None, int | None]:
    """Seconds and bytes read of the inference alone, after the files were opened and checked."""
    if outcome.exit != 0:
        return None, None
    said = [json.loads(line) for line in outcome.stdout.splitlines()]
    if row.mode != "bundle":
        return said[0]["run_s"], said[0]["run_read_bytes"]
    seconds = sum(line["latency_s"] for line in said)  # of a batch: computing alone
    told = (line for line in outcome.stderr.splitlines()[1:] if not line.startswith("hyps-run:"))
    steps = [line.split() for line in told if line]  # --profile's table: the last but one column is what was read, in MB
    return seconds, round(sum(float(words[-4].replace(",", "")) for words in steps) * 1e6) if steps else None


def _deviation(row: Row, outcome: Outcome, expected: Mapping[str, Values]) -> float:
    """The largest deviation from the whole model on x86; of a batch, of the five best scores, which is what it prints."""
    names = IMAGES[: row.images]
    if row.mode == "bundle" and row.images > 1:
        said = {Path(line["input"]).stem: line["top"] for line in map(json.loads, outcome.stdout.splitlines())}
        if said.keys() != set(names):
            return math.inf
        pairs = [(best, expected[name].ravel()) for name in names for best in said[name]]
        return float(np.max([abs(best["score"] - values[best["index"]]) / values.max() for best, values in pairs]))
    with np.load(io.BytesIO(outcome.saved)) as saved:
        found = [saved[name] for name in saved.files]
    return float(np.max([deviation(values, expected[name]) for values, name in zip(found, names, strict=True)]))


def _complaints(row: Row, outcome: Outcome, predicted_bytes: int | None, worst: float | None) -> list[str]:
    """What came out otherwise than it must."""
    came = "killed" if outcome.killed_for_memory else "runs" if outcome.exit == 0 else "fails"
    wrong = [] if came == row.expected else [f"expected: {row.expected}; came: {came} ({outcome.stderr[-500:]})"]
    if worst is not None and not worst <= TOLERANCE:
        wrong.append(f"deviates by {worst:.1e} of the largest output, more than {TOLERANCE:.0e}")
    if predicted_bytes is not None and not outcome.peak_bytes <= predicted_bytes <= row.budget_mb * 1_000_000:
        wrong.append(f"peak {outcome.peak_bytes}, predicted {predicted_bytes}, budget {row.budget_mb} MB: not ascending")
    return wrong
