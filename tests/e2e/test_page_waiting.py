"""What the page makes of a service that is busy, away or slow: it asks again, keeps the result, and can be stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.e2e.page import IMAGE, Page
from tests.images import noise, png, tiff
from tests.live import LiveServer, live_tiny

AWAY = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
OVERLOADED = {"type": "/problems/overloaded", "title": "The service has as much work as it can promise", "status": 503}
BUSY = """
    const [problem, status, headers, times] = arguments;
    window.left = times;
    fetch = ((before) => async (address, ...rest) => address.startsWith("segment") && left-- > 0
      ? Response.json(problem, {status, headers}) : before(address, ...rest))(fetch);
"""
NEVER = """
    fetch = ((before) => (address, ...rest) => address.startsWith("segment")
      ? new Promise(() => {}) : before(address, ...rest))(fetch);
"""
NOTE_CLOCK = """
    window.clocks = [];
    new MutationObserver(() => clocks.push($("clock").textContent)).observe($("clock"), {childList: true});
"""
NO_PAUSES = """
    window.pauses = [];
    Work.prototype.pause = async function (why, seconds) { pauses.push([why, seconds]); };
"""
PLANNED = """
    const told = arguments[0];
    fetch = ((before) => async (address, ...rest) => {
      const answer = await before(address, ...rest);
      return address.startsWith("plan") ? Response.json({...await answer.json(), ...told}) : answer;
    })(fetch);
"""
QUEUED = """
    const told = arguments[0];
    fetch = ((before) => async (address, ...rest) => {
      const answer = await before(address, ...rest);
      return /^jobs.*wait=/.test(address) ? Response.json({...await answer.json(), ...told}) : answer;
    })(fetch);
"""


def click(page: Page, name: str) -> None:
    page.browser.find_element(By.ID, name).click()


def go_away(page: Page, *, away: bool) -> None:
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**AWAY, "offline": away})


@pytest.mark.parametrize(
    ("problem", "status"), [(OVERLOADED, 503), (OVERLOADED, 502), ({}, 504)], ids=["overloaded", "502", "proxy"]
)
def test_a_busy_service_is_asked_again_when_it_says_so(page: Page, problem: dict[str, Any], status: int) -> None:
    page.choose("a.png", png(IMAGE))
    page.browser.execute_script(BUSY, problem, status, {"Retry-After": "2"}, 1)
    page.script(NOTE_CLOCK)
    page.set("threshold", "0.6")
    page.until(lambda: page.text("status") == f"{problem.get('title', 'The service is busy')}; the page asks again")
    assert page.shown("canvas")
    assert page.outdated()
    assert not page.failed()
    page.until(lambda: page.text("status").startswith("Done"))
    assert not page.outdated()
    assert {"in 2 s", "in 1 s"} <= set(page.script("return clocks"))


def test_a_download_waits_for_a_busy_service(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.browser.execute_script(BUSY, OVERLOADED, 503, {"Retry-After": "1"}, 1)
    click(page, "download")
    page.until(lambda: page.text("saved") == f"{OVERLOADED['title']}; the page asks again")
    page.until(lambda: page.text("saved").startswith("Saved "))


def test_a_service_that_comes_back_is_asked_again(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    go_away(page, away=True)
    page.set("threshold", "0.6")
    page.until(lambda: page.text("status") == "The service does not answer; the page asks again")
    go_away(page, away=False)
    page.until(lambda: page.text("status").startswith("Done"))


def test_a_service_that_stays_away_is_named_and_asked_again_by_hand(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.script(NO_PAUSES)
    go_away(page, away=True)
    page.set("threshold", "0.6")
    page.until(page.failed)
    assert page.text("status") == "a.png: The service does not answer; what is shown is the result before."
    assert page.outdated()
    pauses = [seconds for _, seconds in page.script("return pauses")]
    assert pauses[:5] == [0.5, 1, 2, 4, 8]
    assert sum(pauses) <= 60
    go_away(page, away=False)
    click(page, "again")
    page.until(lambda: page.text("status").startswith("Done"))
    assert not page.shown("again")


def test_a_service_that_stays_busy_is_not_asked_for_ever(page: Page) -> None:
    page.script(NO_PAUSES)
    page.browser.execute_script(BUSY, {**OVERLOADED, "detail": "come back"}, 503, {"Retry-After": "100"}, 100)
    page.choose("a.png", png(IMAGE))
    assert page.text("status") == "a.png: come back"
    assert page.script("return pauses") == [[OVERLOADED["title"], 100]] * 5, (
        "with the time that the answers took 600 s at most"
    )
    assert page.shown("again")


def test_a_file_that_cannot_be_read_any_more_is_named_at_once(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    (page.folder / "a.png").unlink()
    click(page, "download")
    page.until(lambda: page.text("saved") == "Nothing is saved: a.png cannot be read any more; choose it again.")
    page.set("threshold", "0.6")
    page.until(page.failed)
    assert page.text("status").startswith("a.png cannot be read any more; choose it again;")
    assert not page.shown("again")


def test_the_plane_stays_where_options_change_and_not_where_the_file_does(page: Page) -> None:
    stack = tiff(np.stack([IMAGE] * 3), imagej=True, metadata={"axes": "ZYX"})
    page.choose("stack.tif", stack)
    page.browser.find_element(By.ID, "plane").send_keys(Keys.END)
    page.until(lambda: "plane 3 of 3" in page.text("facts"))
    page.set("min_area", "100")
    page.until(lambda: '"min_area": 100' in page.script("return $('receipt').textContent"))
    assert "plane 3 of 3" in page.text("facts")
    page.choose("other.tif", stack)
    assert "plane 1 of 3" in page.text("facts")


def test_a_wrong_value_keeps_the_result_before_without_its_download(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.set("threshold", "7")
    page.until(page.failed)
    refusal = httpx.post(f"{page.url}/segment", params={"threshold": "7"}, content=png(IMAGE)).json()
    assert page.text("status") == f"a.png: {refusal['detail'].rstrip('.')}; what is shown is the result before."
    assert page.shown("canvas")
    assert page.outdated()
    page.set("threshold", "0.6")
    page.until(lambda: page.text("status").startswith("Done"))
    assert not page.outdated()


def test_the_clock_stands_beside_what_was_estimated(page: Page) -> None:
    page.browser.execute_script(PLANNED, {"expected_seconds": 7})
    page.script(NEVER)
    page.hand_over("a.png", png(IMAGE))
    page.until(lambda: page.text("clock").endswith(" of about 7 s"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service whose requests may take a fifth of a second, and its jobs as long as they need."""
    with live_tiny(tmp_path_factory.mktemp("slow"), deadline_s=0.2) as running:
        yield running


def test_what_is_too_long_for_a_request_goes_as_a_job(browser: Chrome, slow: LiveServer, tmp_path: Path) -> None:
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page = Page(browser, slow.url, tmp_path)
    page.choose("large.png", png(np.tile(IMAGE, (16, 12))))
    assert page.text("status").startswith("Done")
    assert any(path.startswith("/jobs/") and path.endswith("/result") for path in page.paths())
    page.set("format", "csv")
    click(page, "download")
    page.until(lambda: page.text("saved").startswith("Saved "))
    page.until((tmp_path / page.text("saved").removeprefix("Saved ")).is_file)
    assert sum(path.endswith("/result") for path in page.paths()) == 2
    metrics = httpx.get(f"{slow.url}/metrics").text
    assert 'unet_jobs{state="done"} 0.0' in metrics, "who has a result leaves none behind"


@pytest.mark.parametrize(
    ("before", "left", "words"),
    [
        (12, 250, "12 jobs before yours, about 5 min left"),
        (1, 40, "1 job before yours, about 40 s left"),
        (0, 7, "next in the queue, about 7 s left"),
        (None, None, "in the queue"),
    ],
)
def test_a_job_that_waits_for_its_turn_says_its_place(
    page: Page, before: int | None, left: float | None, words: str
) -> None:
    page.browser.execute_script(PLANNED, {"expected_seconds": 1000})
    page.browser.execute_script(QUEUED, {"state": "queued", "jobs_before": before, "seconds_left": left})
    page.hand_over("a.png", png(IMAGE))
    page.until(lambda: page.text("clock").endswith(f" s, {words}"))
    click(page, "cancel")


@pytest.mark.parametrize("as_job", [False, True])
def test_work_is_cancelled(page: Page, server: LiveServer, as_job: bool) -> None:
    page.choose("a.png", png(IMAGE))
    page.browser.execute_script(PLANNED, {"expected_seconds": 1000 if as_job else 1})
    page.script("$('mirror').checked = true; $('output').value = 'mask'")
    page.hand_over("large.png", png(noise(6000, 6000)))
    begun = "/jobs/" if as_job else "/segment"
    page.until(lambda: any(path.startswith(begun) for path in page.paths()) and page.text("clock"))
    click(page, "cancel")
    assert page.text("status") == "Cancelled large.png."
    assert not page.failed()
    assert not page.shown("cancel")
    assert page.text("clock") == ""

    def idle() -> bool:
        return bool(httpx.get(f"{server.url}/plan", params={"size": "64x64"}).json()["backlog_seconds"] == 0)

    page.until(idle)
    page.script("$('mirror').checked = false")
    page.choose("a.png", png(IMAGE))
    assert not page.shown("again")
