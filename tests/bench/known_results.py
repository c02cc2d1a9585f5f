"""Results with known numbers, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.readings import Machine, Part, Predicted, Process, Race, Raced, Reading, Resident, Result
from tests.bench.summary import DEFAULT, LEAN, MAPPED

MB = 10**6
HERE = Machine(
    processor="An Ordinary Processor",
    architecture="x86_64",
    cores=4,
    memory_bytes=8 * 10**9,
    storage="ext4 on sda (solid state)",
    kernel="Linux 6",
    python="3.12.1",
    onnxruntime="1.31.1",
    numpy="2.4.6",
    hyps="0.1.0",
)


def part(
    result: Result | None,
    *,
    commit: str = "abc123",
    when: str = "2026-11-01 10:00 UTC",
    machine: Machine = HERE,
    skipped: str | None = None,
) -> Part[Result]:
    """A part that took a minute."""
    return Part(when=when, commit=commit, machine=machine, load_average=0.25, seconds=60, result=result, skipped=skipped)


def reading(seconds: float, peak_mb: float = 100, storage_mb: float = 0, asked_mb: float = 0) -> Reading:
    return Reading(
        seconds=seconds,
        storage_bytes=int(storage_mb * MB),
        asked_bytes=int(asked_mb * MB),
        peak_bytes=int(peak_mb * MB),
    )


def raced(label: str, seconds: Sequence[float], *, peaks_mb: Sequence[float], budget_mb: int | None = None) -> Raced:
    """In the race with these seconds, the first run's first; a process with cold files for every peak but the last.

    A cold process opens in 2 s and runs first in 1 s, reading 10 and 80 MB; in the race opening takes half a second.
    """
    *cold, racing = peaks_mb
    return Raced(
        label=label,
        mode="bundle" if budget_mb else "default",
        budget_bytes=budget_mb * MB if budget_mb else None,
        resident=Resident(anonymous_bytes=int(racing * 0.75 * MB), file_bytes=int(racing * 0.25 * MB), samples=100),
        cold=tuple(
            Process(opened=reading(2, peak, 10, 11), runs=(reading(1, peak, 80, 81), reading(0.5, peak))) for peak in cold
        ),
        race=Process(opened=reading(0.5, racing), runs=tuple(reading(each, racing, 0, 40) for each in seconds)),
    )


def race(threads: int = 1) -> Race:
    """Rounds whose speeds differ widely: medians of ratios are not ratios of medians."""
    return Race(
        network="vgg16",
        threads=threads,
        model_bytes=100 * MB,
        contenders=(
            raced(DEFAULT, (9, 1, 10, 10), peaks_mb=(1000, 1000, 1400)),
            raced(MAPPED, (9, 2, 5, 8), peaks_mb=(500, 500, 500)),
            raced(LEAN, (9, 2, 5, 8), peaks_mb=(480, 480, 480)),
            raced("bundle, 96 MB", (7, 4, 8, 10), peaks_mb=(90, 95, 91), budget_mb=96),
            raced("bundle, 128 MB", (7, 3, 5, 20), peaks_mb=(120, 129, 110), budget_mb=128),
        ),
    )


def predicted(network: str, excess: float) -> Predicted:
    """For 100 MB, of which 90 were needed."""
    return Predicted(
        network=network,
        budget_bytes=100 * MB,
        partitions=3,
        predicted_bytes=round(90 * MB * (1 + excess)),
        measured_bytes=90 * MB,
    )
