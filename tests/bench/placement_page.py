"""``docs/placement.md`` from raw results alone: the same results give the same text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from tests.bench.document import markdown
from tests.bench.placement_results import PLANNERS, PlacementCase, PlacementResults, RealCase, RealRuns, SimulatedSystem
from tests.bench.readings import Part
from tests.bench.tables import Grid

HEAD = """\
# Placements, simulated and measured

Written by `make bench-placement`; do not edit. The raw results are [placement.json](placement.json).

The systems are those of R. Hadidi's thesis (2021, chapter 4) on Raspberry Pi 3 boards, simulated event by event
(`runtime/cluster/simulation/simulate.py`). **The copy of the thesis that we have holds no pictures, so what it only
plots cannot be read**: a layer's seconds here are its multiply-adds at rates that are calibrated on totals that the
text states, and the placements are as the text describes them. Each figure has its source in
`tests/bench/thesis_systems.toml`. So compare columns with each other, and factors with the thesis's; the seconds are
not its seconds. Handling messages costs nothing here: the thesis states no figure for it, its stated totals hold
whatever its own system spent on it, and nothing was measured on a Raspberry Pi 3. With HyPS's guess for a board of
that speed (1.03 ms a message, tried once), throughputs fall to 0.51 times at worst, and *ours* is still the fastest
of each system and number of devices, or within 0.1 % of it.

Throughput is that of a stream that never runs dry, with queues of 10 inputs. Latency is that of one input alone.
Energy is that of one inference in a stream: static (idle power of all devices that hold something) and dynamic.
*Algorithm 1* and *Algorithm 2* are the thesis's; Algorithm 2 ran on what the simulator measured. *Ours* is
`hyps-manager plan` for throughput. The *simple pipeline* has one run of steps on each device, of about equal
computing time; as a layer's parts are steps, it cuts between them, too, which the thesis's could not."""
_REAL = """\
Worker processes in network namespaces, at links of {rate:.0f} Mbit/s each way; each worker has a share of a
core. The network is {network} up to its last pooling. What the simulator needs was measured before: the
processor's time of each step at full speed, and, with workers of a fifth of a core that hold the whole network
or are cut at another place, how much longer a step takes in a worker ({slowdown:.2f} times), the processor's
time for a megabyte that is sent or received ({milliseconds:.1f} ms), and the delay of a message ({delay:.1f}
ms). The goal is {goal:.0%}."""
_GOAL = 0.15


def placement_page(results: PlacementResults) -> str:
    """The whole page."""
    blocks = [HEAD, *_short(results)]
    if results.systems is not None:
        blocks += [_provenance(results.systems)]
        for system in results.systems.result or ():
            blocks += _system(system)
    blocks += ["## Simulated against real", *_real(results.real)]
    return "\n\n".join(blocks) + "\n"


def _provenance(part: Part[tuple[SimulatedSystem, ...]] | Part[RealRuns]) -> str:
    return f"Made {part.when} at commit {part.commit}; load average before: {part.load_average:.2f}."


def _short(results: PlacementResults) -> Iterator[str]:
    yield "## In short"
    systems = results.systems.result if results.systems is not None else None
    if not systems:
        yield "Nothing has been simulated yet: `make bench-placement`."
        return
    ratios: dict[str, list[float]] = {name: [] for name in PLANNERS if name != "ours"}
    for system in systems:
        cases = {(case.planner, case.devices): case for case in system.cases if case.skipped is None}
        for (planner, devices), case in cases.items():
            if planner != "ours" and devices > 1 and ("ours", devices) in cases:
                ratios[planner].append(cases["ours", devices].throughput_per_s / case.throughput_per_s)
    rows = tuple(
        (PLANNERS[name], f"{min(each):.2f}", f"{statistics.median(each):.2f}", f"{max(each):.2f}")
        for name, each in ratios.items()
        if each
    )
    columns = ("our throughput / that of", "least", "median", "most")
    yield markdown(Grid(title="", columns=columns, rows=rows))
    yield "Factors that the thesis states, and the same factors of its placements as the simulator finds them:"
    factors = tuple(
        (system.title, one.what, f"{one.factor:g}", "-" if one.found is None else f"{one.found:.2f}", one.source)
        for system in systems
        for one in system.stated
    )
    yield markdown(Grid(title="", columns=("system", "factor of", "thesis", "simulated", "where"), rows=factors), "---")
    yield (
        "The largest differences are with one device and with simple pipelines. The thesis's device swaps (section 4.6.2); "
        "the simulated one reads what does not fit at 22 MB/s before it computes."
    )


def _system(system: SimulatedSystem) -> Iterator[str]:
    yield f"## {system.title}"
    yield f"{system.note} Source: {system.source}."
    yield f"![{system.title}: throughput, latency and energy by planner](placement/{system.key}.svg)"
    yield markdown(Grid(title="", columns=_COLUMNS, rows=tuple(map(_row, system.cases))))
    if queues := [case for case in system.cases if case.queues and case.planner == "own"]:
        yield "Shares of the time with so many inputs in a device's queue, of the thesis's own placements (its figure 4.29):"
        yield f"![{system.title}: queue occupancy](placement/{system.key}-queues.svg)"
        columns = ("devices", "device", *map(str, range(11)))
        rows = tuple(
            (str(case.devices), name, *(f"{share:.2f}" for share in shares))
            for case in queues
            for name, shares in case.queues.items()
        )
        yield markdown(Grid(title="", columns=columns, rows=rows))


_COLUMNS = (
    "planner",
    "devices",
    "inferences a second",
    "latency s",
    "static J",
    "dynamic J",
    "J",
    "stages, in order",
)


def _row(case: PlacementCase) -> tuple[str, ...]:
    name = PLANNERS[case.planner]
    if case.skipped is not None:
        return (name, str(case.devices), "-", "-", "-", "-", "-", case.skipped)
    figures = (case.throughput_per_s, case.latency_s, case.static_joules, case.dynamic_joules, case.joules)
    return (name, str(case.devices), *(f"{figure:.3g}" for figure in figures), case.groups)


def _real(part: Part[RealRuns] | None) -> Iterator[str]:
    if part is None:
        yield "Not measured yet: `make bench-placement`."
        return
    if part.result is None:
        yield f"**Skipped** ({part.when}): {part.skipped}."
        return
    runs = part.result
    yield _REAL.format(
        rate=runs.rate_bits_per_s / 1e6,
        network=runs.network.upper(),
        slowdown=runs.slowdown,
        milliseconds=runs.megabyte_s * 1e3,
        delay=runs.delay_s * 1e3,
        goal=_GOAL,
    )
    yield f"{_provenance(part)} Machine: {part.machine.cores} cores of {part.machine.processor}, {part.machine.kernel}."
    if part.load_average > 1:
        yield "**Other programs ran meanwhile**: on a quiet machine, figures would be others."
    columns = ("placement", "a second: predicted", "measured", "off by", "s alone: predicted", "measured", "off by")
    yield markdown(Grid(title="", columns=columns, rows=tuple(map(_real_row, runs.cases))))
    yield "\n".join(f"- {case.name}: {case.groups}" for case in runs.cases)
    off = [abs(each) for case in runs.cases for each in _off(case)]
    within = sum(each <= _GOAL for each in off)
    yield f"{within} of {len(off)} figures are within {_GOAL:.0%}; the worst is off by {max(off):.0%}."


def _off(case: RealCase) -> tuple[float, float]:
    """How far the predictions are off, as parts of what was measured."""
    measured_s = statistics.median(case.measured_s)
    return case.predicted_per_s / case.measured_per_s - 1, case.predicted_s / measured_s - 1


def _real_row(case: RealCase) -> tuple[str, ...]:
    rate, alone = _off(case)
    return (
        case.name,
        f"{case.predicted_per_s:.3f}",
        f"{case.measured_per_s:.3f}",
        f"{rate:+.1%}",
        f"{case.predicted_s:.3f}",
        f"{statistics.median(case.measured_s):.3f}",
        f"{alone:+.1%}",
    )


def titles(systems: Sequence[SimulatedSystem]) -> tuple[str, ...]:
    """The plots that the page shows, by name."""
    names = [system.key for system in systems]
    names += [f"{system.key}-queues" for system in systems if any(case.queues for case in system.cases)]
    return tuple(names)
