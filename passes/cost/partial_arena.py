"""Choose the steps whose activations are in the arena, if it does not fit next to every step.

The arena's pages are given back after a step that has it before one that has not, so that they cost nothing there. They are
cleared again once for each run of such steps. Without the arena they are cleared for every tensor.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hyps.passes.cost.tiers import arena_region_bytes
from hyps.runtime.bundle.residency import StepMemory

#: Schedules of more steps are not searched: it takes the square of their number.
_MOST_STEPS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialArena:
    """An arena of ``region_bytes`` for some steps, and what it costs each step in memory and time."""

    region_bytes: int
    in_arena: tuple[bool, ...]
    more_bytes: tuple[int, ...]
    more_s: tuple[float, ...]
    saved_s: float


def some_in_arena(
    memories: Sequence[StepMemory],
    live_bytes: Sequence[int],
    fresh_s: Sequence[float],
    is_allowed: Sequence[bool],
    budget_bytes: int,
    fresh_bytes_per_s: float,
) -> PartialArena | None:
    """Return the arena that saves most time, of those that have room next to some steps but not next to all; else None.

    ``live_bytes`` are the most activations of each step at a time, ``fresh_s`` the seconds that it takes without an arena to
    clear pages for them. ``is_allowed`` leaves out steps that make outputs of the model, which others may hold for longer.
    """
    if not 1 < len(memories) <= _MOST_STEPS:
        return None
    found = (
        _with_region(region, memories, live_bytes, fresh_s, is_allowed, budget_bytes, fresh_bytes_per_s, most)
        for most in {*live_bytes}
        if (region := arena_region_bytes(most, len(memories))) is not None
    )
    best = max(found, key=lambda each: (each.saved_s, -each.region_bytes), default=None)
    return best if best and best.saved_s > 0 and not all(best.in_arena) else None


def _with_region(
    region_bytes: int,
    memories: Sequence[StepMemory],
    live_bytes: Sequence[int],
    fresh_s: Sequence[float],
    is_allowed: Sequence[bool],
    budget_bytes: int,
    fresh_bytes_per_s: float,
    most_live_bytes: int,
) -> PartialArena:
    """Return which steps have room for a region, of those whose activations fit into it and where it saves time."""
    fits = [
        allowed and live <= most_live_bytes and memory.alone_bytes + region_bytes - live <= budget_bytes
        for memory, live, allowed in zip(memories, live_bytes, is_allowed, strict=True)
    ]
    clearing_s = region_bytes / fresh_bytes_per_s
    in_arena, more_s, saved_s = [False] * len(fits), [0.0] * len(fits), 0.0
    for fit, run in itertools.groupby(range(len(fits)), key=fits.__getitem__):
        indices = [*run]
        gain_s = sum(fresh_s[index] for index in indices) - clearing_s
        if fit and gain_s > 0:
            for index in indices:
                in_arena[index] = True
            more_s[indices[0]] = clearing_s
            saved_s += gain_s
    more = [region_bytes - live if inside else 0 for live, inside in zip(live_bytes, in_arena, strict=True)]
    return PartialArena(
        region_bytes=region_bytes,
        in_arena=tuple(in_arena),
        more_bytes=tuple(more),
        more_s=tuple(more_s),
        saved_s=saved_s,
    )
