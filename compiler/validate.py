"""Does the bundle compute what the whole model computes? Runs both, with the same session options, and compares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.bundle_writer.copy import CopyProgress
from hyps.compiler.errors import ModelFileError, OptionError
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import check_inputs, load_executor
from hyps.runtime.execution.session import Session, open_session, to_numpy
from hyps.runtime.io.inputs import sources

Tensors = Mapping[str, NDArray[Any]]

#: Where a plan says that it cannot be bit-exact: regrouped float32 sums differ by about 1e-6 of the largest output
#: (DESIGN.md section 5), and by 2e-5 behind the recurrences of a speech network cut after each of its layers.
INEXACT_TOLERANCE = 1e-4
#: Where 16-bit floats cross a cut: each is rounded there, to 11 bits.
HALF_TOLERANCE = 1e-2
#: Decoding a picture may take this much here; the device's own bound is its budget.
_ROOM_BYTES = 1 << 30
#: What outputs are compared in: no 64-bit integer is rounded.
_WIDE = np.longdouble
_IS_IT_THE_MODEL = "is it the model that the bundle was made of?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far one output is from the whole model's, at worst over all inputs; agreement of the best classes as a share."""

    name: str
    max_abs: float
    max_rel: float
    cosine: float
    top1: float | None
    top5: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A comparison: ``tolerance`` bounds ``max_rel``, the largest difference over the largest absolute output."""

    outputs: tuple[Deviation, ...]
    samples: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every output keeps within the tolerance."""
        return all(output.max_rel <= self.tolerance for output in self.outputs)


def validate(
    model: Path,
    bundle: Path,
    inputs: Iterable[Tensors],
    tolerance: float | None,
    custom_ops: Path | None = None,
    advance: CopyProgress = lambda count: None,
) -> Validation:
    """Compare ``bundle`` with ``model`` on each of ``inputs``; without a ``tolerance``, the bundle's own promise counts.

    ``advance`` is told of each that was compared.

    Raises `OptionError` without inputs or with another model, and the runtime's errors for a damaged bundle or input.
    """
    if not model.is_file():
        raise ModelFileError(f"{model} is no file; name the .onnx file that the bundle was made of")
    opener = partial(open_session, custom_ops=custom_ops)
    executor = load_executor(bundle, opener=opener)
    names = [output.name for output in executor.manifest.outputs]
    whole = opener(model, executor.threads)
    pairs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {name: [] for name in names}
    for sample in inputs:
        check_inputs(executor.manifest, sample)
        expected = _run_whole(whole, names, sample)
        found = executor.run(sample)
        for name in names:
            if expected[name].shape != found[name].shape:
                raise OptionError(f"output {name!r} of {model} has another shape than the bundle's; {_IS_IT_THE_MODEL}")
            pairs[name].append((expected[name], found[name]))
        advance(1)
    samples = len(pairs[names[0]])
    if not samples:
        raise OptionError("there are no inputs to compare on; give --inputs, --random or --images")
    if tolerance is None:
        tolerance = _promise(executor.manifest)
    outputs = tuple(_deviation(name, pairs[name]) for name in names)
    return Validation(outputs=outputs, samples=samples, tolerance=tolerance)


def _run_whole(whole: Session, names: list[str], sample: Tensors) -> dict[str, NDArray[Any]]:
    try:
        return {name: to_numpy(value) for name, value in whole.run(names, sample).items()}
    except InputError as error:
        raise OptionError(f"{error}; {_IS_IT_THE_MODEL}") from None


def random_inputs(manifest: Manifest, count: int, seed: int = 0) -> Iterator[Tensors]:
    """``count`` seeded inputs: normal floats, integers from 0 to 9, coin-toss booleans."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {name: _random(rng, manifest.tensors[name].dtype, manifest.tensors[name].shape) for name in manifest.inputs}


def file_inputs(manifest: Manifest, path: Path) -> Iterator[Tensors]:
    """The inputs in a file, or in each file of a folder, read as ``hyps-run`` reads them."""
    for source in sources([str(path)]):
        yield source.read(manifest, lambda: _ROOM_BYTES)


def input_count(path: Path) -> int:
    """How many inputs `file_inputs` will read."""
    return sum(1 for _ in sources([str(path)]))


def _promise(manifest: Manifest) -> float:
    if manifest.exact:
        return 0.0
    halves = any(record.dtype == "float16" for record in manifest.tensors.values())
    return HALF_TOLERANCE if halves else INEXACT_TOLERANCE


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    if kind in "iu":
        return rng.integers(0, 10, shape).astype(dtype)
    if kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _deviation(name: str, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> Deviation:
    wide = [(a.astype(_WIDE).ravel(), b.astype(_WIDE).ravel()) for a, b in pairs]
    max_abs = max(_largest_difference(a, b) for a, b in wide)
    max_rel = max(_relative(a, b) for a, b in wide)
    classes = min(a.size for a, _ in wide)
    return Deviation(
        name=name,
        max_abs=max_abs,
        max_rel=max_rel,
        cosine=min(_cosine(a, b) for a, b in wide),
        top1=_agreement(wide, 1) if classes > 1 else None,
        top5=_agreement(wide, 5) if classes >= 5 else None,
    )


def _largest_difference(a: NDArray[np.longdouble], b: NDArray[np.longdouble]) -> float:
    """The largest difference; equal infinities and NaNs on both sides differ by nothing, on one side by infinity."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    difference = np.abs(a[~same] - b[~same])
    return float(difference.max()) if np.isfinite(difference).all() else math.inf


def _relative(a: NDArray[np.longdouble], b: NDArray[np.longdouble]) -> float:
    difference = _largest_difference(a, b)
    largest = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    return difference / largest if largest and difference else difference


def _cosine(a: NDArray[np.longdouble], b: NDArray[np.longdouble]) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(np.array_equal(a, b))


def _agreement(pairs: list[tuple[NDArray[np.longdouble], NDArray[np.longdouble]]], count: int) -> float:
    """The share of inputs whose ``count`` highest scores are the same classes in the same order."""

    def best(scores: NDArray[np.longdouble]) -> list[int]:
        return [int(index) for index in np.argsort(-scores, kind="stable")[:count]]

    return sum(best(a) == best(b) for a, b in pairs) / len(pairs)
