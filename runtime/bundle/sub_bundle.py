"""A share of a bundle: some of its steps, one after the other, as a bundle of its own that the same executor runs.

So a worker's partition (Kaboubi, section 3.3.1.1) is a manifest with these steps, their files and their tensors alone: it
tells a worker nothing of the rest of the network, and whoever has a bundle can be a manager of others again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hyps.runtime.bundle.manifest import Manifest, ModelRecord, OutputRecord, Step
from hyps.runtime.errors import BudgetError
from hyps.runtime.execution.weight_buffers import HUGE_PAGE_BYTES
from hyps.runtime.units import megabytes

#: What the last huge pages of two steps' weights hold besides them at most.
HUGE_SLACK_BYTES = 2 * HUGE_PAGE_BYTES


def boundary(manifest: Manifest, steps: range) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tensors that these steps need from outside, and those they make that others or the user need."""
    own = [manifest.steps[index] for index in steps]
    others = [step for index, step in enumerate(manifest.steps) if index not in steps]
    made = {name for step in own for name in step.outputs}
    needed = {name for step in others for name in step.inputs} | {output.name for output in manifest.outputs}
    inputs = dict.fromkeys(name for step in own for name in step.inputs if name not in made)
    outputs = dict.fromkeys(name for step in own for name in step.outputs if name in needed)
    return tuple(inputs), tuple(outputs)


def sub_bundles(manifest: Manifest, runs: Sequence[range], budget_bytes: int) -> tuple[Manifest, ...]:
    """A manifest for each run of steps, all loaded in one process of ``budget_bytes``, where one at a time is run.

    Weights are pinned as far as there is room, and lie in huge pages where more is left. The steps of a run follow
    each other in the bundle too, so that no more is live than there and its predictions hold. Raises `BudgetError` where
    the largest step does not fit.
    """
    indices = [index for run in runs for index in run]
    own = [manifest.steps[index] for index in indices]
    largest = max(own, key=lambda step: step.alone_bytes)
    room_bytes = budget_bytes - largest.alone_bytes
    if room_bytes < 0:
        needs, has = megabytes(largest.alone_bytes), megabytes(budget_bytes)
        raise BudgetError(f"step {largest.name} needs {needs}, a process may have {has}")
    sessions_bytes = _sessions_bytes(manifest)
    keeps = sessions_bytes <= room_bytes
    sessions_bytes = sessions_bytes if keeps else 0
    pinned = dict(zip(indices, _pinned(own, budget_bytes - sessions_bytes), strict=True))
    resident_bytes = sum(pinned.values()) + sessions_bytes
    peak_bytes = max(manifest.steps[index].alone_bytes + resident_bytes - pin for index, pin in pinned.items())
    huge = peak_bytes + HUGE_SLACK_BYTES <= budget_bytes

    def planned(index: int, live: tuple[str, ...]) -> Step:
        step, pin = manifest.steps[index], pinned[index]
        peak_bytes = step.alone_bytes + resident_bytes - pin
        kept = step.kept and keeps
        return msgspec.structs.replace(
            step, live=live, pinned_bytes=pin, ahead_bytes=0, kept=kept, peak_bytes=peak_bytes, reason=None
        )

    found = []
    for run in runs:
        inputs, outputs = boundary(manifest, run)
        steps = tuple(planned(index, _live(manifest, run, index, outputs)) for index in run)
        found.append(_bundle(manifest, inputs, outputs, steps, budget_bytes, huge=huge))
    return tuple(found)


def _bundle(
    manifest: Manifest,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    steps: tuple[Step, ...],
    budget_bytes: int,
    *,
    huge: bool,
) -> Manifest:
    names = {name for step in steps for name in (*step.inputs, *step.outputs)}
    weight_bytes = sum(step.weight_bytes for step in steps)
    return Manifest(
        version=manifest.version,
        created_by=manifest.created_by,
        model=ModelRecord(name="share", sha256="0" * 64, parameters=0, weight_bytes=weight_bytes),
        target=manifest.target,
        budget_bytes=budget_bytes,
        huge_pages=huge,
        steady=False,
        exact=manifest.exact,
        inputs=inputs,
        outputs=tuple(OutputRecord(name=name, probabilities=False) for name in outputs),
        tensors={name: record for name, record in manifest.tensors.items() if name in names},
        steps=steps,
    )


def _sessions_bytes(manifest: Manifest) -> int:
    """What the bundle's sessions that stay open hold, at most: what a peak has beside the weights that it counts."""
    if not any(step.kept for step in manifest.steps):
        return 0
    pinned = sum(step.pinned_bytes for step in manifest.steps)
    return max(
        step.peak_bytes - step.alone_bytes - (pinned - step.pinned_bytes) - step.ahead_bytes for step in manifest.steps
    )


def _pinned(steps: Sequence[Step], budget_bytes: int) -> list[int]:
    """Whole weights files, in the order of the steps, as far as every step fits beside what the others have pinned.

    The rest is read for every run. A step's own weights count once: they are part of what it needs alone.
    """
    pinned = [0] * len(steps)
    beside = [step.alone_bytes for step in steps]  # what a step needs besides all that is pinned
    total = 0
    for index, step in enumerate(steps):
        size = step.weights.size_bytes if step.weights else 0
        others = max((each for other, each in enumerate(beside) if other != index), default=0)
        if total + size + max(others, beside[index] - size) <= budget_bytes:
            pinned[index] = size
            beside[index] -= size
            total += size
    return pinned


def _live(manifest: Manifest, run: range, index: int, outputs: Sequence[str]) -> tuple[str, ...]:
    """What must be kept behind a step of a run: what its later steps read, and the outputs so far."""
    before = [manifest.steps[each] for each in run if each <= index]
    later = {name for each in run if each > index for name in manifest.steps[each].inputs}
    there = {name for step in before for name in (*step.inputs, *step.outputs)}
    made = {name for step in before for name in step.outputs}
    return tuple(sorted((later & there) | (made & set(outputs))))
