"""Count the memory of a schedule besides weights and tensors: the manifest, and the objects that hold tensors.

A few steps with a few tensors are part of what the process takes. Hundreds of shards are not.
"""

from __future__ import annotations

from hyps.passes.calibration import calibrated_bytes

#: What a step's entry of the manifest takes, with the objects that stand for its files.
STEP_BYTES = calibrated_bytes("step_bytes")
#: What a step's entry takes for the name of one more tensor.
NAME_BYTES = calibrated_bytes("name_bytes")
#: What a tensor takes besides its elements while it is held between steps and read by a session.
TENSOR_BYTES = calibrated_bytes("tensor_bytes")
#: The part of all this that the process's own bytes include.
COUNTED_BYTES = calibrated_bytes("counted_schedule_bytes")


def schedule_bytes(*, steps: int, names: int, held: int) -> int:
    """Return the bytes of a schedule while ``held`` tensors are in memory, less those that the process's own bytes include.

    ``names`` is how often its steps name a tensor.
    """
    return max(0, steps * STEP_BYTES + names * NAME_BYTES + held * TENSOR_BYTES - COUNTED_BYTES)
