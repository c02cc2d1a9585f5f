"""Find the size of arena that holds the activations of a tuned schedule, whose layout is not that of the compiled one.

The only way to know is to run the schedule: see `hyps.passes.cost.arena_layout` on why a larger arena may be too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.records.steps import ActivationsRecord
from hyps.runtime.bundle.records.tuned import TunedRecord
from hyps.runtime.bundle.tuned_steps import with_tuned_steps
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.execution.executor import Executor
from hyps.runtime.execution.session import open_session
from hyps.runtime.tuning.check import fixed_values

#: The sizes to try, as multiples of the compiled schedule's arena.
_FACTORS = (1.0, 1.04, 1.08, 1.12, 1.16, 1.2, 1.3, 1.5)
_PAGE = 4096


def with_fitting_arena(
    folder: Path, manifest: Manifest, record: Callable[[Manifest], TunedRecord], custom_ops: Path | None
) -> Manifest:
    """Return the manifest with a tuned schedule, and with the first arena in which that runs and which has room.

    ``record`` makes the schedule for an arena. Where no arena holds it, the given one stays: the schedule gives it up.
    """
    given = msgspec.structs.replace(manifest, tuned=record(manifest))
    for arena in _arenas(manifest):
        tuned = record(msgspec.structs.replace(manifest, activations=arena))
        if arena != manifest.activations:
            tuned = msgspec.structs.replace(tuned, activations=arena)
        found = msgspec.structs.replace(manifest, tuned=tuned)
        if max(step.peak_bytes for step in with_tuned_steps(found).steps) > manifest.budget_bytes:
            break
        if _holds_activations(folder, with_tuned_steps(found), custom_ops):
            return found
    return given


def _arenas(manifest: Manifest) -> Iterator[ActivationsRecord]:
    """Yield arenas to try; none for a schedule without."""
    if given := manifest.activations:
        for factor in _FACTORS:
            nbytes = -(-int(given.region_bytes * factor) // _PAGE) * _PAGE
            yield msgspec.structs.replace(given, region_bytes=nbytes)


def _holds_activations(folder: Path, manifest: Manifest, custom_ops: Path | None) -> bool:
    """Run a schedule; return whether its arena held the activations. No more stays in memory than one step needs."""
    steps = tuple(
        msgspec.structs.replace(
            step, pinned_bytes=0, ahead_bytes=0, session=msgspec.structs.replace(step.session, stays_open=False)
        )
        for step in manifest.steps
    )
    opener = partial(open_session, custom_ops=custom_ops) if custom_ops else None
    alone = msgspec.structs.replace(manifest, steps=steps)
    executor = Executor(folder, alone, threads=1, opener=opener, verify=False)
    try:
        for _ in range(2):
            executor.run({name: fixed_values(manifest, name) for name in manifest.inputs})
    except (RuntimeFault, TypeError):  # an operator or numpy refuses these values: nothing is known then
        return True
    finally:
        executor.close()
    return not executor.outgrew_arena
