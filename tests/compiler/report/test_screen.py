"""Check how ``hypsc report``'s page looks on a wide screen and on a phone, and how its graph answers the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.compiler.conftest import Bundle, Command
from tests.compiler.onnxes import classifier, model, node, saved, value, weight
from tests.compiler.report.conftest import Look

DESK, PHONE = 1280, 390


def bundle_page(hypsc: Command, bundle: Bundle, folder: Path) -> Path:
    """Write the report of a bundle and return its path."""
    assert hypsc("report", bundle.folder, "-o", folder / "bundle.html").returncode == 0
    return folder / "bundle.html"


def test_the_verdict_comes_first_in_the_words_of_compile(hypsc: Command, tmp_path: Path, look: Look) -> None:
    path = saved(tmp_path / "net.onnx", classifier())
    printed = hypsc("compile", path, "--memory", "70MB", "-o", tmp_path / "bundle").stdout
    lines = re.sub(r"\n {17}", " ", printed).splitlines()
    facts = {line[:17].strip(): line[17:] for line in lines}
    names = ("answers", "time", "read each time", "smallest budget", "model", "target")

    def see(page: Page) -> tuple[list[str], str, dict[str, str]]:
        order = page.locator("body > header > *").evaluate_all("all => all.map((each) => each.className || each.tagName)")
        values = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
        return order, page.locator(".verdict").inner_text(), values

    for source, options, known in (
        (tmp_path / "bundle", (), names),
        (path, ("--memory", "70MB"), tuple(name for name in names if name != "read each time")),
    ):
        assert hypsc("report", source, *options, "-o", tmp_path / "net.html", "--force").returncode == 0
        order, verdict, values = look(tmp_path / "net.html", see)
        assert order == ["kind", "H1", "verdict", "DL"]
        assert verdict == lines[0]
        assert {name: values[name] for name in known} == {name: facts[name] for name in known}
        assert next(iter(values)) == "answers"


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_plots_fit_the_screen(hypsc: Command, tmp_path: Path, classifier_bundle: Bundle, look: Look, width: int) -> None:
    """No plot is wider than the screen, and no text in a plot is smaller than 7 pixels."""

    def see(page: Page) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        shown = page.locator(".plot svg:visible")
        assert shown.count() == page.locator(".plot").count() == 2
        for plot in shown.all():
            box = plot.bounding_box()
            assert box
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            scale = box["width"] / float(str(plot.get_attribute("viewBox")).split()[2])
            sizes = plot.locator("text").evaluate_all(
                "all => all.map((each) => parseFloat(getComputedStyle(each).fontSize))"
            )
            assert scale * min(sizes) > 7
            sides = plot.locator("text").evaluate_all(
                "all => all.map((each) => each.getBoundingClientRect()).map(({ left, right }) => [left, right])"
            )
            assert all(left >= 0 and right <= width for left, right in sides)

    look(bundle_page(hypsc, classifier_bundle, tmp_path), see)


def test_the_reasons_can_be_read_at_a_desk(hypsc: Command, tmp_path: Path, look: Look) -> None:
    """The column of reasons is on the screen without scrolling, wide enough for 40 characters, and wraps."""
    weights = [weight("w", 4_000, 4_000)]
    split = model([node("Gemm", "x w", "y", transB=1)], [value("x", 1, 4_000)], [value("y", 1, 4_000)], weights)
    path = saved(tmp_path / "net.onnx", split)
    assert hypsc("report", path, "--memory", "90MB", "-o", tmp_path / "net.html").returncode == 0

    def see(page: Page) -> None:
        cells = page.locator("#table-partitions td.reason")
        assert cells.count() > 1
        for cell in cells.all():
            box = cell.bounding_box()
            assert box
            assert box["width"] >= 280
            assert box["x"] + box["width"] <= DESK
            assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
        assert page.locator("#table-partitions .wide").evaluate("box => box.scrollWidth <= box.clientWidth")

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
        for ink in (page.evaluate(colours, "td")[0], page.evaluate(colours, ".plot .broad text")[1]):
            assert abs(sum(ink) - paper) > 400

    look(tmp_path / "net.html", see)


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
