"""The page in a real browser, with real boards: what an operator does, and what she sees when a board is unplugged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.runtime.cluster.mosquitto import free_port
from tests.runtime.web.conftest import Web
from tests.waiting import PATIENCE_S, wait_for

WAIT_MS = PATIENCE_S * 1000
expect.set_options(timeout=WAIT_MS)
#: Messages of the browser about answers that refuse something, and about lost connections.
REFUSALS, LOSSES = ("the server responded with a status of",), ("net::ERR_", "network error")


@contextmanager
def opened(
    browser: Browser,
    web: Web,
    *,
    token: str | None = None,
    size: tuple[int, int] = (1280, 800),
    scheme: Any = "light",
    loses: bool = False,
) -> Iterator[Page]:
    """Open the page in a new tab; it must ask nobody else, and log nothing but refusals, and losses if it ``loses``."""
    complaints: list[str] = []
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((web.url, "blob:", "data:")) else complaints.append(request.url),
    )
    page.goto(f"{web.url}/#token={web.token if token is None else token}")
    yield page
    context.close()
    expected = REFUSALS + LOSSES if loses else REFUSALS
    assert [each for each in complaints if not any(text in each for text in expected)] == []


def enter(page: Page, boards: int = 3) -> None:
    expect(page.locator("[data-worker]")).to_have_count(boards)


def newest_job(web: Web) -> Any:
    return web.get("/api/jobs")[0]


def test_from_a_model_to_a_result(web: Web, browser: Browser, root: Path, photograph: Path) -> None:
    """Upload, see the plan, compile, serve, run: the thesis's one click, and what led to it."""
    with opened(browser, web) as page:
        enter(page)
        assert page.url == f"{web.url}/"  # the address does not show the token
        page.set_input_files("#model-files", root / "models/cifar10_vgg.onnx")
        expect(page.locator("#upload-state")).to_contain_text("cifar10_vgg")
        page.fill("#budget", "80")
        page.select_option("#split", "pooling")
        page.select_option("#preprocess", "cifar10")
        page.click("#show-plan")
        expect(page.locator("#build-state")).to_have_attribute("data-state", "done")
        planned = web.get("/api/builds")[0]
        assert planned["dry_run"]
        rows = page.locator("#plan-table tr[data-step]")
        expect(rows).to_have_count(len(planned["plan"]["partitions"]))
        for row, part in zip(rows.all(), planned["plan"]["partitions"], strict=True):
            assert part["name"] in row.inner_text()
            assert part["reason"]["text"] in row.inner_text()
        expect(page.locator("#graph .node")).to_have_count(len(planned["plan"]["partitions"]))
        page.fill("#bundle-name", "mine")
        page.click("#compile")
        page.click('[data-bundle="mine"] button[data-action="serve"]')
        wait_for("loaded sub-bundles", lambda: web.get("/api/status")["bundle"] == "mine" and web.ready())
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#timeline .span")).to_have_count(len(web.get("/api/status")["shares"]))
        job = newest_job(web)
        assert job["name"] == photograph.name
        shown = page.locator("#top5").inner_text()
        assert all(f"{100 * scored['score']:.1f}" in shown for scored in job["top"])
        with page.expect_download() as download:
            page.click('[data-bundle="mine"] button[data-action="download"]')
        assert download.value.suggested_filename == "mine.tar"


def test_a_new_photograph_clears_the_answer_before(web: Web, browser: Browser, photograph: Path) -> None:
    with opened(browser, web) as page:
        enter(page)
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#top5")).to_be_visible()
        page.route("**/api/jobs?*", lambda route: None)  # the next input stays on its way
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#job-state")).to_have_text(f"{photograph.name}: sending …")
        expect(page.locator("#top5")).to_be_hidden()
        expect(page.locator("#timeline .span")).to_have_count(0)
        expect(page.locator("#preview")).to_be_visible()
        page.locator("#jobs button").first.click()  # the answer before can be looked at again, without the new photograph
        expect(page.locator("#top5")).to_be_visible()
        expect(page.locator("#preview")).to_be_hidden()


def test_an_input_that_is_refused_leaves_no_old_answer(web: Web, browser: Browser, photograph: Path) -> None:
    with opened(browser, web) as page:
        enter(page)
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#top5")).to_be_visible()
        page.route("**/api/jobs?*", lambda route: route.fulfill(status=503, json={"detail": "64 inputs wait"}))
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#job-state")).to_have_text(f"{photograph.name}: failed. 64 inputs wait")
        expect(page.locator("#top5")).to_be_hidden()


def test_a_job_that_nobody_can_compute_is_cancelled(
    start_web: Callable[..., Web], browser: Browser, photograph: Path
) -> None:
    """The page and the REST interface say which steps no board holds; a board that comes later computes the others."""
    web = start_web(1)
    wait_for("loaded sub-bundles", web.ready)
    steps = sum(share["stop"] - share["start"] for share in web.get("/api/status")["shares"])
    web.devices.kill("w0")
    wait_for("its loss", lambda: not web.worker("w0")["online"])
    said = f"no board holds steps 0 to {steps - 1} (00-relu1_1 to 13-scores)"
    with opened(browser, web) as page:
        page.set_input_files("#image-file", photograph)
        expect(page.locator("#job-blocked")).to_contain_text(said)
        expect(page.locator("#job-blocked")).to_contain_text("connect a board with enough memory")
        expect(page.locator("#jobs .state")).to_have_text("blocked")
        assert said in newest_job(web)["blocked"]
        assert said in web.get("/api/status")["problem"]
        assert web("GET", f"/api/jobs/{newest_job(web)['id']}/outputs").status_code == 409
        page.click("#job-cancel")
        expect(page.locator("#job-state")).to_have_text(f"{photograph.name}: cancelled.")
        expect(page.locator("#job-cancel")).to_be_hidden()
    assert (newest_job(web)["state"], newest_job(web)["blocked"]) == ("cancelled", None)
    waiting = [web("POST", "/api/jobs", data=photograph.read_bytes()) for _ in range(6)]  # more than run at a time
    wait_for("the job's problem", lambda: all(web.get(f"/api/jobs/{job.json()['id']}")["blocked"] for job in waiting))
    for job in waiting[1:]:
        assert web("DELETE", f"/api/jobs/{job.json()['id']}").status_code == 204
        assert web.done("jobs", job)["state"] == "cancelled"
    wait_for("the manager to forget them", lambda: web.get("/api/status")["jobs"] == 1)
    assert not [*(web.library / "spool").glob("*.npz")]
    web.devices.start_worker("w0")
    job = web.done("jobs", waiting[0])
    assert (job["state"], job["blocked"]) == ("done", None)
    assert web("DELETE", f"/api/jobs/{job['id']}").status_code == 204
    assert web.get(f"/api/jobs/{job['id']}") == job
    assert web("DELETE", "/api/jobs/abc").status_code == 404


def test_the_model_comes_first_while_nothing_is_served(idle_web: Web, browser: Browser) -> None:
    for size in [(1280, 800), (390, 844)]:
        with opened(browser, idle_web, size=size) as page:
            expect(page.locator("#next-step")).to_be_visible()
            for part in ("#model-title", "#drop-model", "#model-files", "#model"):
                box = page.locator(part).bounding_box()
                assert box
                assert box["y"] + box["height"] < size[1], (part, size)


def test_a_board_is_unplugged_while_the_page_is_open(web: Web, browser: Browser, photograph: Path) -> None:
    before = web.done("jobs", web("POST", "/api/jobs", data=photograph.read_bytes()))["top"]
    with opened(browser, web) as page:
        enter(page)
        card = page.locator('[data-worker="w1"]')
        expect(card).not_to_have_class("gone")
        expect(card.get_by_role("button", name="Drain w1")).to_be_visible()
        held = next(share for share in web.get("/api/status")["shares"] if "w1" in share["homes"])
        web.devices.freeze("w1")
        expect(page.locator('[data-worker="w1"].gone')).to_be_visible()
        expect(card.get_by_role("button")).to_have_count(0)
        homes = next(share for share in web.get("/api/status")["shares"] if share["number"] == held["number"])["homes"]
        assert "w1" in homes or "w1 is gone" in web.devices.log("manager")  # it looks gone before its sub-bundle moves
        job = web("POST", "/api/jobs", data=photograph.read_bytes())  # the hub notices the loss after six seconds
        expect(page.locator("#moved")).to_contain_text("from w1 to")
        expect(page.locator('[data-worker="w0"].gone')).to_have_count(0)
        assert not any("w1" in homes for homes in web.homes())
        assert web.done("jobs", job)["top"] == before


def test_wrong_token(web: Web, browser: Browser) -> None:
    with opened(browser, web, token="wrong" * 5) as page:
        expect(page.locator("#token-message")).to_contain_text("wrong token")
        expect(page.locator("[data-worker]")).to_have_count(0)
        page.fill("#token", web.token)
        page.keyboard.press("Enter")
        enter(page)


def test_an_upload_that_is_too_large(idle_web: Web, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "large.onnx").write_bytes(bytes(6_000_000))
    with opened(browser, idle_web) as page:
        page.set_input_files("#model-files", tmp_path / "large.onnx")
        expect(page.locator("#error")).to_contain_text("1 MB at most")
    assert idle_web.get("/api/models") == []


def test_two_tabs_see_the_same(web: Web, browser: Browser, photograph: Path) -> None:
    with opened(browser, web) as first, opened(browser, web) as second:
        enter(first)
        enter(second)
        before = len(web.get("/api/jobs"))
        first.set_input_files("#image-file", photograph)
        expect(second.locator("#jobs [data-job]")).to_have_count(before + 1)
        first.click('[data-worker="w2"] button')
        expect(second.locator('[data-worker="w2"] .badge')).to_have_attribute("data-word", "drained")


def test_a_camera(web: Web, browser: Browser) -> None:
    def done() -> int:
        return sum(job["name"].startswith("camera") and job["state"] == "done" for job in web.get("/api/jobs"))

    with opened(browser, web) as page:
        enter(page)
        page.click("#camera")
        wait_for("some frames", lambda: done() >= 3)
        expect(page.locator("#top5")).to_be_visible()
        page.click("#camera-stop")
        expect(page.locator("#camera-stop")).to_be_hidden()
        frames = [job for job in web.get("/api/jobs") if job["name"].startswith("camera")]
        assert all(job["state"] in ("done", "running", "waiting") for job in frames)


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
    with opened(browser, web, size=(width, 800), scheme=scheme) as page:
        enter(page)
        expect(page.locator("#graph .node")).not_to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        channels = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")[:3]
        assert (sum(map(int, channels)) > 600) == (scheme == "light")
        assert page.evaluate("document.querySelector('.column > section').id") == "boards-section"


def test_the_manager_is_lost_and_back(start_web: Callable[..., Web], browser: Browser, tmp_path: Path) -> None:
    """The manager is killed and started again at the same address with the same token: the page goes on."""
    (tmp_path / "token").write_text("0123456789abcdef0123")
    options = ("--token-file", tmp_path / "token", "--web", f"127.0.0.1:{free_port()}")
    web = replace(start_web(1, *options), token="0123456789abcdef0123")
    with opened(browser, web, loses=True) as page:
        enter(page, 1)
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        web.devices.kill("manager")
        expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
        start_web(0, *options)
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        enter(page, 1)


def test_the_interfaces_description(web: Web, browser: Browser) -> None:
    """Swagger UI, from our own files, under our own policy."""
    with browser.new_context() as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{web.url}/docs")
        paths = web.get("/openapi.json")["paths"]
        expect(page.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
        expect(page.locator("body")).to_contain_text("Cancel a job")
    assert all(url.startswith((web.url, "data:")) for url in asked)


def test_the_energy_of_all_boards(start_web: Callable[..., Web], browser: Browser) -> None:
    """Without a meter anywhere the page says nothing of energy; with one it names the source of each figure."""
    web = start_web(1, "--meter", "echo 5")
    web.devices.start_worker("w1", "--watts", "1.5,4")
    with opened(browser, web) as page:
        enter(page, 2)
        expect(page.locator("#energy")).to_contain_text("5.00 W, 5.00 W idle")
        expect(page.locator("[data-worker=w1]")).to_contain_text("Power")
        expect(page.locator("[data-worker=w0] dt", has_text="Power")).to_be_hidden()
        title = "manager and hub: meter 'echo 5'; w1: estimated from --watts; not known: w0"
        expect(page.locator("#energy")).to_have_attribute("title", title)
