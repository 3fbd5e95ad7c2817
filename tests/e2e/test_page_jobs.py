"""What becomes of the jobs of a page that is stopped, left, or cut off from the service."""

from __future__ import annotations

import httpx
import pytest
from selenium.webdriver.common.by import By

from tests.e2e.page import IMAGE, Page
from tests.images import disc, png
from tests.live import LiveServer, wait_until

AS_JOB = """
    forecast = async () => ({expected_seconds: 1000, isLong: true});
    Work.prototype.pause = async function () { this.note = ""; };
"""
# the service takes the job, and its answer does not come
LOSING_THE_ANSWER = """
    fetch = ((before) => (address, options = {}) => {
      if (options.method !== "POST") return before(address, options);
      const note = async (answer) => { window.taken = (await answer.json()).id; };
      before(address, {...options, signal: undefined}).then(note);
      return new Promise((_, reject) => options.signal.addEventListener("abort", () => reject(options.signal.reason)));
    })(fetch);
"""
CUT_OFF = """
    window.away = true;
    fetch = ((before) => (address, ...rest) => away && address.startsWith("jobs/")
      ? Promise.reject(new TypeError("Failed to fetch")) : before(address, ...rest))(fetch);
"""


def is_there(server: LiveServer, job: str) -> bool:
    return httpx.get(f"{server.url}/jobs/{job}").status_code == 200


def click(page: Page, name: str) -> None:
    page.browser.find_element(By.ID, name).click()


def job_without_answer(page: Page, server: LiveServer) -> str:
    page.script(AS_JOB + LOSING_THE_ANSWER)
    page.hand_over("a.png", png(IMAGE))
    page.until(lambda: page.script("return window.taken ?? null"))
    job: str = page.script("return taken")
    assert is_there(server, job)
    return job


def job_cut_off(page: Page) -> str:
    page.script(AS_JOB + CUT_OFF)
    page.choose("a.png", png(IMAGE))
    assert page.text("status") == "a.png: The service does not answer."
    assert page.shown("again")
    [job] = page.script("return [...jobs.keys()]")
    return str(job)


@pytest.mark.parametrize("by", ["cancel", "another file", "reload"])
def test_a_job_whose_answer_has_not_come_is_deleted_with_what_asked_for_it(
    page: Page, server: LiveServer, by: str
) -> None:
    job = job_without_answer(page, server)
    if by == "cancel":
        click(page, "cancel")
    elif by == "another file":
        page.hand_over("b.png", png(disc()))
    else:
        page.browser.refresh()
    wait_until(lambda: not is_there(server, job))


def test_a_job_that_was_still_on_its_way_is_deleted_once_it_is_there(page: Page, server: LiveServer) -> None:
    page.script("window.later = []; setTimeout = (call) => later.push(call)")
    job = page.script("const id = newJob(); release(id); return id")
    page.until(lambda: page.script("return later.length") == 1)
    taken = httpx.post(f"{server.url}/segment", content=png(IMAGE), headers={"Prefer": f"respond-async; id={job}"})
    assert taken.json()["id"] == job
    page.script("later[0]()")
    wait_until(lambda: not is_there(server, job))


def test_a_page_that_may_come_back_keeps_its_job(page: Page, server: LiveServer) -> None:
    job = job_without_answer(page, server)
    page.script("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    assert page.script("return unwanted.size") == 0
    assert is_there(server, job)
    page.script("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: false}))")
    wait_until(lambda: not is_there(server, job))


def test_nobody_leaves_a_long_job_without_being_asked(page: Page) -> None:
    leave = "return dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert page.script(leave)
    page.script("id = newJob()")
    assert page.script(leave), "it has just begun"
    page.script("jobs.set(id, performance.now() - 6000)")
    assert not page.script(leave)
    page.script("release(id)")
    assert page.script(leave)


def test_a_page_that_was_cut_off_goes_on_with_its_job(page: Page, server: LiveServer) -> None:
    job = job_cut_off(page)
    page.script("window.away = false")
    click(page, "again")
    page.until(lambda: page.text("status").startswith("Done"))
    assert "24 objects" in page.text("facts")
    assert page.paths().count("/segment") == 1
    assert f"/jobs/{job}/result" in page.paths()
    wait_until(lambda: not is_there(server, job))


def test_a_page_that_was_cut_off_deletes_its_job_when_it_is_left(page: Page, server: LiveServer) -> None:
    job = job_cut_off(page)
    page.script("window.away = false")
    page.browser.refresh()
    wait_until(lambda: not is_there(server, job))


@pytest.mark.parametrize("by", ["cancel", "another file", "other options"])
def test_a_job_that_nobody_wants_any_more_is_deleted_once_the_service_is_heard(
    page: Page, server: LiveServer, by: str
) -> None:
    job = job_cut_off(page)
    if by == "cancel":
        click(page, "cancel")
        assert page.text("status") == "Cancelled a.png."
        assert not page.shown("cancel")
        assert not page.shown("again")
    elif by == "another file":
        page.hand_over("b.png", png(disc()))
    else:
        page.set("threshold", "0.6")
    page.until(lambda: page.script(f"return unwanted.has('{job}')"))
    assert is_there(server, job)
    page.script("window.away = false; dispatchEvent(new Event('online'))")
    wait_until(lambda: not is_there(server, job))


def test_a_job_that_is_sent_again_is_the_one_that_was_taken(page: Page) -> None:
    page.script(AS_JOB)
    page.script(
        """
        window.posts = 0;
        fetch = ((before) => (address, options) => before(address, options).then((answer) => {
          if (options?.method === "POST" && ++posts === 1) throw new TypeError("Failed to fetch");
          return answer;
        }))(fetch);
        """
    )
    page.choose("a.png", png(IMAGE))
    assert "24 objects" in page.text("facts")
    assert page.script("return posts") == 2
    assert page.script("return jobs.size") == 0


def test_steps_of_a_number_are_acted_on_once(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.script(
        "for (const value of ['0.4', '0.5', '0.6']) {"
        "$('threshold').value = value; $('threshold').dispatchEvent(new Event('change')); }"
    )
    assert page.outdated()
    page.until(lambda: page.text("status").startswith("Done") and not page.outdated())
    assert page.paths().count("/segment") == 2
    assert '"threshold": 0.6' in page.script("return $('receipt').textContent")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"pixels_done": 40, "seconds_left": 9.5, "output": "labels"}, "40 %, about 10 s left"),
        ({"pixels_done": 40, "seconds_left": None, "output": "labels"}, "40 %"),
        ({"pixels_done": 100, "seconds_left": 3.2, "output": "labels"}, "finding objects, about 4 s left"),
        ({"pixels_done": 100, "seconds_left": None, "output": "labels"}, "finding objects"),
        ({"pixels_done": 100, "seconds_left": None, "output": "mask"}, "writing the result"),
    ],
)
def test_what_comes_after_the_net_is_named(page: Page, report: dict[str, object], words: str) -> None:
    assert (
        page.browser.execute_script("return standing({state: 'running', pixels: 100, ...arguments[0]})", report)
        == f" · {words}"
    )


def test_what_was_foreseen_is_not_said_any_more_after_a_wait(page: Page) -> None:
    page.script(
        """
        window.work = new Work({line: $("status"), clock: $("clock"), cancel: $("cancel")}, "Segmenting");
        work.note = " of at least 4 s";
        """
    )
    page.until(lambda: page.text("clock").endswith(" of at least 4 s"))
    page.browser.execute_async_script("work.pause('The service is busy', 0.01).then(arguments[0])")
    page.until(lambda: page.text("clock").endswith(" s") and "of" not in page.text("clock"))
    page.script("work.end()")


def test_a_service_that_is_busy_for_long_is_not_asked_for_ever(page: Page) -> None:
    page.script(
        """
        Work.prototype.pause = async () => null;
        window.late = 0;
        performance.now = ((before) => () => before() + late)(performance.now.bind(performance));
        fetch = ((before) => async (address, ...rest) => {
          if (!address.startsWith("segment")) return before(address, ...rest);
          late += 250_000;
          return Response.json({title: "busy", detail: "busy"}, {status: 503, headers: {"Retry-After": "1"}});
        })(fetch);
        """
    )
    page.choose("a.png", png(IMAGE))
    assert page.text("status") == "a.png: busy"
    assert page.script("return late") == 750_000


def test_a_file_beyond_the_limit_is_not_sent(page: Page, server: LiveServer) -> None:
    limit = httpx.get(f"{server.url}/models").json()["max_body_bytes"]
    assert page.script("return most") == limit == 512 << 20
    page.script("most = 100")
    page.choose("a.png", png(IMAGE))
    assert page.failed()
    assert page.text("status").startswith(f"a.png has {len(png(IMAGE))} bytes, the service takes 100; compress")
    assert "/segment" not in page.paths()


def test_a_refusal_names_what_the_page_has(page: Page) -> None:
    detail = "the answer was not ready in the 5 s allowed; raise the timeout or send less"
    problem = {"type": "/problems/deadline-exceeded", "detail": detail}
    words = page.browser.execute_script("return refused(arguments[0], 504).message", problem)
    assert words.startswith("the answer was not ready in the 5 s allowed; choose a smaller part of the image, or ask")


def test_what_becomes_of_a_file_is_in_view_on_a_telephone(page: Page) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 664, "deviceScaleFactor": 1, "mobile": True}
    )
    page.choose("a.png", png(IMAGE))
    assert page.script("return scrollY") == 0
    assert page.script("return $('progress').getBoundingClientRect().bottom") < 664
