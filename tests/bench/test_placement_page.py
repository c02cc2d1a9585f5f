"""Test that ``docs/placement.md`` is what its raw results say, and that the thesis's systems are what its text states."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from hyps.runtime.cluster.planning.evaluation import check_stages
from tests.bench.known_results import part
from tests.bench.placement import DOCS, NAME
from tests.bench.placement_page import placement_page, titles
from tests.bench.placement_results import (
    PLANNERS,
    PlacementCase,
    PlacementResults,
    RealCase,
    RealRuns,
    SimulatedSystem,
    Stated,
)
from tests.bench.readings import load
from tests.bench.thesis import own_placement, read_thesis, system_workload, thesis_fleet

CASE = PlacementCase(
    planner="ours", devices=4, groups="all", throughput_per_s=3.0, latency_s=0.5, static_joules=2.0, dynamic_joules=1.0
)
SYSTEM = SimulatedSystem(
    key="net",
    title="A Net",
    source="section 1",
    note="A note.",
    cases=(
        CASE,
        replace(CASE, planner="pipeline", throughput_per_s=2.0),
        PlacementCase(planner="own", devices=4, skipped="not described"),
    ),
    stated=(Stated(what="more", factor=2, found=1.5, source="section 2"),),
)
REAL = RealCase(
    name="one worker",
    shares=(0.2,),
    groups="all",
    predicted_per_s=1.1,
    measured_per_s=1.0,
    predicted_s=0.6,
    measured_s=(0.5,),
)
RUNS = RealRuns(network="net", rate_bits_per_s=94_000_000, slowdown=1.1, megabyte_s=0.01, delay_s=0.002, cases=(REAL,))


def test_the_page_is_what_the_raw_results_say() -> None:
    """``make bench-placement RENDER=1`` writes it again."""
    assert (DOCS / f"{NAME}.md").read_text("utf-8") == placement_page(load(DOCS / f"{NAME}.json", PlacementResults))


def test_the_plots_are_there_and_name_the_planners() -> None:
    results = load(DOCS / f"{NAME}.json", PlacementResults)
    assert results.systems
    systems = results.systems.result
    assert systems
    assert {path.stem for path in (DOCS / NAME).iterdir()} == {*titles(systems)}
    for system in systems:
        tree = ElementTree.fromstring((DOCS / NAME / f"{system.key}.svg").read_bytes())
        words = {"".join(each.itertext()) for each in tree.iter("{http://www.w3.org/2000/svg}text")}
        assert {*PLANNERS.values()} <= words


def test_the_raw_results_hold_what_was_asked_for() -> None:
    """Every system on every number of devices by every planner; ours is never slower than Algorithm 1; five real cases."""
    results = load(DOCS / f"{NAME}.json", PlacementResults)
    assert results.systems
    assert results.systems.result
    for system in results.systems.result:
        cases = {(case.planner, case.devices): case for case in system.cases}
        counts = {devices for _, devices in cases}
        assert {*cases} == {(planner, count) for planner in PLANNERS for count in counts}
        for count in counts:
            assert cases["ours", count].formula_per_s >= cases["algorithm1", count].formula_per_s - 1e-5
    assert results.real
    assert results.real.skipped or len((results.real.result or RUNS).cases) == 5


def test_a_page_of_known_results() -> None:
    text = placement_page(PlacementResults(systems=part((SYSTEM,)), real=part(RUNS)))
    assert "| simple pipeline | 1.50 | 1.50 | 1.50 |" in text
    assert "| A Net | more | 2 | 1.50 | section 2 |" in text
    assert "| ours | 4 | 3 | 0.5 | 2 | 1 | 3 | all |" in text
    assert "| the thesis's own | 4 | - | - | - | - | - | not described |" in text
    assert "| one worker | 1.100 | 1.000 | +10.0% | 0.600 | 0.500 | +20.0% |" in text
    assert "1 of 2 figures are within 15%; the worst is off by 20%." in text


def test_a_page_of_nothing_says_how_to_make_it() -> None:
    assert placement_page(PlacementResults()).count("`make bench-placement`.") == 2
    assert "**Skipped** (2026-11-01 10:00 UTC): no namespaces." in placement_page(
        PlacementResults(real=part(None, skipped="no namespaces"))
    )


THESIS = read_thesis()
PLACED = [
    (key, int(count)) for key, system in THESIS.systems.items() for count, groups in system.placements.items() if groups
]


@pytest.mark.parametrize(("key", "count"), PLACED)
def test_the_thesis_placements_are_placements_on_all_devices(key: str, count: int) -> None:
    system = THESIS.systems[key]
    stages = own_placement(THESIS, system, count)
    assert stages is not None
    check_stages(system_workload(THESIS, system), thesis_fleet(THESIS, count), stages)
    assert sum(len(stage.boards) for stage in stages) == count


@pytest.mark.parametrize(
    ("key", "gigamacs", "seconds"),
    [("vgg16", 15.47, 9.4), ("c3d_heaviest", 11.1, 18.0)],
)
def test_layers_add_up_to_what_the_text_states(key: str, gigamacs: float, seconds: float) -> None:
    """Table 5.3 and section 5.1.4; section 4.6.3."""
    system = THESIS.systems[key]
    assert sum(layer.work[1] for layer in system.layers) / 1e9 == pytest.approx(gigamacs, rel=0.005)
    steps = system_workload(THESIS, system).steps
    assert sum(step.seconds["rpi3"] for step in steps) == pytest.approx(seconds, rel=0.005)
