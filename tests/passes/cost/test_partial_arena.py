"""Steps with room for the arena of activations have it where that saves time, next to steps that have none."""

from __future__ import annotations

from hyps.passes.cost.partial_arena import some_in_arena
from hyps.passes.cost.tiers import arena_region_bytes
from hyps.runtime.bundle.residency import StepMemory

MB = 1_000_000
RATE = 1e9


def memories(*alone_mb: int) -> list[StepMemory]:
    return [StepMemory(alone_bytes=each * MB, weights_bytes=0) for each in alone_mb]


def test_steps_with_room_have_it() -> None:
    found = some_in_arena(memories(60, 60, 71), [4 * MB, 4 * MB, MB], [0.1, 0.1, 0.1], [True] * 3, 72 * MB, RATE)
    assert found
    assert found.in_arena == (True, True, False)
    assert found.region_bytes == arena_region_bytes(4 * MB, 3)
    assert found.more_bytes == (found.region_bytes - 4 * MB, found.region_bytes - 4 * MB, 0)
    assert found.more_s == (found.region_bytes / RATE, 0.0, 0.0)  # cleared once
    assert all(each.alone_bytes + more <= 72 * MB for each, more in zip(memories(60, 60, 71), found.more_bytes, strict=True))


def test_none_where_clearing_it_takes_as_long() -> None:
    assert some_in_arena(memories(60, 71), [4 * MB, MB], [0.001, 0.1], [True] * 2, 72 * MB, RATE) is None


def test_a_step_that_makes_an_output_of_the_model_has_none() -> None:
    found = some_in_arena(memories(60, 60, 71), [4 * MB, 4 * MB, MB], [0.1, 0.1, 0.1], [True, False, True], 72 * MB, RATE)
    assert found
    assert found.in_arena == (True, False, False)
