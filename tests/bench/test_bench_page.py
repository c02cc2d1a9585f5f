"""``docs/benchmarks.md`` is made from the raw results alone, and says what was skipped, is missing or is outdated."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from tests.bench.document import PICTURES, README_MARKS, page, readme
from tests.bench.drawing import drawings
from tests.bench.known_results import HERE, part, predicted, race
from tests.bench.main import DOCS, NAME, PARTS
from tests.bench.readings import Imported, Results, load
from tests.bench.words import SECTIONS
from tests.repository import ROOT

RESULTS = Results(
    latency=part((race(), race(threads=4))),
    prediction=part((predicted("small", 0.02), predicted("large", 0.1), predicted("huge", 0.3))),
    dependencies=part((Imported(name="start", resident_bytes=13_000_000),)),
)


def section(text: str, name: str) -> str:
    """Return a section of the page."""
    return text.split(f"\n## {SECTIONS[name][0]}\n")[1].split("\n## ")[0]


def words(svg: bytes) -> list[str]:
    """Return the texts of a plot."""
    return ["".join(each.itertext()) for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_page_is_what_the_raw_results_say() -> None:
    """``make bench RENDER=1`` writes it again."""
    assert (DOCS / f"{NAME}.md").read_text("utf-8") == page(load(DOCS / f"{NAME}.json", Results))


def test_the_readme_is_what_the_raw_results_say() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(mark in text for mark in README_MARKS)
    assert text == readme(text, load(DOCS / f"{NAME}.json", Results))


def test_the_plots_are_there_and_name_what_they_show() -> None:
    """Texts are compared, not bytes: versions of matplotlib draw differently."""
    results = load(DOCS / f"{NAME}.json", Results)
    found = {path.stem: words(path.read_bytes()) for path in (DOCS / NAME).iterdir()}
    assert found.keys() == {picture.name for pictures in PICTURES.values() for picture in pictures}
    assert results.latency
    assert results.latency.result
    assert results.prediction
    for contender in results.latency.result[0].contenders:
        assert contender.label in found["memory"]
        assert contender.label in found["latency"]
        shown = f"{contender.budget_bytes / 1e6:.0f}" if contender.budget_bytes else contender.label
        assert shown in found["tradeoff"]
    assert {row.network for row in results.prediction.result or ()} <= {*found["prediction"]}


def test_the_raw_results_hold_what_was_asked_for() -> None:
    """The whole model in four ways and six budgets, with every reading of every run, in less than 1 MB.

    The comparison of networks with stock onnxruntime may be missing: the page then says that it was not measured yet.
    """
    path = DOCS / f"{NAME}.json"
    results = load(path, Results)
    assert path.stat().st_size < 10**6
    assert {name for name in PARTS if getattr(results, name) is None} <= {"networks"}
    assert results.latency
    assert results.latency.result
    for each in results.latency.result:
        assert len([one for one in each.contenders if one.budget_bytes]) == 6
        assert len([one for one in each.contenders if not one.budget_bytes]) == 4
        assert len({len(one.race.runs) for one in each.contenders}) == 1
        assert all(one.cold and one.resident.samples > 0 for one in each.contenders)


def test_parts_and_sections_are_the_same() -> None:
    assert list(PARTS) == list(SECTIONS)


def test_one_state_is_named_once() -> None:
    text = page(RESULTS)
    assert "Everything below was measured on 2026-11-01, at commit abc123, on this machine:" in text
    assert "| processor | An Ordinary Processor |" in text
    assert "Not of one state" not in text
    assert "Another machine" not in text


def test_mixed_states_are_distinguished() -> None:
    board = replace(HERE, processor="Board", cores=1)
    mixed = replace(
        RESULTS,
        prediction=part((predicted("net", 0.1),), commit="def456", when="2026-12-24 18:00 UTC", machine=board),
    )
    text = page(mixed)
    assert "**Not of one state:** measured from 2026-11-01 to 2026-12-24, at 2 commits (abc123, def456)" in text
    assert "on 2 machines" in text
    assert "Measured 2026-12-24 18:00 UTC at commit def456, in 60 s; load average before: 0.25." in section(
        text, "prediction"
    )
    assert "**Another machine:** 1 core of Board" in section(text, "prediction")
    assert "Another machine" not in section(text, "latency")
    assert "at commit abc123" in section(text, "latency")


def test_a_skipped_part_says_why_and_shows_nothing_else() -> None:
    text = page(replace(RESULTS, storage=part(None, skipped="no control groups")))
    assert "**Skipped** (2026-11-01 10:00 UTC, commit abc123): no control groups." in section(text, "storage")
    assert "|" not in section(text, "storage")
    assert "|" in section(text, "latency")


def test_a_part_that_was_never_measured_says_how_to() -> None:
    assert "Not measured yet: `make bench ONLY=batch`." in section(page(RESULTS), "batch")
    assert all("Not measured yet" in section(page(Results()), name) for name in SECTIONS)
    assert "Nothing has been measured yet." in page(Results())


def test_in_short() -> None:
    """One process of the second bundle took 129 MB, above its budget, so only 1 of 2 bundles counts as within it."""
    text = page(replace(RESULTS, latency=part((race(),))))
    assert "0.12 of the memory of onnxruntime as it comes and 2.00 times its time" in text
    assert "0.24 of the memory of the whole model mapped without prepacking and 1.50 times its time" in text
    assert "1 of 2 bundles of VGG16 kept their budget in every process" in text
    assert "3 of 3 runs kept their budget" in text
    assert "10.0 % above the measured one in the median, 2.0 % at the least, 30.0 % at the most" in text


def test_tables_are_tables() -> None:
    lines = [line for line in page(RESULTS).splitlines() if line.startswith("|")]
    assert len(lines) > 40
    rows = re.split(r"\n(?!\|)", page(RESULTS))
    for table in (block for block in rows if block.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_readme_is_changed_between_its_marks_alone() -> None:
    start, end = README_MARKS
    text = f"before\n{start}what was said\n{end}after\n"
    made = readme(text, RESULTS)
    assert made.startswith(f"before\n{start}")
    assert made.endswith(f"{end}after\n")
    assert "what was said" not in made
    assert re.search(r"^\| HyPS, a budget of 128 MB \| \d+ MB \(\d\.\d\d\) \| \d\.\d\d s \(2\.00\) \|", made, re.MULTILINE)
    assert "An Ordinary Processor" in made
    assert readme(made, RESULTS) == made
    assert readme(text, Results()) == text
    assert readme("no marks", RESULTS) == "no marks"


def test_plots_are_the_same_bytes_every_time() -> None:
    assert drawings(RESULTS) == drawings(RESULTS)
    assert all(b"<dc:date>" not in svg and b"matplotlib.org" not in svg for svg in drawings(RESULTS).values())


def test_plots_follow_the_readings() -> None:
    """The number at a bar is the peak; the number at a point is the ratio to the whole model, mapped."""
    found = {name: words(svg) for name, svg in drawings(RESULTS).items()}
    assert "120 MB" in found["memory"]
    assert found["latency"].count("1.60") == 2  # of 4 / 2, 8 / 5, 10 / 8, with one thread and with four
    assert {"96", "128"} <= {*found["tradeoff"]}
    assert {"small", "large", "huge"} <= {*found["prediction"]}


@pytest.mark.parametrize(
    ("results", "names"),
    [
        (Results(), set[str]()),
        (replace(RESULTS, prediction=None), {"memory", "latency", "tradeoff"}),
        (replace(RESULTS, latency=part(None, skipped="no")), {"prediction"}),
        (replace(RESULTS, latency=part((race(),))), {"memory", "latency", "tradeoff", "prediction"}),
    ],
    ids=["nothing", "no prediction", "skipped", "one core"],
)
def test_plots_of_what_there_is(results: Results, names: set[str]) -> None:
    assert drawings(results).keys() == names
