"""Choose between the two schedules of a tuned bundle: that of its processor, and the one that runs everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hyps.runtime.bundle.manifest import Manifest, Step, TunedRecord, TunedStep
from hyps.runtime.errors import BundleError


def untuned(manifest: Manifest) -> Manifest:
    """Return the schedule that runs on every processor, without what a tuned bundle adds to it."""
    return msgspec.structs.replace(manifest, tuned=msgspec.UNSET) if manifest.tuned else manifest


def tuned(manifest: Manifest, machine: str, features: Sequence[str], onnxruntime: str) -> Manifest:
    """Return the schedule with the tuned partitions in their places; unchanged for a bundle that is not tuned.

    The arguments say what it runs on. Raises `BundleError` where that is not what it was tuned for: onnxruntime would take
    a layout of another processor for this one's without an error, and the numbers would be wrong.
    """
    if manifest.tuned and (problem := _misfit(manifest.tuned, machine, features, onnxruntime)):
        remedy = "tune the bundle again with 'hyps-run tune', or run it as it was compiled with --untuned"
        raise BundleError(f"the bundle was tuned {problem}", remedy)
    return with_tuned_steps(manifest)


def with_tuned_steps(manifest: Manifest) -> Manifest:
    """Return a bundle's schedule with its tuned partitions, whatever processor this is. It promises no exact bits."""
    if not manifest.tuned:
        return manifest
    record = manifest.tuned
    steps = tuple(_tuned_step(step, each) for step, each in zip(manifest.steps, record.steps, strict=True))
    return msgspec.structs.replace(
        manifest,
        steps=steps,
        huge_pages=record.huge_pages,
        activations=record.activations or manifest.activations,
        exact=False,
        tuned=msgspec.UNSET,
    )


def _misfit(record: TunedRecord, machine: str, features: Sequence[str], onnxruntime: str) -> str | None:
    """Return what tuned partitions were made for, where it is not this; else None."""
    if record.onnxruntime != onnxruntime:
        return f"with onnxruntime {record.onnxruntime}, and this is {onnxruntime}"
    if record.machine != machine:
        return f"on {record.machine}, and this is {machine}"
    if record.features != tuple(features):
        return f"on another processor than this one; they differ in {' '.join(sorted({*record.features} ^ {*features}))}"
    return None


def _tuned_step(step: Step, tuned: TunedStep) -> Step:
    """Return a step of the tuned schedule. onnxruntime must not change a tuned partition any more."""
    session = msgspec.structs.replace(step.session, stays_open=tuned.stays_open)
    placed = msgspec.structs.replace(
        step,
        alone_bytes=tuned.alone_bytes,
        peak_bytes=tuned.peak_bytes,
        pinned_bytes=tuned.pinned_bytes,
        ahead_bytes=tuned.ahead_bytes,
        session=session,
    )
    if tuned.partition is None:
        return placed
    return msgspec.structs.replace(
        placed,
        model=tuned.partition.model,
        weights=tuned.partition.weights,
        session=msgspec.structs.replace(session, is_optimizable=False),
    )
