"""The layout of graphs, which the page and the report share, in a real browser."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

Edge = tuple[int, int]
WIDTH, HEIGHT = 68, 38


@pytest.fixture(scope="module")
def page(browser: Browser, root: Path) -> Iterator[Page]:
    """An empty page with the function `layout`."""
    made = browser.new_page()
    text = (root / "runtime/web/static/layout.js").read_text("utf-8")
    made.add_script_tag(type="module", content=f"{text}\nwindow.layout = layout;")
    made.wait_for_function("() => window.layout !== undefined")  # the browser runs modules when it likes
    yield made
    made.close()


def layout(page: Page, count: int, edges: list[Edge], width: int | None = None) -> dict[str, Any]:
    call = "([count, edges, size, width]) => layout(count, edges.map(([from, to]) => ({from, to})), size, width)"
    drawing: dict[str, Any] = page.evaluate(call, [count, edges, {"width": WIDTH, "height": HEIGHT}, width])
    check(drawing, count, edges)
    return drawing


def check(drawing: dict[str, Any], count: int, edges: list[Edge]) -> None:
    """No two nodes overlap, all lie in the drawing, and each edge leaves its node's right side and enters a left side."""
    places = [tuple(place) for place in drawing["places"]]
    assert len({*places}) == len(places) == count
    for index, (x, y) in enumerate(ordered := sorted(places)):
        assert 0 <= x <= drawing["width"] - WIDTH
        assert 0 <= y <= drawing["height"] - HEIGHT
        for other_x, other_y in ordered[index + 1 :]:
            assert abs(other_x - x) >= WIDTH or abs(other_y - y) >= HEIGHT
    assert len(drawing["paths"]) == len(edges)
    for path, (source, target) in zip(drawing["paths"], edges, strict=True):
        numbers = [float(text) for text in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]
        assert numbers[:2] == [places[source][0] + WIDTH, places[source][1] + HEIGHT / 2]
        assert numbers[-2:] == [places[target][0], places[target][1] + HEIGHT / 2]
        assert all(0 <= x <= drawing["width"] for x in numbers[::2])
        assert all(0 <= y <= drawing["height"] for y in numbers[1::2])


def test_nothing_and_one_node(page: Page) -> None:
    layout(page, 0, [])
    layout(page, 1, [], width=300)


def test_a_chain_with_branches_has_the_shape_of_a_screen(page: Page) -> None:
    """A chain with five branches at every tenth node."""
    edges: list[Edge] = []
    last, count = 0, 1
    for index in range(60):
        branches = range(count, count + (5 if index % 10 == 9 else 1))
        edges += [(last, branch) for branch in branches] + [(branch, branches.stop) for branch in branches]
        last, count = branches.stop, branches.stop + 1
    drawing = layout(page, count, edges)
    assert 0.9 < drawing["width"] / drawing["height"] < 4


def test_a_chain_reads_like_text(page: Page) -> None:
    """From left to right, and on in the next band; each band is as full as the width allows."""
    drawing = layout(page, 20, [*pairwise(range(20))], width=500)
    places = [tuple(place) for place in drawing["places"]]
    assert places == sorted(places, key=lambda place: (place[1], place[0]))
    assert len({x for x, _ in places}) == 4
    assert drawing["width"] <= 500


def test_many_nodes_of_a_rank_stand_in_a_block(page: Page) -> None:
    """A layer in 103 shards, between two others."""
    edges = [(0, shard) for shard in range(1, 104)] + [(shard, 104) for shard in range(1, 104)]
    drawing = layout(page, 105, edges)
    assert len({y for _, y in drawing["places"]}) < 20
    assert 0.7 < drawing["width"] / drawing["height"] < 4


@pytest.mark.parametrize("width", [None, 200, 390, 1280])
def test_random_graphs(page: Page, width: int | None) -> None:
    rng = random.Random(0)
    for _ in range(12):
        count = rng.randint(2, 70)
        pairs = {(rng.randrange(to), to) for to in range(1, count) for _ in range(rng.randint(0, 3))}
        drawing = layout(page, count, sorted(pairs), width)
        assert width is None or drawing["width"] <= max(width, 250)
