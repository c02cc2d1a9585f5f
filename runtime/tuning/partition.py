"""Tune one step: have onnxruntime optimise its partition, within the memory that tuning may take, and check the result."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hyps.runtime.bundle.bundle_folder import PARTITIONS
from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.bundle.records.tuned import TunedPartition
from hyps.runtime.errors import BundleError, InputError
from hyps.runtime.execution.session import numpy_knows
from hyps.runtime.tuning.check import deviation
from hyps.runtime.tuning.optimise import file_record, has_layout, weights_path, weights_record, write_optimised
from hyps.runtime.tuning.plain_weights import plain_weights
from hyps.runtime.units import megabytes_down, megabytes_up

#: The reason why a step is not tuned that has no convolution.
NOTHING_TO_GAIN = "it computes nothing that has another layout"
#: What changing a layout takes of a weight: the weight, its new form, and a copy while it is stored.
_COPIES = 3
#: What onnxruntime's code for writing models, and its graph of a partition, take besides weights.
_OPTIMISER_BYTES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What tuning a step needs to know: the bundle, the folder that becomes the tuned one, and the memory it may take.

    ``tolerance`` bounds how much a tuned partition's results may differ.
    """

    manifest: Manifest
    folder: Path
    limit_bytes: int
    custom_ops: Path | None
    tolerance: float


class StaysUntuned(Exception):
    """A step stays as it was compiled, for the reason in the message."""


def tuned_partition(task: Tuning, step: Step) -> TunedPartition:
    """Tune one step's partition; raise `StaysUntuned` and leave no file where that gains nothing or has no room."""
    if reason := next(_obstacles(task, step), None):
        raise StaysUntuned(reason)
    source, target = task.folder / step.model.path, task.folder / PARTITIONS / f"{step.name}.tuned.onnx"
    try:
        with plain_weights(task.folder, step), tempfile.TemporaryDirectory(dir=task.folder) as scratch:
            write_optimised(source, target, task.custom_ops)
            if not has_layout(target):
                raise StaysUntuned("onnxruntime has no faster layout for it on this processor")
            found = TunedPartition(model=file_record(task.folder, target), weights=weights_record(task.folder, target))
            _check_peak(task, step, found)
            differs = deviation(task.manifest, step, source, target, Path(scratch), task.custom_ops)
        if not differs <= task.tolerance:
            raise StaysUntuned(f"tuned, its results differ by {differs:.1e} of the largest")
    except (BundleError, InputError) as error:
        _remove(target)
        raise StaysUntuned(error.fault.problem) from None
    except BaseException:
        _remove(target)
        raise
    return found


def _remove(target: Path) -> None:
    for path in (target, weights_path(target)):
        path.unlink(missing_ok=True)


def _obstacles(task: Tuning, step: Step) -> Iterator[str]:
    """Yield why a step is not tuned at all."""
    if step.rows or step.tuned_bytes is msgspec.UNSET:
        yield NOTHING_TO_GAIN
        return
    if step.session.is_stock:
        yield "it runs with onnxruntime's own options, which use this processor's layout"
        return
    if step.session.group:
        yield "its session is shared with other shards, whose weights are inputs"
        return
    if not all(numpy_knows(task.manifest.tensors[name].dtype) for name in (*step.inputs, *step.outputs)):
        yield "it cannot be checked: numpy does not know the type of its inputs or outputs"
        return
    needed = step.alone_bytes - step.activation_bytes + _COPIES * _largest_bytes(step) + _OPTIMISER_BYTES
    if needed > task.limit_bytes:
        yield f"tuning it takes {megabytes_up(needed)}, and {megabytes_down(task.limit_bytes)} are allowed (--memory)"


def _largest_bytes(step: Step) -> int:
    """Return at least the bytes of the step's largest weight: those to the start of the next in the file."""
    if step.weights is None:
        return 0
    starts = sorted(tensor.offset for tensor in step.weights.tensors)
    return max((stop - start for start, stop in itertools.pairwise([*starts, step.weights.size_bytes])), default=0)


def _check_peak(task: Tuning, step: Step, found: TunedPartition) -> None:
    """Raise `StaysUntuned` where a tuned step exceeds the budget."""
    peak = lowest_peak_bytes(task.manifest, step, found)
    if peak > task.manifest.budget_bytes:
        raise StaysUntuned(
            f"tuned, it would take {megabytes_up(peak)} of {megabytes_down(task.manifest.budget_bytes)}; "
            "compile the model with --tunable"
        )


def alone_bytes(step: Step, tuned: TunedPartition | None) -> int:
    """Return the predicted peak of a step alone, with its tuned partition if it has one."""
    if tuned is None or step.tuned_bytes is msgspec.UNSET:
        return step.alone_bytes
    return max(step.alone_bytes, step.tuned_bytes) + more_weights_bytes(step, tuned)


def lowest_peak_bytes(manifest: Manifest, step: Step, tuned: TunedPartition | None) -> int:
    """Return the predicted peak of a step with nothing of other steps in memory, with the arena of activations and without.

    The arena may be too small for the activations in the other layout. Then the steps run without it.
    """
    with_arena = step.alone_bytes + manifest.arena_growth_bytes(step) + more_weights_bytes(step, tuned)
    return max(alone_bytes(step, tuned), with_arena)


def more_weights_bytes(step: Step, tuned: TunedPartition | None) -> int:
    """Return how much more memory the weights of a tuned partition take, where channels fill no whole block.

    What is stored in the model is held twice: in the model and as a tensor.
    """
    if tuned is None:
        return 0
    size = tuned.weights.size_bytes if tuned.weights else 0
    return max(0, size - step.weights_file_bytes) + 2 * max(0, tuned.model.size_bytes - step.model.size_bytes)
