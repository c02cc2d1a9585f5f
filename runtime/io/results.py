"""Turn outputs into a result: the classes with the highest scores and their labels, as lines or as JSON."""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.element_types import STRING_TYPE
from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.errors import InputError
from hyps.runtime.execution.input_checks import describe
from hyps.runtime.execution.step_profile import StepProfile
from hyps.runtime.execution.tensor import NUMBER_FORMATS, TensorValue, dtype_of, numbers_of, shape_of
from hyps.runtime.exits.report import ExitReport, exit_line
from hyps.runtime.terminal.console import plain
from hyps.runtime.units import megabytes

#: The most numbers of an output that are shown.
FEW = 8


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """A class: its index, its label (None without labels) and its probability."""

    index: int
    label: str | None
    score: float


class WindowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The window of a video that an input is: its frames, from 0, and their times from the video's start.

    ``age_s``: the time from the arrival of its last frame to its answer.
    """

    first_frame: int
    last_frame: int
    begin_s: float
    end_s: float
    age_s: float


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one input as ``--json`` prints it; ``top`` is empty where no output is a vector of classes.

    ``values`` has those of the outputs of strings, and of at most `FEW` numbers: a label, or what a regression predicts.
    ``energy`` has the fields of an `hyps.runtime.energy.report.EnergyRecord`. ``decoded`` names the operators that have
    values which were decoded from others: right within ``error_bound`` times the operator's largest value, 0 is exact.
    ``exit`` is where the inference ended, if a policy decides at exits. ``window`` says which frames of a video it is of.
    """

    input: str
    top: tuple[ClassScore, ...]
    outputs: dict[str, tuple[int, ...]]
    latency_s: float
    peak_rss_bytes: int
    budget_bytes: int
    values: dict[str, list[Any]] = {}
    energy: dict[str, Any] = {}
    decoded: tuple[str, ...] = ()
    exit: ExitReport | None = None
    window: WindowRecord | None = None
    error_bound: float | msgspec.UnsetType = msgspec.UNSET


def top_classes(manifest: Manifest, outputs: Mapping[str, TensorValue], count: int) -> tuple[ClassScore, ...]:
    """Return the ``count`` classes with the highest scores, highest first; equal scores by index.

    The scores are in the output that names its classes, else in the first one. Of the outputs of exits, those of the last
    one that was reached are taken.

    A softmax is applied only where the network does not end in one. The result is empty where the output is not a vector of
    scores. It is empty, too, where the bundle has neither labels nor preprocessing nor probabilities nor exits: nothing
    then shows that the scores are of classes. Raises `InputError` where a score is not a number.
    """
    record = next((output for output in manifest.outputs if output.classes), manifest.outputs[0])
    if reached := [each.output for each in manifest.exits if each.output in outputs]:
        record = next(output for output in manifest.outputs if output.name == reached[-1])
    value = outputs[record.name]
    classifies = manifest.labels is not None or manifest.preprocess is not None or record.probabilities or reached
    is_vector = sum(extent != 1 for extent in shape_of(value)) == 1 and math.prod(shape_of(value)) > 1
    if not classifies or not is_vector or dtype_of(value) not in NUMBER_FORMATS:
        return ()
    scores = array("d", numbers_of(value))
    if not record.probabilities:
        scores = _softmax(scores)
    if not all(map(math.isfinite, scores)):
        raise InputError(
            f"the scores in output {record.name!r} are not all numbers (NaN or infinite)",
            "check the input's values, and the model with 'hypsc validate'",
        )
    best = heapq.nsmallest(count, range(len(scores)), key=lambda index: (-scores[index], index))
    labels = record.classes or manifest.labels
    return tuple(ClassScore(index=index, label=labels[index] if labels else None, score=scores[index]) for index in best)


def _softmax(scores: array[float]) -> array[float]:
    """Return the probabilities; they are not numbers where a score is infinite. `math.fsum` rounds the sum once."""
    highest = max(scores)
    exponentials = array("d", (math.exp(score - highest) for score in scores))
    total = math.fsum(exponentials)
    return array("d", (each / total for each in exponentials))


def result_lines(
    result: ResultRecord, outputs: Mapping[str, TensorValue], repeats: int, *, quiet: bool = False
) -> Iterable[str]:
    """Yield a result as text: the classes (or the outputs' types), then, unless ``quiet``, time, peak memory and budget."""
    window = result.window
    yield plain(result.input) + (f" ({window.begin_s:.2f} to {window.end_s:.2f} s)" if window else "")
    for scored in result.top:
        yield f"  {scored.score:7.2%}  {scored.index:5d}  {plain(scored.label or '')}".rstrip()
    if not result.top:
        for name, values in outputs.items():
            kind = describe(TensorRecord(dtype=dtype_of(values), shape=shape_of(values)))
            yield f"  {plain(name)}: {kind}{_shown(result.values.get(name))}"
    if result.decoded:
        verb = "was" if len(result.decoded) == 1 else "were"
        exact = f"right within {result.error_bound:.1e}, not bit for bit" if result.error_bound else "exactly, bit for bit"
        yield f"  {plain(', '.join(result.decoded))} {verb} decoded: {exact}"
    if result.exit:
        yield f"  {plain(exit_line(result.exit))}"
    if quiet:
        return
    median = f" (median of {repeats})" if repeats > 1 else ""
    peak, budget = megabytes(result.peak_rss_bytes), megabytes(result.budget_bytes)
    yield f"  {result.latency_s:.3f} s{median}, peak memory {peak} of a budget of {budget}"


def few_values(outputs: Mapping[str, TensorValue]) -> dict[str, list[Any]]:
    """Return the values of the outputs of strings, and of those of at most `FEW` numbers, as nested lists by name."""
    return {name: found for name, value in outputs.items() if (found := _few(value)) is not None}


def _few(value: TensorValue) -> Any:
    if dtype_of(value) == STRING_TYPE:
        return value.tolist()
    is_short = dtype_of(value) in NUMBER_FORMATS and 0 < math.prod(shape_of(value)) <= FEW
    return _nested(numbers_of(value), shape_of(value)) if is_short else None


def _nested(numbers: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Return numbers in C order as lists within lists; one number for a tensor without dimensions."""
    if not shape:
        return numbers[0]
    length = len(numbers) // shape[0]
    return [_nested(numbers[start : start + length], shape[1:]) for start in range(0, len(numbers), length)]


def _flat(values: Any) -> Iterator[Any]:
    if not isinstance(values, list):
        yield values
        return
    for value in values:
        yield from _flat(value)


def _shown(values: list[Any] | None) -> str:
    """Return values for a line of text, if there are few."""
    flat = list(_flat(values)) if values is not None else []
    return f" {', '.join(plain(str(value)) for value in flat)}" if 0 < len(flat) <= FEW else ""


def profile_lines(profiles: Iterable[StepProfile], stream: TextIO | None = None) -> Iterable[str]:
    """Return a table with a row per step: its time in milliseconds, page faults, bytes read and resident (`StepProfile`).

    The last row has the sums, and of memory the maximum.
    """
    from hyps.runtime.terminal.tables import Column, table

    spare = {"copy", "close", "hash", "major"}
    headings = ("wait", "open", "run", "copy", "close", "hash", "faults", "major", "read", "resident")
    columns = (Column("step, ms"), *(Column(heading, numeric=True, spare=heading in spare) for heading in headings))
    steps = [
        (row.name, _times(row), (row.minor_faults, row.major_faults, row.read_bytes), row.resident_bytes) for row in profiles
    ]
    _, times, counts, resident = zip(*steps, strict=True)
    total = ("all", tuple(map(sum, zip(*times, strict=True))), tuple(map(sum, zip(*counts, strict=True))), max(resident))
    rows = [
        [
            name,
            *(f"{seconds * 1e3:,.1f}" for seconds in times),
            f"{minor:,}",
            f"{major:,}",
            megabytes(read_bytes),
            megabytes(resident_bytes),
        ]
        for name, times, (minor, major, read_bytes), resident_bytes in [*steps, total]
    ]
    return table(columns, rows, stream)


def _times(row: StepProfile) -> tuple[float, ...]:
    return row.wait_s, row.open_s, row.run_s, row.copy_s, row.close_s, row.hash_s
