"""Adapt a bundle's schedule to a batch: weights are read once for all inputs, which wait in memory between two steps.

This is Algorithm 3 of Kaboubi, section 3.3.1.3. `hyps.runtime.execution.batch` runs the schedule; inputs for which there is
no room wait in a file.
"""

from __future__ import annotations

import msgspec

from hyps.runtime.bundle.manifest import Manifest, Step
from hyps.runtime.bundle.residency import read_ahead

#: The memory that a waiting set of tensors costs besides the tensors, wherever they are (measured: 0.3 KB).
TENSOR_SET_BYTES = 512
#: A batch of this many inputs is never refused.
_FEW_INPUTS = 64
#: The part of the budget that stays free: a batch would fill every byte, and a process's size varies from run to run.
_MARGIN_BYTES = 3_000_000


def most_inputs(manifest: Manifest) -> int:
    """Return how many inputs a batch may have: more would not fit even if all their tensors were in the file.

    64 are always allowed: they take 32 KB, less than a process's size varies by.
    """
    room_bytes = manifest.budget_bytes - max(step.alone_bytes for step in manifest.steps)
    return max(_FEW_INPUTS, room_bytes // TENSOR_SET_BYTES)


def batch_manifest(manifest: Manifest, count: int) -> Manifest:
    """Return the schedule for a batch of ``count`` inputs: nothing is pinned, and the next step's weights are read ahead.

    Waiting tensors take the place of the arena.

    A manifest whose weights all stay in memory is returned as it is.
    """
    if not manifest.streams_weights:
        return manifest
    nothing = [0] * len(manifest.steps)
    ahead = read_ahead(
        [step.weights_file_bytes for step in manifest.steps],
        [step.alone_bytes for step in manifest.steps],
        nothing,
        manifest.budget_bytes - TENSOR_SET_BYTES * count - _MARGIN_BYTES,
        repeats=False,
        unit_bytes=1,
    )
    steps = (
        msgspec.structs.replace(
            step,
            pinned_bytes=0,
            ahead_bytes=ahead_bytes,
            session=msgspec.structs.replace(step.session, stays_open=False, tier=msgspec.UNSET),
            peak_bytes=manifest.budget_bytes,
        )
        for step, ahead_bytes in zip(manifest.steps, ahead, strict=True)
    )
    return msgspec.structs.replace(manifest, steps=tuple(steps), huge_pages=False, activations=msgspec.UNSET)


def waiting_room_bytes(manifest: Manifest, step: Step) -> int:
    """Return the memory that the tensors of other inputs may take while ``step`` runs on one; not positive if none."""
    leaving_bytes = sum(manifest.tensors[name].nbytes for name in step.live)
    copying_bytes = max(0, 2 * leaving_bytes - step.activation_bytes)
    return manifest.budget_bytes - step.alone_bytes - step.ahead_bytes - copying_bytes - _MARGIN_BYTES
