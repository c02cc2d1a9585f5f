"""The page in a real browser, on real boards: what an operator does, and what she sees when a board is unplugged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.runtime.cluster.mosquitto import free_port, wait_for
from tests.runtime.web.conftest import Web

WAIT_MS = 20_000


@contextmanager
def opened(
    browser: Browser, web: Web, *, token: str | None = None, width: int = 1280, scheme: str = "light", loses: bool = False
) -> Iterator[Page]:
    """A new tab; it may neither fail nor complain, but for answers that say what is wrong, and where it ``loses`` them."""
    complaints: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((web.url, "blob:", "data:")) else complaints.append(request.url),
    )
    page.goto(f"{web.url}/#token={web.token if token is None else token}")
    yield page
    context.close()
    expected = ("the server responded with a status of", *(("net::ERR_", "network error") if loses else ()))
    assert [each for each in complaints if not any(text in each for text in expected)] == []


def enter(page: Page, boards: int = 3) -> None:
    expect(page.locator("[data-worker]")).to_have_count(boards, timeout=WAIT_MS)


def test_from_a_model_to_a_result(web: Web, browser: Browser, root: Path, photograph: Path) -> None:
    """Upload, see the plan, compile, serve, run: the thesis's one click, and what led to it."""
    with opened(browser, web) as page:
        enter(page)
        assert page.url == f"{web.url}/"  # no token where others read it
        page.set_input_files("#model-files", root / "models/cifar10_vgg.onnx")
        expect(page.locator("#upload-state")).to_contain_text("cifar10_vgg", timeout=WAIT_MS)
        page.fill("#budget", "80")
        page.select_option("#split", "pooling")
        page.select_option("#preprocess", "cifar10")
        page.click("#show-plan")
        expect(page.locator("#build-state")).to_have_attribute("data-state", "done", timeout=60_000)
        (planned,) = [build for build in web.get("/api/builds") if build["dry_run"]]
        rows = page.locator("#plan-table tr[data-step]")
        expect(rows).to_have_count(len(planned["plan"]["partitions"]))
        for row, part in zip(rows.all(), planned["plan"]["partitions"], strict=True):
            assert part["name"] in row.inner_text()
            assert part["reason"] in row.inner_text()
        expect(page.locator("#graph .node")).to_have_count(len(planned["plan"]["partitions"]))
        page.fill("#bundle-name", "mine")
        page.click("#compile")
        page.click('[data-bundle="mine"] button[data-action="serve"]', timeout=60_000)
        wait_for("loaded shares", lambda: web.get("/api/status")["bundle"] == "mine" and web.ready())
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#timeline .span")).to_have_count(len(web.get("/api/status")["shares"]), timeout=WAIT_MS)
        (job,) = web.get("/api/jobs")
        assert job["name"] == photograph.name
        shown = page.locator("#top5").inner_text()
        assert all(f"{100 * scored['score']:.1f}" in shown for scored in job["top"])
        with page.expect_download() as download:
            page.click('[data-bundle="mine"] button[data-action="download"]')
        assert download.value.suggested_filename == "mine.tar"


def test_a_board_is_unplugged_while_the_page_is_open(web: Web, browser: Browser) -> None:
    with opened(browser, web) as page:
        enter(page)
        expect(page.locator('[data-worker="w1"]')).not_to_have_class("gone")
        held = next(share for share in web.get("/api/status")["shares"] if "w1" in share["homes"])
        web.devices.freeze("w1")
        expect(page.locator('[data-worker="w1"].gone')).to_be_visible(timeout=2_500)
        assert (
            "w1" in next(share for share in web.get("/api/status")["shares"] if share["number"] == held["number"])["homes"]
        )
        expect(page.locator("#moved")).to_contain_text("from w1 to", timeout=15_000)
        expect(page.locator('[data-worker="w0"].gone')).to_have_count(0)
        assert not any("w1" in homes for homes in web.homes())


def test_wrong_token(web: Web, browser: Browser) -> None:
    with opened(browser, web, token="wrong" * 5) as page:
        expect(page.locator("#token-message")).to_contain_text("wrong token", timeout=WAIT_MS)
        expect(page.locator("[data-worker]")).to_have_count(0)
        page.fill("#token", web.token)
        page.keyboard.press("Enter")
        enter(page)


def test_an_upload_that_is_too_large(start_web: Callable[..., Web], browser: Browser, tmp_path: Path) -> None:
    web = start_web(1, "--upload-limit", "1MB", bundle=False)
    (tmp_path / "large.onnx").write_bytes(bytes(6_000_000))
    with opened(browser, web) as page:
        enter(page, 1)
        page.set_input_files("#model-files", tmp_path / "large.onnx")
        expect(page.locator("#error")).to_contain_text("1 MB at most", timeout=WAIT_MS)
    assert web.get("/api/models") == []


def test_two_tabs_see_the_same(web: Web, browser: Browser, photograph: Path) -> None:
    with opened(browser, web) as first, opened(browser, web) as second:
        enter(first)
        enter(second)
        first.set_input_files("#image-file", photograph)
        expect(second.locator("#jobs [data-job]")).to_have_count(1, timeout=WAIT_MS)
        first.click('[data-worker="w2"] button')
        expect(second.locator('[data-worker="w2"] .badge')).to_have_attribute("data-word", "drained", timeout=WAIT_MS)


def test_a_camera(web: Web, browser: Browser) -> None:
    with opened(browser, web) as page:
        enter(page)
        page.click("#camera")
        wait_for("some frames", lambda: sum(job["state"] == "done" for job in web.get("/api/jobs")) >= 3, 30)
        page.click("#camera-stop")
        expect(page.locator("#camera-stop")).to_be_hidden()
        assert all(job["state"] in ("done", "running", "waiting") for job in web.get("/api/jobs"))


def test_a_board_is_drained_by_keyboard_alone(web: Web, browser: Browser) -> None:
    with opened(browser, web) as page:
        enter(page)
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('[data-worker=w1]') !== null"):
                break
        page.keyboard.press("Enter")
        wait_for("the drain", lambda: web.worker("w1")["drained"])


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1280, "dark")])
def test_a_phone_and_the_dark(web: Web, browser: Browser, width: int, scheme: str) -> None:
    with opened(browser, web, width=width, scheme=scheme) as page:
        enter(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        light = sum(
            int(each) for each in page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")[:3]
        )
        assert (light > 600) == (scheme == "light")


def test_the_manager_is_lost_and_back(start_web: Callable[..., Web], browser: Browser, tmp_path: Path) -> None:
    """Killed and started again at the same place with the same token: the page goes on by itself."""
    (tmp_path / "token").write_text("0123456789abcdef0123")
    options = ("--token-file", tmp_path / "token", "--web", f"127.0.0.1:{free_port()}")
    web = replace(start_web(1, *options), token="0123456789abcdef0123")
    with opened(browser, web, loses=True) as page:
        enter(page, 1)
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        web.devices.kill("manager")
        expect(page.locator("#connection")).to_have_attribute("data-state", "lost", timeout=WAIT_MS)
        start_web(0, *options)
        expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=WAIT_MS)
        enter(page, 1)


def test_the_interfaces_description(web: Web, browser: Browser) -> None:
    """Swagger UI, from our own files, under our own policy."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{web.url}/docs")
    expect(page.locator(".opblock")).to_have_count(
        sum(map(len, web.get("/openapi.json")["paths"].values())), timeout=WAIT_MS
    )
    context.close()
    assert all(url.startswith((web.url, "data:")) for url in asked)
