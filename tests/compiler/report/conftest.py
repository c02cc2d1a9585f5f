"""Open reports in Chromium; a page must log nothing and load nothing but its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.programs import program

Seen = TypeVar("Seen")
#: Opens a file in the browser, calls a function with the page, and returns the function's result.
Look = Callable[[Path, Callable[[Page], Any]], Any]


@pytest.fixture(scope="session")
def look() -> Iterator[Look]:
    """Yield a function that opens a page in Chromium.

    It runs in a thread of its own: a thread can have one Playwright only, and other tests have theirs.
    """
    chromium = program("chromium")

    def start() -> tuple[Playwright, Browser]:
        playwright = sync_playwright().start()
        return playwright, playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])

    def stop() -> None:
        browser.close()
        playwright.stop()

    def view(path: Path, see: Callable[[Page], Seen]) -> Seen:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        logged: list[str] = []
        requested: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#graph[data-scale], #value:not(:empty)")
        try:
            return see(page)
        finally:
            page.close()
            assert (logged, requested) == ([], [path.as_uri()])

    with ThreadPoolExecutor(1) as thread:
        playwright, browser = thread.submit(start).result()
        yield lambda path, see: thread.submit(view, path, see).result()
        thread.submit(stop).result()
