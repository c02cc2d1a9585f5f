"""Compare a bundle's outputs with the whole model's: run both with the same session options on the same inputs.

Those are onnxruntime's default options where the bundle is stock, else the lean ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.compiler.code_deviations import CodeDeviation, code_deviation, keeping_code_tensors
from hyps.compiler.errors import ModelFileError, OptionError
from hyps.compiler.progress import Advance
from hyps.compiler.tolerance import promised_tolerance
from hyps.compiler.validation_model import CHECK_THE_MODEL, check_is_whole
from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.device.instruction_set import instruction_set
from hyps.runtime.errors import InputError
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.execution.interface import Session
from hyps.runtime.execution.loading import load_executor
from hyps.runtime.execution.session import open_session, to_numpy
from hyps.runtime.execution.tensor import TensorValue
from hyps.runtime.io.inputs import sources
from hyps.runtime.io.random_inputs import random_inputs as random_inputs

#: One input of a network: its tensors by name.
Sample = Mapping[str, NDArray[Any]]

#: The memory that decoding a picture may take here; on a device the budget bounds it.
_DECODING_BYTES = 1 << 30
#: The type in which outputs are compared: it rounds no 64-bit integer.
_WIDE = np.longdouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """The difference of one output from the whole model's, at its worst over all inputs.

    ``top1`` and ``top5`` are the fractions of inputs whose highest scores are the same classes; None for too few classes.
    """

    name: str
    max_abs: float
    max_rel: float
    cosine: float
    top1: float | None
    top5: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The result of a comparison.

    ``tolerance`` bounds ``max_rel``: the largest difference, relative to the largest absolute output. ``codes`` are those of
    the operators that have parity shards. ``stock``: the whole model ran with onnxruntime's default options. ``saturates``:
    an 8-bit operator has a code, which is exact, and this processor's 8-bit operators are not (`InstructionSet.saturates`).
    """

    outputs: tuple[Deviation, ...]
    codes: tuple[CodeDeviation, ...]
    samples: int
    tolerance: float
    stock: bool
    saturates: bool = False

    @property
    def passed(self) -> bool:
        """Whether every output is within the tolerance, and every code within its bound."""
        return all(output.max_rel <= self.tolerance for output in self.outputs) and all(code.passed for code in self.codes)


def validate(
    model: Path,
    bundle: Path,
    inputs: Iterable[Sample],
    tolerance: float | None,
    custom_ops: Path | None = None,
    advance: Advance = lambda count: None,
    *,
    is_tuned: bool = True,
) -> Validation:
    """Compare ``bundle`` with ``model`` on each of ``inputs``; ``advance`` counts the inputs that were compared.

    Without a ``tolerance``, the bundle's promise is required (`hyps.compiler.tolerance`). ``is_tuned=False`` compares a
    tuned bundle as it was compiled. Raises `OptionError` without inputs or with another model, and the runtime's errors for
    a damaged bundle or input.
    """
    if not model.is_file():
        raise ModelFileError(f"{model} is not a file; name the .onnx file that the bundle was compiled from")
    opener = partial(open_session, custom_ops=custom_ops)
    manifest = read_manifest(bundle)
    executor = load_executor(  # it runs where the compiler does
        bundle, adapt=_with_codes(manifest), opener=opener, is_tuned=is_tuned, keeps_budget=False
    )
    check_is_whole(model, manifest)
    names = [output.name for output in manifest.outputs]
    codes: dict[str, CodeDeviation] = {}
    whole = opener(model, executor.threads, stock=executor.manifest.is_stock)
    pairs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {name: [] for name in names}
    for sample in inputs:
        check_inputs(manifest, sample)
        expected = _run_whole(whole, {output.name: output.classes for output in manifest.outputs}, sample)
        found = executor.run(sample)
        for code in manifest.codes:
            deviation = code_deviation(code, found)
            codes[code.name] = max(codes.get(code.name, deviation), deviation, key=lambda each: each.max_rel)
        for name in names:
            if expected[name].shape != found[name].shape:
                raise OptionError(f"output {name!r} of {model} has another shape than in the bundle; {CHECK_THE_MODEL}")
            pairs[name].append((expected[name], found[name]))
        advance(1)
    samples = len(pairs[names[0]])
    if not samples:
        raise OptionError("there are no inputs to compare on; give --inputs, --random or --images")
    if tolerance is None:
        tolerance = promised_tolerance(executor.manifest)
    outputs = tuple(_deviation(name, pairs[name]) for name in names)
    return Validation(
        outputs=outputs,
        codes=tuple(codes.values()),
        samples=samples,
        tolerance=tolerance,
        stock=executor.manifest.is_stock,
        saturates=any(code.error_bound == 0 for code in codes.values()) and instruction_set().saturates,
    )


def _with_codes(manifest: Manifest) -> Callable[[Manifest], Manifest]:
    """Return what a schedule is changed to, so that the tensors of codes can be compared."""
    return lambda schedule: keeping_code_tensors(manifest) if manifest.codes else schedule


def _run_whole(whole: Session, classes: Mapping[str, Sequence[str]], sample: Sample) -> dict[str, NDArray[Any]]:
    """Return the model's outputs; ``classes`` has those of each output (`hyps.runtime.bundle.manifest.OutputRecord`)."""
    try:
        return {name: _array(value, classes[name]) for name, value in whole.run([*classes], sample).items()}
    except InputError as error:
        raise OptionError(f"{error}; give inputs that the model takes with --inputs, or {CHECK_THE_MODEL}") from None


def _array(value: TensorValue, classes: Sequence[str]) -> NDArray[Any]:
    """Return an output as an array; of a sequence of maps from class to score, which ZipMap writes, the scores."""
    if isinstance(value, list):
        named = [{str(label): score for label, score in scores.items()} for scores in value]
        return np.array([[scores[label] for label in classes] for scores in named])
    array: NDArray[Any] = to_numpy(value)
    return array


def file_inputs(manifest: Manifest, path: Path) -> Iterator[Sample]:
    """Yield the inputs in a file, or in each file of a folder, as ``hyps-run`` reads them."""
    for source in sources([str(path)]):
        yield source.read(manifest, lambda: _DECODING_BYTES)


def input_count(path: Path) -> int:
    """Return the number of inputs that `file_inputs` will yield."""
    return sum(1 for _ in sources([str(path)]))


def _deviation(name: str, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> Deviation:
    if pairs[0][0].dtype.kind == "U":  # strings are the same, or they are not
        pairs = [((a != b).astype(_WIDE), np.zeros(a.shape, _WIDE)) for a, b in pairs]
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
    """Return the largest difference: 0 between equal infinities or two NaNs, infinity if only one side has them."""
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
    """Return the fraction of inputs whose ``count`` highest scores are the same classes in the same order."""

    def best(scores: NDArray[np.longdouble]) -> list[int]:
        return [int(index) for index in np.argsort(-scores, kind="stable")[:count]]

    return sum(best(a) == best(b) for a, b in pairs) / len(pairs)
