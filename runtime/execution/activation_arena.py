"""Keep the memory of activations for the next step and the next inference, in an arena of onnxruntime's environment.

Without an arena every activation takes fresh pages, which the kernel clears first, and gives them back at once: half of the
time of MobileNetV2. onnxruntime's own arenas grow by powers of two, without a bound. This one is a single region of a fixed
size, in which free memory is joined again. An activation that does not fit raises `ActivationArenaFull`.

onnxruntime's environment belongs to the process, so that a process has one such arena at a time.
"""

from __future__ import annotations

import weakref

import numpy as np
import onnxruntime as ort

from hyps.runtime.bundle.manifest import ActivationsRecord
from hyps.runtime.execution.session import identity_session

_NEXT_POWER_OF_TWO = 0
#: The size of an arena that no session uses: onnxruntime replaces arenas, but keeps the last.
_NOTHING = ActivationsRecord(region_bytes=4096)
#: The owner of the process's arena, where it is claimed.
_claimed: list[weakref.ref[object]] = []


class ActivationArena:
    """The process's arena for the activations of one ``owner``, until `close`, or until nothing refers to the owner."""

    def __init__(self, owner: object, record: ActivationsRecord) -> None:
        self._record = record
        _claimed[:] = [weakref.ref(owner)]
        self._close = weakref.finalize(owner, _give_up, weakref.ref(owner))
        _register(record)

    def renew(self) -> None:
        """Let sessions opened from now on use an arena without pages; the older one's are given back with its sessions."""
        _register(self._record)

    def close(self) -> None:
        """Give the arena up; its memory is given back when the last session that uses it is closed."""
        self._close()


def claim_arena(owner: object, record: ActivationsRecord) -> ActivationArena | None:
    """Return the process's arena for the sessions of ``owner``; None while another owner has it."""
    return None if any(claim() is not None for claim in _claimed) else ActivationArena(owner, record)


def _give_up(owner: weakref.ref[object]) -> None:
    if owner in _claimed:
        _claimed.clear()
        _register(_NOTHING)


def _register(record: ActivationsRecord) -> None:
    """Make an arena the one that sessions opened from now on share, and have it take its region.

    A region takes no page before it is written to. Memory that is prepacked is counted as the arena's, so the region must be
    there before.
    """
    information = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {
        "max_mem": record.region_bytes + record.packed_bytes,
        "arena_extend_strategy": _NEXT_POWER_OF_TWO,
        "initial_chunk_size_bytes": record.region_bytes,
        "max_dead_bytes_per_chunk": 1,  # split a free block wherever it is larger than what is asked for
    }
    ort.create_and_register_allocator(information, ort.OrtArenaCfg(settings))
    identity_session(arena=True).run(None, {"x": np.zeros(1, np.float32)})
