"""Turn outputs into a result: the classes with the highest scores and their labels, as lines or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest, TensorRecord
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import describe
from hyps.runtime.execution.session import dtype_name
from hyps.runtime.execution.step_profile import StepProfile
from hyps.runtime.terminal.console import plain
from hyps.runtime.units import megabytes

#: The most numbers of an output that are shown.
FEW = 8


class ClassScore(msgspec.Struct, frozen=True, kw_only=True):
    """A class: its index, its label (None without labels) and its probability."""

    index: int
    label: str | None
    score: float


class ResultRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one input as ``--json`` prints it; ``top`` is empty where no output is a vector of classes.

    ``values`` has those of the outputs of strings, and of at most `FEW` numbers: a label, or what a regression predicts.
    """

    input: str
    top: tuple[ClassScore, ...]
    outputs: dict[str, tuple[int, ...]]
    latency_s: float
    peak_rss_bytes: int
    budget_bytes: int
    values: dict[str, list[Any]] = {}


def top_classes(manifest: Manifest, outputs: Mapping[str, NDArray[Any]], count: int) -> tuple[ClassScore, ...]:
    """Return the ``count`` classes with the highest scores, highest first; equal scores by index.

    The scores are in the output that names its classes, else in the first one.

    A softmax is applied only where the network does not end in one. The result is empty where the output is not a vector of
    scores. It is empty, too, where the bundle has neither labels nor preprocessing nor probabilities: nothing then shows
    that the scores are of classes. Raises `InputError` where a score is not a number.
    """
    record = next((output for output in manifest.outputs if output.classes), manifest.outputs[0])
    values = np.squeeze(np.asarray(outputs[record.name]))
    classifies = manifest.labels is not None or manifest.preprocess is not None or record.probabilities
    if not classifies or values.ndim != 1 or values.size < 2 or values.dtype.kind not in "biuf":
        return ()
    scores = values.astype(np.float64)
    if not record.probabilities:
        with np.errstate(invalid="ignore"):  # infinite scores have no probabilities: NaN
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
    if not np.isfinite(scores).all():
        raise InputError(
            f"the scores in output {record.name!r} are not all numbers (NaN or infinite)",
            "check the input's values, and the model with 'hypsc validate'",
        )
    best = np.argsort(-scores, kind="stable")[:count]
    labels = record.classes or manifest.labels
    return tuple(
        ClassScore(index=int(index), label=labels[index] if labels else None, score=float(scores[index])) for index in best
    )


def result_lines(
    result: ResultRecord, outputs: Mapping[str, NDArray[Any]], repeats: int, *, quiet: bool = False
) -> Iterable[str]:
    """Yield a result as text: the classes (or the outputs' types), then, unless ``quiet``, time, peak memory and budget."""
    yield plain(result.input)
    for scored in result.top:
        yield f"  {scored.score:7.2%}  {scored.index:5d}  {plain(scored.label or '')}".rstrip()
    if not result.top:
        for name, values in outputs.items():
            kind = describe(TensorRecord(dtype=dtype_name(values.dtype), shape=values.shape))
            yield f"  {plain(name)}: {kind}{_shown(result.values.get(name))}"
    if quiet:
        return
    median = f" (median of {repeats})" if repeats > 1 else ""
    peak, budget = megabytes(result.peak_rss_bytes), megabytes(result.budget_bytes)
    yield f"  {result.latency_s:.3f} s{median}, peak memory {peak} of a budget of {budget}"


def few_values(outputs: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Return the values of the outputs of strings, and of those of at most `FEW` numbers, as nested lists by name."""
    few = {name: np.asarray(values) for name, values in outputs.items() if values.dtype.kind in "biufU"}
    return {name: values.tolist() for name, values in few.items() if values.dtype.kind == "U" or 0 < values.size <= FEW}


def _shown(values: list[Any] | None) -> str:
    """Return values for a line of text, if there are few."""
    flat = np.asarray(values).ravel() if values is not None else ()
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
