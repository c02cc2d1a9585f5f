"""Make sub-bundles: some consecutive steps of a bundle as a bundle of its own, which the same executor runs.

A sub-bundle is a worker's partition of the network (Kaboubi, section 3.3.1.1). Its manifest has these steps, their files
and their tensors only, so that a worker learns nothing of the rest of the network. Whoever holds a bundle can be the manager
of other workers in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hyps.runtime.bundle.manifest import Manifest, ModelRecord, OutputRecord, Step
from hyps.runtime.bundle.residency import Residency, StepMemory, StepResidency, sub_bundle_residency
from hyps.runtime.errors import BudgetError
from hyps.runtime.units import megabytes_down, megabytes_up


def boundary(manifest: Manifest, steps: range) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tensors that these steps need from outside, and those that they make for other steps, users or decoding."""
    own = [manifest.steps[index] for index in steps]
    others = [step for index, step in enumerate(manifest.steps) if index not in steps]
    made = {name for step in own for name in step.outputs}
    needed = {name for step in others for name in step.inputs} | {output.name for output in manifest.outputs}
    needed.update(name for code in manifest.codes for name in code.parity)
    inputs = dict.fromkeys(name for step in own for name in step.inputs if name not in made)
    outputs = dict.fromkeys(name for step in own for name in step.outputs if name in needed)
    return tuple(inputs), tuple(outputs)


def sub_bundles(manifest: Manifest, runs: Sequence[range], budget_bytes: int) -> tuple[Manifest, ...]:
    """Return a manifest for each run of steps; one process of ``budget_bytes`` loads all of them, and runs one at a time.

    `hyps.runtime.bundle.residency.sub_bundle_residency` decides what stays in memory. A run's steps are consecutive in the
    bundle: no more tensors are live than in the bundle, so that its predictions hold. Steps use no arena, unless they are
    stock: then the whole bundle is one step. Raises `BudgetError` where the largest
    step does not fit.
    """
    indices = [index for run in runs for index in run]
    steps = [manifest.steps[index] for index in indices]
    largest = max(steps, key=lambda step: step.alone_bytes)
    if largest.alone_bytes > budget_bytes:
        needs, has = megabytes_up(largest.alone_bytes), megabytes_down(budget_bytes)
        raise BudgetError(f"step {largest.name} needs {needs}, a process may have {has}")
    memories = [StepMemory(alone_bytes=step.alone_bytes, weights_bytes=step.weights_file_bytes) for step in steps]
    residency = sub_bundle_residency(memories, open_sessions_bytes(manifest), budget_bytes)
    stays = iter(residency.steps)  # runs may have steps in common: each holds its own
    return tuple(_sub_bundle(manifest, run, {index: next(stays) for index in run}, residency, budget_bytes) for run in runs)


def with_less_memory(manifest: Manifest, spared_bytes: int) -> Manifest:
    """Return the schedule with so many bytes of its budget left to other things: less stays in memory, if need be.

    Raises `BudgetError` where a step does not fit.
    """
    budget_bytes = manifest.budget_bytes - spared_bytes
    if max(step.peak_bytes for step in manifest.steps) <= budget_bytes:
        return manifest
    try:
        (less,) = sub_bundles(manifest, [range(len(manifest.steps))], budget_bytes)
    except BudgetError as error:
        spared = f"{megabytes_up(spared_bytes)} of the budget of {megabytes_down(manifest.budget_bytes)}"
        raise BudgetError(f"{spared} are needed besides the bundle: {error}", "compile it with more --memory") from None
    steps = tuple(
        msgspec.structs.replace(step, live=known.live) for step, known in zip(less.steps, manifest.steps, strict=True)
    )
    return msgspec.structs.replace(manifest, steps=steps, huge_pages=less.huge_pages, activations=less.activations)


def _sub_bundle(
    manifest: Manifest, run: range, stays: dict[int, StepResidency], residency: Residency, budget_bytes: int
) -> Manifest:
    inputs, outputs = boundary(manifest, run)
    steps = tuple(_step(manifest.steps[index], _live(manifest, run, index, inputs, outputs), stays[index]) for index in run)
    names = {name for step in steps for name in (*step.inputs, *step.outputs)}
    weight_bytes = sum(step.weight_bytes for step in steps)
    return Manifest(
        version=manifest.version,
        created_by=manifest.created_by,
        model=ModelRecord(name="sub-bundle", sha256="0" * 64, parameters=0, weight_bytes=weight_bytes),
        target=manifest.target,
        budget_bytes=budget_bytes,
        huge_pages=residency.huge_pages,
        exact=manifest.exact,
        inputs=inputs,
        outputs=tuple(OutputRecord(name=name, probabilities=False) for name in outputs),
        tensors={name: record for name, record in manifest.tensors.items() if name in names},
        steps=steps,
        activations=manifest.activations if manifest.is_stock else msgspec.UNSET,
    )


def _step(step: Step, live: tuple[str, ...], stays: StepResidency) -> Step:
    tier = step.session.tier if step.session.is_stock else msgspec.UNSET
    stays_open = step.session.stays_open and stays.session_stays_open
    session = msgspec.structs.replace(step.session, stays_open=stays_open, tier=tier)
    return msgspec.structs.replace(
        step,
        live=live,
        pinned_bytes=stays.pinned_bytes,
        ahead_bytes=stays.ahead_bytes,
        peak_bytes=stays.peak_bytes,
        session=session,
        reason=None,
    )


def open_sessions_bytes(manifest: Manifest) -> int:
    """Return the most that the bundle's open sessions hold: what its peaks count besides weights and reading ahead."""
    if not any(step.session.stays_open for step in manifest.steps):
        return 0
    pinned_bytes = sum(step.pinned_bytes for step in manifest.steps)
    return max(
        step.peak_bytes
        - step.alone_bytes
        - (pinned_bytes - step.pinned_bytes)
        - step.ahead_bytes
        - manifest.arena_growth_bytes(step)
        for step in manifest.steps
    )


def _live(manifest: Manifest, run: range, index: int, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """Return what must be kept after a step of a run: what its later steps read, inputs included, and the outputs so far."""
    before = [manifest.steps[each] for each in run if each <= index]
    read_later = {name for each in run if each > index for name in manifest.steps[each].inputs}
    held = {*inputs, *(name for step in before for name in step.outputs)}
    made = {name for step in before for name in step.outputs}
    return tuple(sorted((read_later & held) | (made & set(outputs))))
