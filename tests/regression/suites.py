"""Compile one case of a third-party suite, compare it with the whole model, and make a table row of the outcome."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hyps.compiler.errors import CompilerError
from hyps.compiler.jobs import Compilation
from hyps.compiler.pipeline import Compiled, compile_file
from hyps.compiler.tolerance import promised_tolerance
from hyps.compiler.validate import random_inputs
from hyps.passes.errors import PassError
from hyps.passes.planning.request import Request
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.tensor import TensorValue

Tensors = Mapping[str, NDArray[Any]]

EXACT, NEAR, REFUSED = "bit for bit", "within the promise", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its inputs (random ones without), and what the suite expects (of all outputs, some, or none)."""

    name: str
    model: Path
    inputs: Tensors = field(default_factory=dict)
    expected: Tensors = field(default_factory=dict)
    rtol: float = 1e-4
    atol: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case.

    ``result`` is the bundle against the whole model: `EXACT`, `NEAR` or `REFUSED`, with the ``reason`` of the last two;
    ``equal`` tells whether no bit differs, promised or not;
    ``expected`` tells whether the suite's own expectation holds: of the bundle, of neither, or None without one.
    """

    name: str
    result: str
    reason: str = ""
    expected: str | None = None
    equal: bool = False
    partitions: int = 0
    shards: int = 0


class _Shaped:
    """A partition's session; what it makes has the types that the plan was made for."""

    def __init__(
        self,
        manifest: Manifest,
        path: Path,
        threads: int,
        weights: Mapping[str, TensorValue],
        **options: Any,
    ) -> None:
        self._session = open_session(path, threads, weights, **options)
        self._manifest = manifest

    @property
    def run_s(self) -> float:
        return self._session.run_s

    def run(self, outputs: Sequence[str], inputs: Mapping[str, TensorValue]) -> dict[str, TensorValue]:
        values = self._session.run(outputs, inputs)
        for name, value in values.items():
            assert tuple(value.shape()) == self._manifest.tensors[name].shape, name
        return values


def outcome(case: Case, **options: Any) -> Outcome:
    """Compile a case in this process, run it and the whole model, and compare; a mismatch is an `AssertionError`.

    ``options`` are those of `Request`; ``budget_bytes="smallest"`` is the least that works.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiled = _compiled(case, Path(folder) / "bundle", **options)
        except (PassError, CompilerError) as error:
            return Outcome(name=case.name, result=REFUSED, reason=str(error).replace(str(case.model), case.model.name))
        manifest = compiled.manifest
        sample = case.inputs or next(random_inputs(manifest, 1))
        whole = _whole(case.model, manifest, sample)
        found = load_executor(Path(folder) / "bundle", threads=1, opener=partial(_Shaped, manifest)).run(sample)
        for path in (Path(folder) / "bundle").rglob("*.onnx"):
            onnx.checker.check_model(path, full_check=True)
    for name, array in whole.items():
        _compare(case.name, name, array, found[name], manifest)
    return Outcome(
        name=case.name,
        result=EXACT if manifest.exact else NEAR,
        reason=compiled.plan.inexact_reason or "",
        expected=_expected(case, whole, found, promised_tolerance(manifest)) if case.expected else None,
        equal=all(found[name].tobytes() == array.tobytes() for name, array in whole.items()),
        partitions=len(manifest.steps),
        shards=sum("shards" in change.what for change in compiled.plan.changes),
    )


def _compiled(case: Case, bundle: Path, **options: Any) -> Compiled:
    shapes = {name: array.shape for name, array in case.inputs.items()}

    def compiled(**options: Any) -> Compiled:
        request = Request(threads=1, **options)
        job = Compilation(
            model=case.model, output=bundle, request=request, target_name="suite", input_shapes=shapes, force=True
        )
        return compile_file(job)

    if options.get("budget_bytes") != "smallest":
        return compiled(**options)
    roomy = compiled(**options | {"budget_bytes": 10**11})
    shutil.rmtree(bundle)
    return compiled(**options | {"budget_bytes": roomy.plan.smallest_budget_bytes})


def _whole(model: Path, manifest: Manifest, sample: Tensors) -> dict[str, NDArray[Any]]:
    values = open_session(model, 1, stock=manifest.is_stock).run([output.name for output in manifest.outputs], sample)
    return {name: to_numpy(value) for name, value in values.items()}


def _compare(case: str, name: str, whole: NDArray[Any], found: NDArray[Any], manifest: Manifest) -> None:
    where = f"{case}, output {name}"
    record = manifest.tensors[name]
    assert (record.dtype, record.shape) == (whole.dtype.name, whole.shape), where
    assert (found.dtype, found.shape) == (whole.dtype, whole.shape), where
    if manifest.exact:
        assert found.tobytes() == whole.tobytes(), f"{where}: differs by {_distance(whole, found):.1e}, but promises not to"
    else:
        assert _distance(whole, found) <= promised_tolerance(manifest), where


def _distance(whole: NDArray[Any], found: NDArray[Any]) -> float:
    """The largest difference over the largest absolute value; infinity and NaN must be in the same places."""
    a, b = whole.astype(np.longdouble), found.astype(np.longdouble)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    largest = np.abs(a[finite]).max(initial=0.0)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0) / (largest or 1.0))


def _expected(case: Case, whole: Tensors, found: Tensors, promise: float) -> str:
    """Whether the outputs are what the suite expects, where those of the whole model are."""
    if not _agrees(case, whole, 0.0):
        return "onnxruntime's whole model differs from it, too"
    if math.isinf(promise):
        return "not compared: no bound is promised"
    assert _agrees(case, found, promise), f"{case.name}: the whole model gives what the suite expects, the bundle does not"
    return "as expected"


def _agrees(case: Case, outputs: Tensors, promise: float) -> bool:
    """Within the case's tolerances, and ``promise`` of the largest value besides."""

    def close(name: str, array: NDArray[Any]) -> bool:
        wide = array.astype(np.float64)
        largest = float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
        slack = (case.atol or case.rtol * largest) + promise * largest
        return np.allclose(outputs[name].astype(np.float64), wide, case.rtol, slack, equal_nan=True)

    return all(close(name, array) for name, array in case.expected.items())


def read_tensor(path: Path) -> NDArray[Any]:
    """A tensor in one of the suites' .pb files."""
    array: NDArray[Any] = numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))
    return array


def table(rows: Collection[tuple[str, ...]], headings: tuple[str, ...]) -> str:
    """A Markdown table."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
