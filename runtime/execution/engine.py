"""The seam between a caller that has inputs for a bundle and the engine that computes them.

There are three engines: this process (`hyps.runtime.execution.local_engine`), a cluster at an MQTT hub
(`hyps.runtime.cluster.client`) and Dask (`hyps.runtime.dask.engine`). Each takes a stream of inputs and yields a stream of
results; one input is a stream of one. The engine decides when the next input is read: only it knows what memory is free.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hyps.runtime.errors import InputError
from hyps.runtime.execution.executor import Outputs
from hyps.runtime.execution.input_checks import check_inputs
from hyps.runtime.execution.tensor import TensorValue

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest
    from hyps.runtime.execution.step_profile import StepProfile
    from hyps.runtime.exits.report import ExitReport

#: A model's inputs by name: numpy arrays, or a `RawTensor` for onnxruntime's C interface.
InputTensors = Mapping[str, TensorValue]
#: The outputs of an inference, and the exit that answered, where a policy decides at exits.
EngineAnswer = tuple[Outputs, "ExitReport | None"]
#: The part of the budget that stays free while an input is read.
ROOM_MARGIN_BYTES = 3_000_000


class EngineInput(Protocol):
    """One input of a bundle, which an engine reads when it has room for it."""

    @property
    def name(self) -> str:
        """The input's name for messages and results; empty where it has none."""
        ...

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensors, within the memory that ``room_bytes()`` says is free.

        Raises `InputError` for an input that the model does not take, `RoomError` where it does not fit.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInput:
    """An `EngineInput` whose tensors are in memory already."""

    tensors: InputTensors
    name: str = ""

    def read(self, manifest: Manifest, room_bytes: Callable[[], int]) -> InputTensors:
        """Return the tensors once they are checked against the manifest. Raises `InputError`."""
        check_inputs(manifest, self.tensors)
        return self.tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceResult:
    """The outputs of the input with this number in the stream, or the error that left it without outputs.

    ``compute_s`` is the median over the repetitions of an input, and 0 where the input could not be read. ``decoded`` names
    the operators a part of whose values was decoded from others: they are right within ``error_bound``, as a part of the
    operator's largest value; a bound of 0 is bit for bit. ``exit`` is the exit that answered, where a policy decides at
    exits.
    """

    number: int
    name: str
    outputs: Outputs
    error: InputError | None
    compute_s: float
    decoded: tuple[str, ...] = ()
    error_bound: float = 0.0
    exit: ExitReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTiming:
    """The time that inputs computed together took, and the tensor bytes that they wrote to a temporary file."""

    count: int
    seconds: float
    spilled_bytes: int = 0


class Observer:
    """A receiver of an engine's progress; this one ignores it. An engine reports the events that it can see."""

    def opened(self, manifest: Manifest, threads: int) -> None:
        """Take note that a schedule starts in this process, with this many threads."""

    def step_done(self, profile: StepProfile | None) -> None:
        """Take note that one step of one input ran; ``profile`` is None where the engine does not measure steps."""

    def run_done(self) -> None:
        """Take note that one input went through all steps once."""

    def group_done(self, timing: GroupTiming) -> None:
        """Take note that several inputs which were computed together are done."""

    def warning(self, message: str) -> None:
        """Take note of something that is wrong although all results are right."""


class Engine(Protocol):
    """A way to compute a bundle's outputs from its inputs (Kaboubi, section 3.3.1.3)."""

    @property
    def manifest(self) -> Manifest:
        """The schedule that the engine carries out."""
        ...

    def run(self, inputs: Iterable[EngineInput], observer: Observer = ...) -> Iterator[InferenceResult]:
        """Yield the result of each input as soon as it is known; an input that cannot be computed has an error there.

        Closing the iterator cancels the inputs that are under way. A length hint of the ``inputs`` (PEP 424) lets an engine
        plan ahead. Raises `hyps.runtime.errors.RuntimeFault` where no further input can be computed.
        """
        ...

    def close(self) -> None:
        """Give back everything that the engine holds."""
        ...


def in_memory(samples: Iterable[InputTensors]) -> Iterator[TensorInput]:
    """Yield an engine's input for each sample, a mapping of tensors by name."""
    return (TensorInput(tensors=sample) for sample in samples)


def only_outputs(results: Iterable[InferenceResult]) -> Outputs:
    """Return the outputs of a stream of one result. Raises its `InputError`."""
    return only_answer(results)[0]


def only_answer(results: Iterable[InferenceResult]) -> EngineAnswer:
    """Return the answer of a stream of one result. Raises its `InputError`."""
    (result,) = results
    if result.error:
        raise result.error
    return result.outputs, result.exit


def run_one(engine: Engine, tensors: InputTensors) -> Outputs:
    """Return the model's outputs by name for one input. Raises `InputError`, and what `Engine.run` raises."""
    return only_outputs(engine.run(in_memory([tensors])))


def failed(number: int, name: str, error: InputError, compute_s: float = 0.0) -> InferenceResult:
    """Return the result of an input without outputs; a new error takes over the message, but keeps no stack frames."""
    return InferenceResult(number=number, name=name, outputs={}, error=InputError(str(error)), compute_s=compute_s)


def failed_run(number: int, name: str, error: InputError, compute_s: float = 0.0) -> InferenceResult:
    """Return the result of an input that was read but not computed; the message then names the input."""
    return failed(number, name, InputError(f"{name}: {error}") if name else error, compute_s)


def run_in_turn(
    inputs: Iterable[EngineInput],
    read: Callable[[EngineInput], InputTensors],
    compute: Callable[[InputTensors, bool], EngineAnswer],
    observer: Observer,
    repeat: int = 1,
) -> Iterator[InferenceResult]:
    """Run inputs one after the other, each ``repeat`` times; ``compute`` is told whether the same input follows again."""
    numbers = itertools.count()
    for source in inputs:
        yield _repeated(next(numbers), source, read, compute, observer, repeat)


def _repeated(
    number: int,
    source: EngineInput,
    read: Callable[[EngineInput], InputTensors],
    compute: Callable[[InputTensors, bool], EngineAnswer],
    observer: Observer,
    repeat: int,
) -> InferenceResult:
    """Return the last outputs of an input and the median of its times."""
    try:
        tensors = read(source)
    except InputError as error:
        return failed(number, source.name, error)
    seconds: list[float] = []
    outputs: Outputs = {}
    report: ExitReport | None = None
    for left in reversed(range(repeat)):
        outputs = {}  # give back the last run's outputs before the next run computes
        started = time.perf_counter()
        try:
            outputs, report = compute(tensors, left > 0)
        except InputError as error:
            return failed_run(number, source.name, error)
        seconds.append(time.perf_counter() - started)
        observer.run_done()
    return InferenceResult(
        number=number, name=source.name, outputs=outputs, error=None, compute_s=_median(seconds), exit=report
    )


def _median(values: list[float]) -> float:
    """Return the median; the standard library's module would import another 1.5 MB."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
