"""Check a tuned partition: run it and the one it came from on the same values, and compare results and times.

onnxruntime's layouts are its own matter and may change with a version. Numbers that are wrong without an error would be the
worst that tuning could do, so every tuned partition proves itself before it is kept. Results wait on storage: the budget has
room for one of the two partitions at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.session import memory_of, open_session, to_numpy
from hyps.runtime.execution.tensor import TensorValue

#: The most that a tuned partition's results may differ, relative to the largest: sums are added up in another order.
LARGEST_DEVIATION = 1e-4
_BLOCK = 1 << 16
#: The first run of a session takes longer than the others.
_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A tuned partition next to the one it came from.

    ``deviation`` is the largest difference of its results, relative to the largest value of each; infinite where only one of
    the two has values that are no numbers. ``speedup`` is how many times as fast it is.
    """

    deviation: float
    speedup: float


def compare(manifest: Manifest, step: Step, model: Path, tuned: Path, scratch: Path, custom_ops: Path | None) -> Comparison:
    """Compare a tuned partition with the one at ``model``; ``scratch`` is a folder for results.

    Raises `hyps.runtime.errors.InputError` where an operator refuses the values.
    """
    inputs = {name: _values(manifest, name) for name in step.inputs}
    session = open_session(model, 1, custom_ops=custom_ops, optimize=step.session.is_optimizable)
    results, before_s = _timed(session, step, inputs)
    for place, name in enumerate(step.outputs):
        (scratch / str(place)).write_bytes(memory_of(results[name]))
    del session, results
    session = open_session(tuned, 1, custom_ops=custom_ops, optimize=False)
    results, tuned_s = _timed(session, step, inputs)
    pairs = [(to_numpy(results[name]), scratch / str(place)) for place, name in enumerate(step.outputs)]
    return Comparison(
        deviation=max((_difference(found, expected) for found, expected in pairs), default=0.0),
        speedup=before_s / tuned_s if tuned_s else 1.0,
    )


def _timed(session: Session, step: Step, inputs: Mapping[str, TensorValue]) -> tuple[dict[str, TensorValue], float]:
    """Return a session's results, and the processor's seconds of the fastest of some runs."""
    fastest, results = float("inf"), dict[str, TensorValue]()
    for _ in range(_RUNS):
        results = {}  # the budget has room for one run's
        started = time.process_time()
        results = session.run(step.outputs, inputs)
        fastest = min(fastest, time.process_time() - started)
    return results, fastest


def _values(manifest: Manifest, name: str) -> NDArray[np.generic]:
    """Return a tensor of a type that numpy knows: floats between -1 and 1 from a fixed sequence, or zeros."""
    record = manifest.tensors[name]
    values = np.zeros(record.shape, record.dtype)
    flat = values.reshape(-1)
    if flat.dtype.kind == "f":
        for start in range(0, len(flat), _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, len(flat)), dtype=np.uint32)
            numbers = numbers * np.uint32(2_654_435_761) ^ (numbers >> np.uint32(3)) * np.uint32(40_503)
            flat[start : start + _BLOCK] = (numbers >> np.uint32(8)) / np.float64(1 << 23) - 1
    return values


def _difference(found: NDArray[np.generic], expected: Path) -> float:
    """Return the largest difference between a result and the one in a file, relative to the largest value in the file."""
    largest = worst = 0.0
    flat = np.ascontiguousarray(found).reshape(-1)
    with expected.open("rb") as stream:
        for start in range(0, len(flat), _BLOCK):
            own = flat[start : start + _BLOCK]
            other = np.frombuffer(stream.read(own.nbytes), flat.dtype)
            pair = np.asarray(own, np.float64), np.asarray(other, np.float64)
            if not np.array_equal(np.isfinite(pair[0]), np.isfinite(pair[1])):
                return float("inf")
            finite = np.isfinite(pair[0])
            largest = max(largest, float(np.abs(pair[1][finite]).max(initial=0.0)))
            worst = max(worst, float(np.abs(pair[0] - pair[1])[finite].max(initial=0.0)))
    return worst / largest if largest else worst
