"""Check a tuned partition: run it and the one it came from on the same values, and compare results and times.

onnxruntime's layouts are its own matter and may change with a version. Numbers that are wrong without an error would be the
worst that tuning could do, so every tuned partition proves itself before it is kept. Results wait on storage: the budget has
room for one of the two partitions at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.execution.session import memory_of, open_session, to_numpy
from hyps.runtime.execution.tensor import TensorValue

#: The most that a tuned partition's results may differ, relative to the largest: sums are added up in another order.
LARGEST_DEVIATION = 1e-4
_BLOCK = 1 << 16


def deviation(manifest: Manifest, step: Step, model: Path, tuned: Path, scratch: Path, custom_ops: Path | None) -> float:
    """Return the largest difference of a tuned partition's results, relative to the largest value of each.

    ``model`` is the partition as it was compiled; ``scratch`` is a folder for its results. It is infinite where only one of
    the two has values that are no numbers. Raises `hyps.runtime.errors.InputError` where an operator refuses the values.
    """
    inputs = {name: fixed_values(manifest, name) for name in step.inputs}
    _write_results(step, model, inputs, scratch, custom_ops)
    results = open_session(tuned, 1, custom_ops=custom_ops, optimize=False).run(step.outputs, inputs)
    pairs = [(to_numpy(results[name]), scratch / str(place)) for place, name in enumerate(step.outputs)]
    return max((_difference(found, expected) for found, expected in pairs), default=0.0)


def _write_results(
    step: Step, model: Path, inputs: Mapping[str, TensorValue], scratch: Path, custom_ops: Path | None
) -> None:
    results = open_session(model, 1, custom_ops=custom_ops, optimize=step.session.is_optimizable).run(step.outputs, inputs)
    for place, name in enumerate(step.outputs):
        (scratch / str(place)).write_bytes(memory_of(results[name]))


def fixed_values(manifest: Manifest, name: str) -> NDArray[np.generic]:
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
