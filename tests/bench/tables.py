"""Make the tables of ``make bench`` from raw results: ratios first, then seconds, then memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.readings import (
    Batch,
    Compared,
    Comparison,
    Compiled,
    Deployment,
    Imported,
    Predicted,
    Race,
    Raced,
    Storage,
    Timed,
)
from tests.bench.summary import STOCK, bases, cold, peak_bytes, run_s, start_s, warm_ratio, warm_runs, warm_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of text; the first column is names."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(name: str, result: Any) -> list[Grid]:
    """The tables of a part."""
    return list(_MAKERS[name](result))


def latency(races: Sequence[Race]) -> Iterator[Grid]:
    """Warm runs, starts, and what was read, of each race."""
    for race in races:
        label = f"{race.network.upper()}, {'1 thread' if race.threads == 1 else f'{race.threads} threads'}"
        yield warm(race, label)
        yield _starts(race, label)
        yield _reads(race, label)


def warm(race: Race, label: str) -> Grid:
    """Ratios of warm runs and of peaks; seconds; memory."""
    others = bases(race)
    rows = []
    for each in race.contenders:
        ratios = [warm_ratio(each, other).median for _, other in others]
        ratios += [peak_bytes(each) / peak_bytes(other) for _, other in others[:2]]
        sizes = _mb(peak_bytes(each), each.resident.anonymous_bytes, each.resident.file_bytes)
        rows.append((each.label, *_ratios(*ratios), f"{warm_s(each):.3f}", *sizes))
    columns = [f"time / {name}" for name, _ in others] + [f"peak / {name}" for name, _ in others[:2]]
    columns += ["warm s", "peak MB", "anonymous MB", "file MB"]
    count = len(warm_runs(race.contenders[0].race))
    return Grid(title=f"{label}: warm runs, median of {count}", columns=("", *columns), rows=tuple(rows))


def _starts(race: Race, label: str) -> Grid:
    """Opening and the first run, with cold and with cached files."""
    name, first = bases(race)[0]
    rows = []
    for each in race.contenders:
        ratios = (cold(each, start_s) / cold(first, start_s), start_s(each.race) / start_s(first.race))
        seconds = (
            cold(each, lambda process: process.opened.seconds),
            cold(each, lambda process: process.runs[0].seconds),
            each.race.opened.seconds,
            each.race.runs[0].seconds,
        )
        rows.append((each.label, *_ratios(*ratios), *(f"{value:.3f}" for value in seconds)))
    columns = (f"cold / {name}", f"cached / {name}", "cold: open s", "first run s", "cached: open s", "first run s")
    return Grid(title=f"{label}: opening and the first run", columns=("", *columns), rows=tuple(rows))


def _reads(race: Race, label: str) -> Grid:
    """Bytes from storage, and by read calls."""

    def cells(each: Raced) -> Iterable[float]:
        yield cold(each, lambda process: process.opened.storage_bytes)
        yield cold(each, lambda process: process.runs[0].storage_bytes)
        yield statistics.median(run.storage_bytes for run in warm_runs(each.race))
        yield cold(each, lambda process: process.opened.asked_bytes + process.runs[0].asked_bytes)
        yield statistics.median(run.asked_bytes for run in warm_runs(each.race))

    rows = []
    for each in race.contenders:
        opened, first, *rest = cells(each)
        ratios = _ratios((opened + first) / race.model_bytes, rest[-1] / race.model_bytes)
        rows.append((each.label, *ratios, *_mb(opened, first, *rest)))
    columns = (
        "cold start / model",
        "warm by read() / model",
        "storage, cold: opening MB",
        "first run MB",
        "warm run MB",
        "by read(): start MB",
        "warm run MB",
    )
    title = f"{label}: bytes read, of a model of {race.model_bytes / 1e6:.0f} MB"
    return Grid(title=title, columns=("", *columns), rows=tuple(rows))


#: A figure of a bundle next to that of stock onnxruntime.
_Figure = Callable[[Compared, Compared], float]


def networks(result: Sequence[Comparison]) -> Iterator[Grid]:
    """Warm runs, first inferences and peaks: a row for each network and tier, a column for each budget."""
    figures: tuple[tuple[str, _Figure], ...] = (
        ("time of a warm run / stock", lambda each, stock: warm_ratio(each, stock).median),
        ("first inference, opening included / stock", lambda each, stock: _first_s(each) / _first_s(stock)),
        ("peak memory / budget", lambda each, _: _most_bytes(each) / (each.budget_bytes or _most_bytes(each))),
    )
    for threads in sorted({each.threads for each in result}):
        own = [each for each in result if each.threads == threads]
        for title, figure in figures:
            yield _by_budget(own, f"{'1 thread' if threads == 1 else f'{threads} threads'}: {title}", figure)


def _by_budget(result: Sequence[Comparison], title: str, figure: _Figure) -> Grid:
    budgets = sorted({each.budget_bytes for race in result for each in race.contenders if each.budget_bytes})
    rows = []
    for race in result:
        stock = next(each for each in race.contenders if each.label == STOCK)
        for tier in dict.fromkeys(each.label for each in race.contenders if each is not stock):
            found = {each.budget_bytes: figure(each, stock) for each in race.contenders if each.label == tier}
            cells = (f"{found[budget]:.2f}" if budget in found else "-" for budget in budgets)
            rows.append((f"{race.network}, {tier}", *cells, f"{warm_s(stock) * 1e3:.1f}"))
    names = [f"{budget / 1e6:.0f} MB" for budget in budgets[:-1]]
    return Grid(title=title, columns=("", *names, *(["whole fits"] if budgets else []), "stock, warm ms"), rows=tuple(rows))


def _first_s(each: Compared) -> float:
    return statistics.median(map(start_s, each.starts))


def _most_bytes(each: Compared) -> int:
    return max(process.peak_bytes for process in (*each.starts, each.race))


def storage(result: Storage) -> Iterator[Grid]:
    """A run that follows another, on slow storage."""
    rows = []
    medians = []
    for row in result.rows:
        seconds = run_s(row.process)
        nbytes = statistics.median(run.storage_bytes for run in row.process.runs[1:])
        medians.append(seconds)
        ratios = _ratios(medians[0] / seconds, seconds * result.read_bytes_per_s / nbytes)
        cells = (f"{seconds:.1f}", f"{row.process.runs[0].seconds:.1f}", *_mb(nbytes, row.process.peak_bytes))
        rows.append((row.label, *ratios, *cells))
    columns = ("", "times as fast", "time / (bytes / rate)", "s", "first run s", "read MB", "peak MB")
    title = (
        f"VGG16, 1 thread; storage of {result.read_bytes_per_s / 1e6:.0f} MB/s, {result.memory_bytes / 1e6:.0f} MB for all"
    )
    yield Grid(title=title, columns=columns, rows=tuple(rows))


def batch(result: Batch) -> Iterator[Grid]:
    """A batch on slow storage, start-up included."""
    images = len(result.compute_s)
    ratio, seconds = result.seconds / sum(result.compute_s), result.seconds / images
    cells = (f"{ratio:.2f}", f"{seconds:.2f}", str(images), *_mb(result.read_bytes / images, result.peak_bytes))
    columns = ("", "time / computing alone", "s an image", "images", "read MB an image", "peak MB")
    title = (
        f"VGG16, 1 thread; storage of {result.read_bytes_per_s / 1e6:.0f} MB/s, {result.memory_bytes / 1e6:.0f} MB for all"
    )
    yield Grid(title=title, columns=columns, rows=((result.label, *cells),))


def prediction(result: Sequence[Predicted]) -> Iterator[Grid]:
    """Each network under each of its budgets."""
    rows = []
    for row in result:
        ratios = (row.predicted_bytes / row.measured_bytes, row.measured_bytes / row.budget_bytes)
        sizes = _mb(row.budget_bytes, row.predicted_bytes, row.measured_bytes)
        rows.append((row.network, *(f"{ratio:.3f}" for ratio in ratios), *sizes, str(row.partitions)))
    columns = ("", "predicted / measured", "measured / budget", "budget MB", "predicted MB", "measured MB", "partitions")
    yield Grid(title="Peak memory of hyps-run", columns=columns, rows=tuple(rows))


def compilation(result: Sequence[Compiled]) -> Iterator[Grid]:
    """Medians of turns."""
    rows = []
    for row in result:
        excess = statistics.median((turn.compile_s - turn.startup_s) / turn.cp_s for turn in row.turns)
        columns = zip(*((turn.compile_s, turn.cp_s, turn.startup_s) for turn in row.turns), strict=True)
        seconds = (f"{statistics.median(column):.2f}" for column in columns)
        rows.append((row.model, f"{excess:.2f}", *seconds, str(row.pause_s), *_mb(row.peak_bytes, row.model_bytes)))
    names = ("(compile - start-up) / cp", "compile s", "cp s", "start-up s", "pause s", "compiler's peak MB", "model MB")
    yield Grid(title="Compile against cp, medians of turns", columns=("", *names), rows=tuple(rows))


def planning(result: Deployment) -> Iterator[Grid]:
    """From structure, or from a loaded file, to the checked plan."""
    columns = ("", "CPU s per 1,000 operators", "s", "CPU s", "operators", "partitions")
    for title, timed in (
        ("Synthetic networks, ample and small budget", result.synthetic),
        ("Reference networks, the smallest budget of each", result.tightest),
    ):
        yield Grid(title=title, columns=columns, rows=tuple(map(_planned, timed)))


def _planned(row: Timed) -> tuple[str, ...]:
    rate = f"{1000 * row.cpu_s / row.operators:.2f}"
    return row.network, rate, f"{row.wall_s:.2f}", f"{row.cpu_s:.2f}", f"{row.operators:,}", str(row.partitions)


def dependencies(result: Sequence[Imported]) -> Iterator[Grid]:
    """What each import adds."""
    before = 0
    rows = []
    for row in result:
        name = row.name if before else "Python itself"
        rows.append((name, *_mb(row.resident_bytes - before, row.resident_bytes)))
        before = row.resident_bytes
    yield Grid(title="Import after import", columns=("", "adds MB", "resident MB"), rows=tuple(rows))


def _ratios(*ratios: float) -> tuple[str, ...]:
    return tuple(f"{ratio:.2f}" for ratio in ratios)


def _mb(*sizes: float) -> tuple[str, ...]:
    """With a decimal below 100."""
    return tuple(f"{nbytes / 1e6:.{1 if nbytes < 99.95e6 else 0}f}" for nbytes in sizes)


_MAKERS: dict[str, Callable[[Any], Iterator[Grid]]] = {
    made.__name__: made for made in (latency, networks, storage, batch, prediction, compilation, planning, dependencies)
}
