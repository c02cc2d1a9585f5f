"""Keep the memory of activations for the next step and the next inference, in an arena of onnxruntime's environment.

Without an arena every activation takes fresh pages, which the kernel clears first, and gives them back at once: half of the
time of MobileNetV2. onnxruntime's own arenas grow by powers of two, without a bound. This one is a single region of a fixed
size, in which free memory is joined again. It takes no page before it is written to. Memory that is prepacked is counted as
the arena's, so the region must be there before. An activation that does not fit raises `ActivationArenaFull`.

Where steps without the arena follow, they have no room for its pages: its free places are given back to the kernel before.
Nothing but tensors between steps is in it then: sessions hold their weights elsewhere.

onnxruntime's environment belongs to the process, so that a process has one such arena at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from hyps.runtime.bundle.manifest import ActivationsRecord
from hyps.runtime.device.process_memory import give_back_pages

#: See `hyps.runtime.execution.interface.OrtInterface`.
RegisterArena = Callable[[ActivationsRecord], int]

#: The size of an arena that no session uses: onnxruntime replaces arenas, but keeps the last.
_NOTHING = ActivationsRecord(region_bytes=4096)
#: The owner of the process's arena, where it is claimed.
_claimed: list[weakref.ref[object]] = []


class ActivationArena:
    """The process's arena for the activations of one ``owner``, until `close`, or until nothing refers to the owner."""

    def __init__(self, owner: object, record: ActivationsRecord, register: RegisterArena) -> None:
        self._record, self._register = record, register
        _claimed[:] = [weakref.ref(owner)]
        self._close = weakref.finalize(owner, _give_up, weakref.ref(owner), register)
        self._address = register(record)

    def give_back(self, places: Iterable[tuple[int, int]]) -> None:
        """Give its pages back to the kernel, but for those of the tensors that begin and end at these ``places``."""
        first, nbytes = self._address, self._record.region_bytes
        kept = [(start - first, stop - first) for start, stop in places if first <= start < first + nbytes]
        end = 0
        for start, stop in (*sorted(kept), (nbytes, nbytes)):
            if end < start:
                give_back_pages(first + end, first + start)
            end = max(end, stop)

    def renew(self) -> None:
        """Let sessions opened from now on use an arena without pages; the older one's are given back with its sessions."""
        self._address = self._register(self._record)

    def close(self) -> None:
        """Give the arena up; its memory is given back when the last session that uses it is closed."""
        self._close()


def claim_arena(owner: object, record: ActivationsRecord, register: RegisterArena) -> ActivationArena | None:
    """Return the process's arena for the sessions of ``owner``; None while another owner has it."""
    return None if any(claim() is not None for claim in _claimed) else ActivationArena(owner, record, register)


def _give_up(owner: weakref.ref[object], register: RegisterArena) -> None:
    if owner in _claimed:
        _claimed.clear()
        register(_NOTHING)
