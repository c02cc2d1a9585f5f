"""Early exits as data in the manifest: what a policy for them belongs to, how likely steps run, and what may be wrong.

Seifeddine (section 3.2): a network has exits at several depths, each a classifier. The last one is the network's own output.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hyps.runtime.bundle.records.exits import MOST_EXITS, ExitRecord
from hyps.runtime.bundle.records.steps import Step

if TYPE_CHECKING:
    from hyps.runtime.bundle.manifest import Manifest

#: An exit at which at least this part of those inferences ends that get there is a likely one: what is read ahead past it is
#: more often read in vain than not.
LIKELY_PART = 0.5
#: What the rates of all exits together may differ from 1.
_ROUNDING = 1e-6


def exits_identity(model_sha256: str, outputs: Sequence[str]) -> str:
    """Return the sha256 that names the exits of a model: a policy for them is for no others.

    ``model_sha256`` is that of the model's file without external data, ``outputs`` are the exits' names, the last included.
    """
    import json  # which a device needs for nothing else, and which takes memory

    return hashlib.sha256(json.dumps([model_sha256, *outputs]).encode()).hexdigest()


def exit_records(steps: Sequence[Step], outputs: Sequence[str], rates: Sequence[float]) -> tuple[ExitRecord, ...]:
    """Return the record of each exit: it is behind the step that makes its output."""
    makers = {name: index for index, step in enumerate(steps) for name in step.outputs}
    macs = list(itertools.accumulate(step.multiply_adds for step in steps))
    return tuple(
        ExitRecord(after_step=makers[name], output=name, macs=macs[makers[name]], rate=rate)
        for name, rate in zip(outputs, rates, strict=True)
    )


def with_exits_at(manifest: Manifest, steps: Sequence[Step]) -> tuple[ExitRecord, ...]:
    """Return the exits of a manifest for ``steps`` in place of its own."""
    return exit_records(steps, [each.output for each in manifest.exits], [each.rate for each in manifest.exits])


def rest_start(manifest: Manifest, after_exit: int | None) -> int:
    """Return the step with which an inference begins: the first, or the one behind the exit of this number, from 1 on."""
    return 0 if after_exit is None else manifest.exits[after_exit - 1].after_step + 1


def rest_inputs(manifest: Manifest, after_exit: int | None) -> tuple[str, ...]:
    """Return the tensors with which an inference begins: the inputs, or what is live behind an exit and read later."""
    if after_exit is None:
        return manifest.inputs
    start = rest_start(manifest, after_exit)
    read = {name for step in manifest.steps[start:] for name in step.inputs}
    return tuple(name for name in manifest.steps[start - 1].live if name in read)


def rest_outputs(manifest: Manifest, after_exit: int | None, until_exit: int | None) -> tuple[str, ...]:
    """Return the outputs that are made behind the first of two exits and not behind the other; None is the whole network."""
    stop = len(manifest.steps) if until_exit is None else rest_start(manifest, until_exit)
    made = {name for step in manifest.steps[rest_start(manifest, after_exit) : stop] for name in step.outputs}
    return tuple(output.name for output in manifest.outputs if output.name in made)


def step_reach(exits: Sequence[ExitRecord], count: int) -> list[float]:
    """Return the part of all inferences that runs each of ``count`` steps."""
    reach, left = [], 1.0
    ending = {each.after_step: each.rate for each in exits}
    for index in range(count):
        reach.append(max(0.0, left))
        left -= ending.get(index, 0.0)
    return reach


def likely_exits(reach: Sequence[float]) -> Iterator[int]:
    """Yield the index of every step after which at least `LIKELY_PART` of those inferences end that run it."""
    for index, (here, after) in enumerate(itertools.pairwise(reach)):
        if after < here and after <= here * (1 - LIKELY_PART):
            yield index


def exit_problems(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a manifest's exits: the place below ``$.exits``, and the problem."""
    exits, outputs = manifest.exits, {output.name for output in manifest.outputs}
    if not exits:
        return
    if not 2 <= len(exits) <= MOST_EXITS:
        yield "", f"{len(exits)} exits, where 2 to {MOST_EXITS} make sense"
    makers = {name: index for index, step in enumerate(manifest.steps) for name in step.outputs}
    for index, each in enumerate(exits):
        if each.output not in outputs:
            yield f"[{index}].output", f"{each.output!r} is no output of the model"
        if makers.get(each.output, len(makers)) > each.after_step or each.after_step >= len(manifest.steps):
            yield f"[{index}].after_step", f"{each.output!r} is not made by then"
    for index, (before, after) in enumerate(itertools.pairwise(exits), 1):
        if after.after_step <= before.after_step or after.macs < before.macs:
            yield f"[{index}]", "the exits are not in the order of their depth"
    if len({each.output for each in exits}) < len(exits):
        yield "", "two exits have one output"
    if exits[-1].output != manifest.outputs[-1].name:
        yield f"[{len(exits) - 1}].output", f"the last exit is not the model's last output {manifest.outputs[-1].name!r}"
    if abs(math.fsum(each.rate for each in exits) - 1) > _ROUNDING:
        yield "", "their rates do not add up to 1"
    yield from _unlike_scores(manifest)


def _unlike_scores(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the exits whose tensors are no scores of the same classes."""
    for index, each in enumerate(manifest.exits):
        record, last = manifest.tensors.get(each.output), manifest.tensors.get(manifest.exits[-1].output)
        if record is None or last is None:
            continue  # told by the checks of the schedule
        if record.dtype not in ("float16", "float32", "float64") or class_count(record.shape) < 2:
            yield f"[{index}].output", f"{each.output!r} is no vector of scores of classes"
        elif class_count(record.shape) != class_count(last.shape):
            yield f"[{index}].output", f"{each.output!r} has other classes than {manifest.exits[-1].output!r}"


def class_count(shape: Sequence[int]) -> int:
    """Return the classes of a vector of scores, [C] or [1, C]; 0 for another shape."""
    return shape[-1] if shape and all(extent == 1 for extent in shape[:-1]) else 0
