"""A process that takes less than predicted keeps more in memory, and no step more than the plan gives it and the spare."""

from __future__ import annotations

import random

import msgspec
import pytest

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.bundle.spare_memory import LEAST_BYTES, SPARED_MARGIN_BYTES, enlarged_steps, spare_bytes

MB = 1_000_000


def streaming(manifest: Manifest, weights_mb: list[int], peaks_mb: list[int]) -> Manifest:
    """Return a manifest with a step for each size of its weights, all of them streamed, nothing read ahead."""
    template = next(step for step in manifest.steps if step.weights)
    assert template.weights
    steps = tuple(
        msgspec.structs.replace(
            template,
            weights=msgspec.structs.replace(template.weights, size_bytes=size * MB),
            peak_bytes=peak * MB,
            pinned_bytes=0,
            ahead_bytes=0,
            session=msgspec.structs.replace(template.session, stays_open=False, group=""),
        )
        for size, peak in zip(weights_mb, peaks_mb, strict=True)
    )
    return msgspec.structs.replace(manifest, steps=steps, huge_pages=False)


@pytest.mark.parametrize("seed", range(30))
def test_no_step_takes_more_than_the_plan_and_the_spare(seed: int, manifest: Manifest) -> None:
    draw = random.Random(seed)
    count, spare = draw.randint(2, 8), draw.randint(1, 20) * MB
    weights, peaks = [draw.randint(1, 15) for _ in range(count)], [draw.randint(66, 72) for _ in range(count)]
    found = enlarged_steps(streaming(manifest, weights, peaks), spare)
    pinned = sum(step.pinned_bytes for step in found)
    for step in found:
        assert pinned - step.pinned_bytes + step.ahead_bytes <= spare
        assert step.peak_bytes <= max(peaks) * MB + spare


def test_sessions_stay_open_first(manifest: Manifest) -> None:
    plan = streaming(manifest, [10, 10], [72, 72])
    assert not any(step.session.stays_open for step in plan.steps)
    assert all(step.session.stays_open for step in enlarged_steps(plan, 20 * MB))


def test_all_that_fits_is_pinned(manifest: Manifest) -> None:
    found = enlarged_steps(streaming(manifest, [3, 4], [72, 72]), 20 * MB)
    assert [step.streamed_bytes for step in found] == [0, 0]


@pytest.mark.parametrize(("peak_mb", "spare"), [(72, 0), (71, 0), (66, 72 * MB - 66 * MB - SPARED_MARGIN_BYTES), (80, 0)])
def test_what_is_spared(manifest: Manifest, peak_mb: int, spare: int) -> None:
    assert spare_bytes(streaming(manifest, [3, 4], [72, 70]), peak_mb * MB) == spare
    assert LEAST_BYTES < MB
