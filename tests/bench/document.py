"""``docs/benchmarks.md`` and the README's own lines, from raw results alone: the same results give the same text."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.readings import Machine, Part, Predicted, Race, Results, Storage
from tests.bench.summary import DEFAULT, MAPPED, STOCK, find, kept, peak_bytes, run_s, warm_ratio
from tests.bench.tables import Grid, grids
from tests.bench.words import HEAD, HIGHLIGHT, README_ROWS, README_TAIL, README_TUNED, SECTIONS, TUNED

#: The README's lines that are written here stand between these.
README_MARKS = ("<!-- make bench writes the lines from here -->\n", "<!-- to here -->\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A plot of the page."""

    name: str
    alt: str


#: Plots by the part that they show.
PICTURES = {
    "latency": (
        Picture(name="memory", alt="Peak memory of each contender, anonymous and file-backed, and the budgets"),
        Picture(name="latency", alt="Time of warm runs of each contender, as a ratio"),
        Picture(name="tradeoff", alt="Time of warm runs over peak memory"),
    ),
    "prediction": (Picture(name="prediction", alt="Predicted against measured peak memory"),),
}


def page(results: Results) -> str:
    """The whole page."""
    parts = {name: part for name in SECTIONS if (part := getattr(results, name)) is not None}
    machines = list(dict.fromkeys(part.machine for part in parts.values()))
    blocks = [HEAD.format(parts=", ".join(f"`{name}`" for name in SECTIONS)).strip()]
    if machines:
        blocks += ["## Machine", _provenance(parts), markdown(_described(machines[0]), numbers="---")]
    blocks += ["## In short", *_short(results)]
    for name, (title, text) in SECTIONS.items():
        blocks += [f"## {title}", *_section(name, parts.get(name), machines), text.strip()]
        if name in parts and parts[name].result is not None:
            blocks += [f"![{each.alt}](benchmarks/{each.name}.svg)" for each in PICTURES.get(name, ())]
            blocks += [f"**{grid.title}**\n\n{markdown(grid)}" for grid in grids(name, parts[name].result)]
    return "\n\n".join(blocks) + "\n"


def readme(text: str, results: Results) -> str:
    """The README with its lines about these results; unchanged where there is no race of one thread."""
    start, end = README_MARKS
    race = _race(results)
    if race is None or results.latency is None or start not in text:
        return text
    made_on = results.latency.machine
    machine = f"{_cores(made_on)}, {made_on.memory_bytes / 1e9:.0f} GB, onnxruntime {made_on.onnxruntime}"
    tail = README_TAIL.format(when=results.latency.when[:10], machine=machine)
    blocks = [markdown(_readme_grid(race)), *_tuned(results), _filled(tail)]
    before, rest = text.split(start)
    return before + start + "\n" + "\n\n".join(blocks) + "\n\n" + end + rest.split(end)[1]


def _readme_grid(race: Race) -> Grid:
    """Peak memory and time of the README's contenders; ratios to onnxruntime as it comes."""
    first = find(race, DEFAULT)
    rows = []
    for label, name in README_ROWS.items():
        each = find(race, label)
        if each and first:
            memory = f"{peak_bytes(each) / 1e6:.0f} MB ({peak_bytes(each) / peak_bytes(first):.2f})"
            rows.append((name, memory, f"{run_s(each.race):.2f} s ({warm_ratio(each, first).median:.2f})"))
    columns = ("VGG16, 553 MB of weights", "peak memory (ratio)", "one inference (ratio)")
    return Grid(title="", columns=columns, rows=tuple(rows))


def _tuned(results: Results) -> list[str]:
    """What tuning changes, from the comparison of networks; nothing where that was not made."""
    compared = results.networks.result or () if results.networks else ()
    vgg16 = next((each for each in compared if (each.network, each.threads) == ("vgg16", 1)), None)
    if vgg16 is None:
        return []
    stock = next(each for each in vgg16.contenders if each.label == STOCK)
    ratios = {
        each.budget_bytes: f"{warm_ratio(each, stock).median:.2f}"
        for each in vgg16.contenders
        if each.label == TUNED and each.budget_bytes in (128_000_000, 72_000_000)
    }
    return [_filled(README_TUNED.format(*ratios.values()))] if len(ratios) == 2 else []


def _section(name: str, part: Part[Any] | None, machines: Sequence[Machine]) -> list[str]:
    """When and where a part was measured, or why not."""
    if part is None:
        return [f"Not measured yet: `make bench ONLY={name}`."]
    elsewhere = "" if part.machine == machines[0] else f" **Another machine:** {_in_words(part.machine)}."
    if part.skipped is not None:
        return [f"**Skipped** ({part.when}, commit {part.commit}): {part.skipped}.{elsewhere}"]
    before = f"load average before: {part.load_average:.2f}"
    return [f"Measured {part.when} at commit {part.commit}, in {part.seconds:.0f} s; {before}.{elsewhere}"]


def _provenance(parts: dict[str, Part[Any]]) -> str:
    """One state of the source and one machine, or that there are several."""
    days = sorted({part.when[:10] for part in parts.values()})
    commits = list(dict.fromkeys(part.commit for part in parts.values()))
    count = len({part.machine for part in parts.values()})
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    if len(commits) == 1 and count == 1 and len(days) == 1:
        return f"Everything below was measured {when}, at commit {commits[0]}, on this machine:"
    which = "on one machine" if count == 1 else f"on {count} machines, of which this is one"
    return (
        f"**Not of one state:** measured {when}, at {len(commits)} commit{'s' * (len(commits) > 1)} "
        f"({', '.join(commits)}), {which}; every section says its own. Compare within a section."
    )


def _described(machine: Machine) -> Grid:
    rows = (
        ("processor", machine.processor),
        ("cores", str(machine.cores)),
        ("architecture", machine.architecture),
        ("memory", f"{machine.memory_bytes / 1e9:.1f} GB"),
        ("storage of the benchmark's files", machine.storage),
        ("kernel", machine.kernel),
        ("Python", machine.python),
        ("onnxruntime", machine.onnxruntime),
        ("numpy", machine.numpy),
        ("hyps", machine.hyps),
    )
    return Grid(title="", columns=("", "machine"), rows=rows)


def _in_words(machine: Machine) -> str:
    return (
        f"{_cores(machine)} ({machine.architecture}), {machine.memory_bytes / 1e9:.1f} GB, "
        f"{machine.storage}, {machine.kernel}, Python {machine.python}, onnxruntime {machine.onnxruntime}, "
        f"numpy {machine.numpy}"
    )


def _cores(machine: Machine) -> str:
    return f"{machine.cores} core{'s' * (machine.cores != 1)} of {machine.processor}"


def _short(results: Results) -> list[str]:
    """The page in some sentences."""
    said = []
    if (race := _race(results)) is not None and (shown := find(race, HIGHLIGHT)) is not None:
        default, mapped = find(race, DEFAULT), find(race, MAPPED)
        assert default is not None and mapped is not None
        said.append(
            f"VGG16 with one thread, a bundle for {HIGHLIGHT.removeprefix('bundle, ')}: "
            f"{peak_bytes(shown) / peak_bytes(default):.2f} of the memory of onnxruntime as it comes and "
            f"{warm_ratio(shown, default).median:.2f} times its time; "
            f"{peak_bytes(shown) / peak_bytes(mapped):.2f} of the memory of the whole model mapped without prepacking "
            f"and {warm_ratio(shown, mapped).median:.2f} times its time."
        )
    if results.latency is not None and results.latency.result is not None:
        bundles = [each for race in results.latency.result for each in race.contenders if each.budget_bytes]
        said.append(f"{sum(map(kept, bundles))} of {len(bundles)} bundles of VGG16 kept their budget in every process.")
    if results.storage is not None and results.storage.result is not None:
        said.append(_bounded(results.storage.result))
    if results.prediction is not None and results.prediction.result:
        said.append(_predicted(results.prediction.result))
    return said or ["Nothing has been measured yet."]


def _bounded(result: Storage) -> str:
    """The first row, the whole model, against the last."""
    whole, shown = result.rows[0], result.rows[-1]
    faster = run_s(whole.process) / run_s(shown.process)
    return (
        f"Where storage gives {result.read_bytes_per_s / 1e6:.0f} MB/s, and {result.memory_bytes / 1e6:.0f} MB are all "
        f"there is for the process and its cached files, '{shown.label}' is {faster:.2f} times as fast as the whole model."
    )


def _predicted(rows: Sequence[Predicted]) -> str:
    excesses = [100 * (row.predicted_bytes / row.measured_bytes - 1) for row in rows]
    within = sum(row.measured_bytes <= row.budget_bytes for row in rows)
    networks = len({row.network for row in rows})
    return (
        f"{networks} networks at up to six budgets each: {within} of {len(rows)} runs kept their budget; the predicted peak "
        f"is {statistics.median(excesses):.1f} % above the measured one in the median, {min(excesses):.1f} % at the least, "
        f"{max(excesses):.1f} % at the most."
    )


def _race(results: Results) -> Race | None:
    """With one thread."""
    races = results.latency.result if results.latency is not None else None
    return next((race for race in races or () if race.threads == 1), None)


def _filled(paragraph: str) -> str:
    return textwrap.fill(" ".join(paragraph.split()), 125, break_long_words=False, break_on_hyphens=False)


def markdown(grid: Grid, numbers: str = "---:") -> str:
    """A table, numbers to the right."""
    lines = [grid.columns, ("---", *[numbers] * (len(grid.columns) - 1)), *grid.rows]
    return "\n".join("| " + " | ".join(re.sub(r"([|<`*_])", r"\\\1", cell) for cell in line) + " |" for line in lines)
