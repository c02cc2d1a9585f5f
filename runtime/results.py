"""What came out: the classes with the highest scores, their labels, and how that is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hyps.runtime.executor import StepProfile, describe
from hyps.runtime.manifest import Manifest, TensorRecord


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A class: its index, its label (None without labels) and its probability."""

    index: int
    label: str | None
    score: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One input's result, as ``--json`` prints it. ``top`` is empty where the model's first output is no class scores."""

    input: str
    top: tuple[Scored, ...]
    outputs: dict[str, tuple[int, ...]]
    latency_s: float
    peak_rss_bytes: int
    budget_bytes: int


def top_classes(manifest: Manifest, outputs: Mapping[str, NDArray[Any]], count: int) -> tuple[Scored, ...]:
    """The ``count`` classes with the highest scores in the first output, highest first; equal scores by index.

    A softmax is applied only where the network does not end in one. Empty where the output is no vector of scores, or the
    bundle says neither labels nor preprocessing nor probabilities, so that nothing tells that these are classes.
    """
    record = manifest.outputs[0]
    values = np.squeeze(np.asarray(outputs[record.name]))
    classifies = manifest.labels is not None or manifest.preprocess is not None or record.probabilities
    if not classifies or values.ndim != 1 or values.size < 2:
        return ()
    scores = values.astype(np.float64)
    if not record.probabilities:
        with np.errstate(invalid="ignore"):  # infinite scores have no probabilities: NaN
            scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    best = np.argsort(-scores, kind="stable")[:count]
    labels = manifest.labels
    return tuple(
        Scored(index=int(index), label=labels[index] if labels else None, score=float(scores[index])) for index in best
    )


def result_lines(result: Result, outputs: Mapping[str, NDArray[Any]], repeats: int) -> Iterable[str]:
    """A result for people: the classes (or the outputs' types), then one line with time, peak memory and budget."""
    yield f"{result.input}"
    for scored in result.top:
        yield f"  {scored.score:7.2%}  {scored.index:5d}  {scored.label or ''}".rstrip()
    if not result.top:
        for name, values in outputs.items():
            yield f"  {name}: {describe(TensorRecord(dtype=values.dtype.name, shape=values.shape))}"
    how = f" (median of {repeats})" if repeats > 1 else ""
    yield (
        f"  {result.latency_s:.3f} s{how}, peak memory {result.peak_rss_bytes / 1e6:.1f} MB of a budget of "
        f"{result.budget_bytes / 1e6:.1f} MB"
    )


def profile_lines(profiles: Iterable[StepProfile]) -> Iterable[str]:
    """A table with a row per step: seconds to open and to run it, MB read from storage, MB resident while it ran."""
    rows = list(profiles)
    width = max(len("step"), *(len(row.name) for row in rows))
    yield f"  {'step':{width}}  {'load ms':>9}  {'run ms':>9}  {'read MB':>9}  {'resident MB':>11}"
    for row in rows:
        yield (
            f"  {row.name:{width}}  {row.load_s * 1e3:9.1f}  {row.run_s * 1e3:9.1f}  {row.read_bytes / 1e6:9.1f}"
            f"  {row.resident_bytes / 1e6:11.1f}"
        )
