"""Test the tables that ``make bench`` makes of raw readings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.known_results import MB, predicted, race, raced, reading
from tests.bench.readings import (
    Batch,
    Compared,
    Comparison,
    Compiled,
    Deployment,
    Imported,
    Process,
    Slow,
    Storage,
    Timed,
    Turn,
)
from tests.bench.summary import DEFAULT, MAPPED, STOCK
from tests.bench.tables import Grid, grids


def cell(grid: Grid, row: str, column: str) -> str:
    """What stands there; of columns of one name the first."""
    (found,) = [cells for cells in grid.rows if cells[0] == row]
    return found[grid.columns.index(column)]


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    """Not the ratio of the medians, which is 0.5 and 1 here; the first run counts for nothing."""
    warm, _, _ = grids("latency", [race()])
    assert cell(warm, "bundle, 128 MB", "time / default") == "2.00"  # of 3, 0.5, 2
    assert cell(warm, "bundle, 128 MB", "time / mapped") == "1.50"  # of 1.5, 1, 2.5
    assert cell(warm, DEFAULT, "time / default") == "1.00"
    assert cell(warm, "bundle, 128 MB", "warm s") == "5.000"


def test_ratios_stand_behind_the_name_then_seconds_then_memory() -> None:
    for grid in grids("latency", [race()]):
        kinds = [0 if " / " in name else 1 if name.endswith(" s") else 2 for name in grid.columns[1:]]
        assert kinds == sorted(kinds)
        assert kinds[0] == 0
        assert {len(row) for row in grid.rows} == {len(grid.columns)}


def test_peaks_are_medians_of_processes_with_their_parts() -> None:
    warm, _, _ = grids("latency", [race()])
    assert cell(warm, "bundle, 128 MB", "peak MB") == "120"
    assert cell(warm, "bundle, 128 MB", "peak / default") == "0.12"
    assert cell(warm, "bundle, 128 MB", "peak / mapped") == "0.24"
    assert cell(warm, MAPPED, "anonymous MB") == "375"
    assert cell(warm, MAPPED, "file MB") == "125"


def test_starts_cold_and_cached() -> None:
    _, starts, _ = grids("latency", [race()])
    assert cell(starts, "bundle, 96 MB", "cold / default") == "1.00"
    assert cell(starts, "bundle, 96 MB", "cached / default") == f"{7.5 / 9.5:.2f}"
    assert cell(starts, "bundle, 96 MB", "cold: open s") == "2.000"
    assert cell(starts, "bundle, 96 MB", "first run s") == "1.000"


def test_bytes_read_from_storage_and_by_calls() -> None:
    _, _, reads = grids("latency", [race()])
    assert cell(reads, "bundle, 96 MB", "cold start / model") == "0.90"
    assert cell(reads, "bundle, 96 MB", "warm by read() / model") == "0.40"
    assert cell(reads, "bundle, 96 MB", "storage, cold: opening MB") == "10.0"
    assert cell(reads, "bundle, 96 MB", "by read(): start MB") == "92.0"


def test_every_race_has_its_tables() -> None:
    titles = [grid.title for grid in grids("latency", [race(), race(threads=4)])]
    assert len(titles) == 6
    assert [title.startswith("VGG16, 4 threads: ") for title in titles] == [False] * 3 + [True] * 3


def test_a_race_without_a_default_compares_with_what_there_is() -> None:
    warm, starts, _ = grids("latency", [replace(race(), contenders=race().contenders[1:])])
    assert warm.columns[1] == "time / mapped"
    assert starts.columns[1] == "cold / mapped"


def test_networks_by_budget_against_stock() -> None:
    def compared(label: str, budget_mb: int | None, first_s: float, seconds: tuple[float, ...], peak_mb: float) -> Compared:
        starts = (Process(opened=reading(1, peak_mb), runs=(reading(first_s, peak_mb),)),)
        race = Process(opened=reading(1, peak_mb), runs=tuple(reading(each, peak_mb) for each in seconds))
        return Compared(label=label, budget_bytes=budget_mb * MB if budget_mb else None, starts=starts, race=race)

    contenders = (
        compared(STOCK, None, 1, (9, 1, 10), 300),
        compared("bundle", 72, 2, (9, 3, 15), 36),
        compared("bundle", 2000, 0, (9, 1, 10), 200),
        compared("tuned", 2000, 0, (9, 1, 9), 200),
    )
    result = [Comparison(network="net", threads=2, model_bytes=MB, contenders=contenders)]
    warm, first, peak = grids("networks", result)
    assert warm.columns == ("", "72 MB", "whole fits", "stock, warm ms")
    assert warm.rows == (("net, bundle", "2.25", "1.00", "5500.0"), ("net, tuned", "-", "0.95", "5500.0"))
    assert [row[1:3] for row in first.rows] == [("1.50", "0.50"), ("-", "0.50")]
    assert [row[1:3] for row in peak.rows] == [("0.50", "0.10"), ("-", "0.10")]
    assert [grid.title.startswith("2 threads: ") for grid in (warm, first, peak)] == [True] * 3


def test_slow_storage_leaves_the_first_run_apart() -> None:
    def slow(label: str, seconds: float, storage_mb: float) -> Slow:
        runs = (reading(99, storage_mb=500), *[reading(seconds, storage_mb=storage_mb)] * 3)
        return Slow(label=label, process=Process(opened=reading(1), runs=runs))

    rows = (slow("whole", 10, 500), slow("bundle", 5, 200))
    (grid,) = grids("storage", Storage(read_bytes_per_s=50 * MB, memory_bytes=300 * MB, rows=rows))
    assert cell(grid, "bundle", "times as fast") == "2.00"
    assert cell(grid, "bundle", "time / (bytes / rate)") == "1.25"
    assert cell(grid, "whole", "first run s") == "99.0"


def test_a_batch_is_told_by_image() -> None:
    batch = Batch(
        label="bundle",
        read_bytes_per_s=300 * MB,
        memory_bytes=300 * MB,
        seconds=12,
        compute_s=(2.0, 3.0, 3.0),
        read_bytes=600 * MB,
        peak_bytes=120 * MB,
    )
    (grid,) = grids("batch", batch)
    assert grid.rows == (("bundle", "1.50", "4.00", "3", "200", "120"),)


def test_predictions_beside_budgets() -> None:
    (grid,) = grids("prediction", [predicted("net", 0.1)])
    assert grid.rows == (("net", "1.100", "0.900", "100", "99.0", "90.0", "3"),)


def test_compiling_is_compared_turn_by_turn() -> None:
    turns = tuple(Turn(startup_s=1, cp_s=cp, compile_s=taken) for cp, taken in ((1, 4), (4, 5), (2, 11)))
    row = Compiled(model="net", model_bytes=500 * MB, pause_s=4, turns=turns, peak_bytes=80 * MB)
    (grid,) = grids("compilation", [row])
    assert grid.rows == (("net", "3.00", "5.00", "2.00", "1.00", "4", "80.0", "500"),)  # of 3, 1, 5


def test_planning_by_the_thousand_operators() -> None:
    timed = Timed(network="net", operators=20_000, partitions=7, wall_s=5, cpu_s=4)
    synthetic, tightest = grids("planning", Deployment(synthetic=(timed,), tightest=()))
    assert synthetic.rows == (("net", "0.20", "5.00", "4.00", "20,000", "7"),)
    assert tightest.rows == ()


def test_libraries_add_to_each_other() -> None:
    rows = [Imported(name=name, resident_bytes=size * MB) for name, size in (("start", 13), ("numpy", 30))]
    (grid,) = grids("dependencies", rows)
    assert grid.rows == (("Python itself", "13.0", "13.0"), ("numpy", "17.0", "30.0"))


@pytest.mark.parametrize("peaks_mb", [(90, 96), (90, 90)])
def test_single_readings_are_enough(peaks_mb: tuple[int, int]) -> None:
    one = raced(DEFAULT, (3, 1), peaks_mb=peaks_mb)
    warm, _, _ = grids("latency", [replace(race(), contenders=(one,))])
    assert cell(warm, DEFAULT, "time / default") == "1.00"
