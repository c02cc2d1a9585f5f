"""``hypsc report``: a page that opens from a disk in a real browser, asks for nothing, and shows what was worked out."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import onnx
import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from hyps.compiler.report.facts import Node
from hyps.compiler.report.graph_runs import MOST_NODES, in_runs
from tests.compiler.conftest import Bundle, Command
from tests.compiler.onnxes import classifier, model, node, saved, value, weight

Seen = TypeVar("Seen")
#: Calls a function with the page of a file, and gives its answer; the page must log nothing and ask for nothing.
Look = Callable[[Path, Callable[[Page], Any]], Any]
HOSTILE = ["</script><b>bold</b>", "quote\"'`$x", "line\nend\u2028", "n" * 300, "&lt;img src=x onerror=alert(1)>"]


@pytest.fixture(scope="module")
def look() -> Iterator[Look]:
    """Chromium in a thread of its own: Playwright is at most once in a thread, and other tests have it, too."""
    chromium = shutil.which("chromium")
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("needs Chromium: apt-get install chromium")
        pytest.skip("needs Chromium: apt-get install chromium")

    def start() -> tuple[Playwright, Browser]:
        playwright = sync_playwright().start()
        return playwright, playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])

    def stop() -> None:
        browser.close()
        playwright.stop()

    def view(path: Path, see: Callable[[Page], Seen]) -> Seen:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        logged: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#graph[data-scale]")
        try:
            return see(page)
        finally:
            page.close()
            assert (logged, asked) == ([], [path.as_uri()])

    with ThreadPoolExecutor(1) as thread:
        playwright, browser = thread.submit(start).result()
        yield lambda path, see: thread.submit(view, path, see).result()
        thread.submit(stop).result()


def table(page: Page, name: str) -> list[list[str]]:
    """The cells of a table's rows."""
    rows = page.locator(f"#table-{name} tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e6:.3f} MB"


def test_a_model_without_a_plan(hypsc: Command, tmp_path: Path, look: Look) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    done = hypsc("report", path, "-o", tmp_path / "net.html")
    assert (done.returncode, done.stderr) == (0, "")
    page = tmp_path / "net.html"
    assert done.stdout == f"wrote {page}, {mb(page.stat().st_size)}\n"
    found = json.loads(hypsc("analyze", path, "--json").stdout)

    def see(page: Page) -> None:
        assert page.title() == "net - HyPS report"
        assert page.locator(".node").count() == len(found["operators"])
        assert page.locator(".node.bare").count() == len(found["operators"])
        assert table(page, "splits") == [
            [point["behind"], "optional", mb(point["crossing_bytes"]), point["reason"]] for point in found["splits"]
        ]
        assert [row[:3] for row in table(page, "types")] == [
            [row["op_type"], str(row["operators"]), f"{row['parameters']:,}" if row["parameters"] else ""]
            for row in found["types"]
        ]
        assert page.locator("#table-partitions").count() == 0
        facts = page.locator("header dl").inner_text()
        assert f"{found['parameters']:,}" in facts
        assert mb(found["whole_peak_bytes"]) in facts
        assert page.locator("#plot-layers svg text").filter(has_text="pool1").count() == 1

    look(tmp_path / "net.html", see)


def test_a_model_with_its_plan(hypsc: Command, tmp_path: Path, look: Look) -> None:
    """A Gemm too big for the budget is split: shards, in partitions of their own, and where they are told."""
    proto = model(
        [node("Relu", "x", "a"), node("Gemm", "a w", "b", transB=1), node("Relu", "b", "y")],
        [value("x", 1, 4_000)],
        [value("y", 1, 4_000)],
        [weight("w", 4_000, 4_000)],
    )
    path = saved(tmp_path / "net.onnx", proto)
    assert hypsc("report", path, "--memory", "90MB", "-o", tmp_path / "net.html").returncode == 0
    done = hypsc("compile", path, "--memory", "90MB", "-o", tmp_path / "bundle", "--json")
    plan = json.loads(done.stdout)

    def see(page: Page) -> None:
        rows = table(page, "partitions")
        assert [(row[0], row[2], row[7], row[-1]) for row in rows] == [
            (part["name"], mb(part["weight_bytes"]), mb(part["peak_bytes"]), ": ".join(part["reason"].values()))
            for part in plan["partitions"]
        ]
        operators = [name for part in plan["partitions"] for name in part["operators"]]
        assert page.locator(".node").count() == len(operators)
        parts = {text.split()[0] for text in page.locator(".node .part").all_text_contents()}
        assert parts == {f"P{index}" for index in range(len(rows))}
        shards = [name for name in operators if "/shard" in name]
        assert page.locator(".node.shard").count() == len(shards) > 1
        assert {kind for _, kind, *_ in table(page, "splits")} == {"mandatory"}
        assert len(table(page, "changes")) == len(plan["changes"])

    look(tmp_path / "net.html", see)


def test_a_bundle_with_a_profile(hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, look: Look) -> None:
    steps = classifier_bundle.compiled.manifest.steps
    runs = [
        {"name": step.name, "load_s": 0.5, "run_s": 0.25, "read_bytes": 7_000_000, "resident_bytes": 41_000_000 + index}
        for index, step in enumerate(steps[1:])
    ]
    (tmp_path / "profile.json").write_text(json.dumps(runs))
    page_path = tmp_path / "bundle.html"
    done = hypsc("report", classifier_bundle.folder, "--profile", tmp_path / "profile.json", "-o", page_path)
    assert (done.returncode, done.stderr) == (0, "")

    def see(page: Page) -> None:
        assert page.locator(".node").count() == len(steps)
        rows = table(page, "partitions")
        assert [row[0] for row in rows] == [step.name for step in steps]
        assert [row[7] for row in rows] == [mb(step.peak_bytes) for step in steps]
        assert rows[0][9:13] == ["-"] * 4
        assert rows[1][9:13] == ["41.0 MB", "0.5000", "0.2500", "7.0 MB"]
        assert page.locator("#plot-measured svg text").filter(has_text="measured, resident").count() == 1

    look(page_path, see)


def test_zoom_move_and_find(hypsc: Command, tmp_path: Path, look: Look) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    assert hypsc("report", path, "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        def scale() -> float:
            return float(page.locator("#graph").get_attribute("data-scale") or 0)

        def width() -> float:
            box = page.locator(".node rect").first.bounding_box()
            assert box
            return box["width"]

        graph = page.locator("#graph")
        graph.scroll_into_view_if_needed()
        fitted, narrow = scale(), width()
        page.click("#zoom-in")
        assert scale() == pytest.approx(1.4 * fitted, rel=0.01)
        assert width() > 1.3 * narrow
        page.click("#zoom-fit")
        assert scale() == fitted
        graph.focus()
        page.keyboard.press("+")
        assert scale() > fitted
        page.keyboard.press("0")
        graph.hover()
        page.mouse.wheel(0, -300)
        page.wait_for_function("before => Number(document.querySelector('#graph').dataset.scale) > before", arg=fitted)
        before = page.locator("#graph svg > g").get_attribute("transform")
        page.mouse.down()
        page.mouse.move(500, 400)
        page.mouse.up()
        assert page.locator("#graph svg > g").get_attribute("transform") != before
        page.fill("#find", "fc1")
        page.press("#find", "Enter")
        assert page.locator("#found").inner_text() == "1 of 1"
        assert "weights 1.2 MB" in page.locator("#detail").inner_text()
        page.click("#zoom-fit")
        page.locator(".node").first.click()
        assert page.locator("#detail h3").inner_text() == "conv1"

    look(tmp_path / "net.html", see)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_the_light_and_in_the_dark(
    hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, look: Look, scheme: Any
) -> None:
    assert hypsc("report", classifier_bundle.folder, "-o", tmp_path / "net.html").returncode == 0
    colours = """selector => { const style = getComputedStyle(document.querySelector(selector));
        const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        return [style.color, style.fill, style.backgroundColor].map(channels) }"""

    def see(page: Page) -> None:
        page.emulate_media(color_scheme=scheme)
        paper = sum(page.evaluate(colours, ".plot")[2])
        assert (paper < 200) == (scheme == "dark")
        for ink in (page.evaluate(colours, "td")[0], page.evaluate(colours, ".plot svg text")[1]):
            assert abs(sum(ink) - paper) > 400

    look(tmp_path / "net.html", see)


def test_hostile_names_are_text(hypsc: Command, tmp_path: Path, look: Look) -> None:
    names = ["x", *HOSTILE]
    nodes = [onnx.helper.make_node("Relu", [a], [b], b) for a, b in itertools.pairwise(names)]
    proto = model(nodes, [value("x", 1, 4)], [value(names[-1], 1, 4)])
    path = saved(tmp_path / "<i>net.onnx", proto)
    assert hypsc("report", path, "--memory", "80MB", "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        assert page.locator("b, i, img").count() == 0
        assert page.locator("h1").inner_text() == "<i>net"
        assert page.locator(".node").count() == len(HOSTILE)
        titles = page.locator(".node title").all_text_contents()
        assert titles[0].startswith("</script><b>bold</b> (Relu)")
        assert titles[1].startswith("quote\"'`$x (Relu)")
        assert titles[2].startswith("line\\nend\\u2028 (Relu)")
        page.locator(".node").first.click()
        assert page.locator("#detail h3").inner_text() == "</script><b>bold</b>"

    look(tmp_path / "net.html", see)
    assert "n" * 200 not in (tmp_path / "net.html").read_text()


def test_thousands_of_operators_are_drawn_in_runs(hypsc: Command, tmp_path: Path, look: Look) -> None:
    names = ["x", *(f"relu{index}" for index in range(4_000))]
    proto = model([node("Relu", a, b) for a, b in itertools.pairwise(names)], [value("x", 1, 4)], [value(names[-1], 1, 4)])
    path = saved(tmp_path / "net.onnx", proto)
    assert hypsc("report", path, "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        assert page.locator(".node").count() == 1_000
        assert "4,000 operators, more than 1,500: drawn as 1,000 runs" in page.locator("#graph-section").inner_text()
        page.fill("#find", "relu2001")
        page.press("#find", "Enter")
        assert page.locator("#detail h3").inner_text() == "relu2000 … relu2003"

    look(tmp_path / "net.html", see)


def test_two_runs_give_the_same_bytes_and_none_overwrites(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    for name in ("one.html", "two.html"):
        assert hypsc("report", path, "--memory", "70MB", "-o", tmp_path / name).returncode == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert not re.search(r"(src|href)=.?(http|//)|@import", (tmp_path / "one.html").read_text())
    done = hypsc("report", path, "-o", tmp_path / "one.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--force" in done.stderr
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert hypsc("report", path, "-o", tmp_path / "one.html", "--force").returncode == 0
    assert (tmp_path / "one.html").read_bytes() != (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("command", ["report", "plot"])
@pytest.mark.parametrize("content", [b"", b"no model", bytes(100)])
def test_what_is_no_model_leaves_nothing(hypsc: Command, tmp_path: Path, command: str, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    done = hypsc(command, tmp_path / "net.onnx", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--memory", "70MB"], "--memory is for models"),
        (["--threads", "2"], "--threads is for models"),
        (["--custom-ops", "operators.so"], "--custom-ops is for models"),
        (["-o", "/dev/null", "--force"], "is not a regular file"),
        (["--profile", "absent.json"], "cannot read absent.json"),
        (["-o", "no/such/folder.html"], "does not exist"),
        (["-o", "."], "is a folder"),
    ],
)
def test_wrong_options(hypsc_here: Command, classifier_bundle: Bundle, options: list[str], says: str) -> None:
    done = hypsc_here("report", classifier_bundle.folder, *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


def test_a_budget_that_is_too_small(hypsc: Command, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    done = hypsc("report", path, "--memory", "40MB", "-o", tmp_path / "net.html")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "smallest budget" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("command", ["report", "plot"])
def test_without_matplotlib(
    hypsc_here: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier_bundle: Bundle, command: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("html", "plots"):
        monkeypatch.delitem(sys.modules, f"hyps.compiler.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = hypsc_here(command, classifier_bundle.folder, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hypsc: drawing needs matplotlib, which is not installed; run: pip install 'hyps[report]'\n"
    assert list(tmp_path.iterdir()) == []


def bare(name: str, part: int | None = None) -> Node:
    return Node(name=name, kind="Relu", part=part, shard="", output_bytes=1, notes=())


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_screen_and_plots_stay_readable(
    hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, look: Look, width: int
) -> None:
    assert hypsc("report", classifier_bundle.folder, "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert min(page.locator(".plot svg").evaluate_all("all => all.map((each) => each.clientWidth)")) >= 600

    look(tmp_path / "net.html", see)


def test_runs_keep_to_partitions_and_lose_no_operator() -> None:
    count = 2 * MOST_NODES
    nodes = [bare(f"n{index}", part=index // 700) for index in range(count)]
    edges = [(index, index + 1, 5) for index in range(count - 1)]
    runs, links = in_runs(nodes, edges)
    members = [name for run in runs for name in (run.members or (run.name,))]
    assert members == [node.name for node in nodes]
    for run in runs:
        assert len({int(name[1:]) // 700 for name in run.members or (run.name,)}) == 1
    assert links == tuple((index, index + 1, 5) for index in range(len(runs) - 1))
