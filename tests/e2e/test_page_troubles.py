"""What the page makes of other orders of events than the best: answers that break off, models that come and go."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from service.client import Client
from tests.e2e.page import IMAGE, Page
from tests.images import disc, png

HELD = """
    ask = ((before) => async (...given) => {
      if (given[2] === "blob") await new Promise((resume) => { window.release = resume; });
      return before(...given);
    })(ask);
"""
BREAKING_OFF = """
    window.left = arguments[0];
    fetch = ((before) => async (address, ...rest) => {
      const answer = await before(address, ...rest);
      if (!address.startsWith("segment") || left-- <= 0) return answer;
      return new Response(new ReadableStream({ pull(to) { to.error(new TypeError("Failed to fetch")); } }), answer);
    })(fetch);
"""
LOADING = """
    window.loading = true;
    window.said = [];
    say = ((before) => (...words) => { said.push(words[0]); before(...words); })(say);
    fetch = ((before) => async (address, ...rest) => {
      if (!loading) return before(address, ...rest);
      if (address === "models") return Response.json({models: [], problem: "packages load: tiny"});
      const problem = {type: "/problems/not-ready", title: "The service is not ready", detail: "packages load"};
      return Response.json(problem, {status: 503, headers: {"Retry-After": "5"}});
    })(fetch);
    $("model").replaceChildren();
    listModels();
"""
UPDATED = """
    fetch = ((before) => async (address, ...rest) => address === "models"
      ? Response.json({models: [{name: "alder", version: "1.0.0", default: true}, {name: "tiny", version: "1.0.0"}]})
      : before(address, ...rest))(fetch);
    $("model").replaceChildren(new Option("before", "tiny@0.9.0"));
"""


def test_a_download_keeps_its_name_while_another_image_is_chosen(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.set("format", "npy")
    page.script(HELD)
    button = page.browser.find_element(By.ID, "download")
    button.click()
    page.until(lambda: page.text("saved") == "Writing the file of a.png …")
    assert not button.is_enabled(), "each click would have it segmented again"
    page.choose("b.png", png(disc()))
    status = page.text("status")
    assert not button.is_enabled()
    page.script("release()")
    page.until(lambda: page.text("saved").startswith("Saved "))
    assert page.text("status") == status
    assert button.is_enabled()
    saved = page.folder / page.text("saved").removeprefix("Saved ")
    assert saved.name.startswith("a-")
    page.until(saved.is_file)
    with Client(page.url) as client:
        assert saved.read_bytes() == client.segment(png(IMAGE), output="labels", format="npy")
    page.choose("c.png", png(disc()))
    assert page.text("saved") == "", "what is said belongs to what is shown"


def test_an_answer_that_breaks_off_is_asked_for_once_more(page: Page) -> None:
    page.browser.execute_script(BREAKING_OFF, 1)
    page.choose("a.png", png(IMAGE))
    assert "24 objects" in page.text("facts")
    assert page.paths().count("/segment") == 2


def test_answers_that_always_break_off_are_named(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.browser.execute_script(BREAKING_OFF, 4)
    button = page.browser.find_element(By.ID, "download")
    button.click()
    page.until(lambda: page.text("saved") == "Nothing is saved of a.png: The answer broke off twice; try it again.")
    assert page.text("status").startswith("Done"), "what is shown is as good as before"
    assert button.is_enabled()
    page.choose("b.png", png(IMAGE))
    assert page.failed()
    assert page.text("status") == "b.png: The answer broke off twice; try it again."


def test_a_page_opened_before_the_models_are_loaded_goes_on_when_they_are(page: Page) -> None:
    page.script(LOADING)
    page.hand_over("a.png", png(IMAGE))
    page.until(lambda: page.text("status") == "The service is not ready; the page asks again")
    assert "No model is served yet: packages load: tiny." in page.script("return said")
    page.script("loading = false")
    page.until(lambda: "24 objects" in page.text("facts"))
    assert page.script("return $('model').value") == "tiny@1.0.0"
    assert not page.failed()


@pytest.mark.parametrize("asked_by", ["file", "download"])
def test_after_an_update_the_next_version_of_the_same_model_is_asked(page: Page, asked_by: str) -> None:
    if asked_by == "download":
        page.choose("a.png", png(IMAGE))
    page.script(UPDATED)
    if asked_by == "download":
        page.script("forgotten = $('receipt'); forgotten.textContent = ''")
        page.browser.find_element(By.ID, "download").click()
        page.until(lambda: "tiny@0.9.0" in page.text("saved"))
        page.until(lambda: page.script("return forgotten.textContent") != "")
    else:
        page.choose("a.png", png(IMAGE))
    assert "24 objects" in page.text("facts")
    assert page.script("return [$('model').length, $('model').value]") == [2, "tiny@1.0.0"]


def test_a_model_that_nothing_replaces_is_named_once(page: Page) -> None:
    page.script(UPDATED.replace('"tiny"', '"willow"'))
    page.choose("a.png", png(IMAGE))
    assert page.failed()
    refusal = httpx.post(f"{page.url}/segment", params={"model": "alder@1.0.0"}, content=png(IMAGE)).json()
    assert page.text("status") == f"a.png: {refusal['detail']}"
    assert page.paths().count("/segment") == 2


def test_an_empty_file_is_not_sent(page: Page) -> None:
    page.choose("empty.tif", b"")
    assert page.failed()
    assert page.text("status") == "empty.tif is empty: it has 0 bytes."
    assert "/segment" not in page.paths()


def test_what_is_no_number_is_not_taken_for_an_empty_field(page: Page) -> None:
    page.choose("a.png", png(np.hstack([IMAGE, disc(256, 64, radius=4)])))
    page.set("min_area", "1e")
    page.until(page.failed)
    assert page.text("status").startswith(
        "a.png: Smallest object, px is no number; left empty it is model's own; what is shown is"
    )
    assert page.outdated()
    assert page.paths().count("/segment") == 1
    page.set("min_area", "100")
    page.until(lambda: "24 objects" in page.text("facts"))
    assert not page.outdated()


def test_a_field_that_is_emptied_of_what_is_no_number_counts_as_empty(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    field = page.browser.find_element(By.ID, "min_area")
    field.send_keys("e", Keys.TAB)
    page.until(page.failed)
    assert field.get_attribute("aria-invalid") == "true"
    field.send_keys(Keys.BACKSPACE, Keys.TAB)
    page.until(lambda: page.text("status").startswith("Done"))
    assert not page.outdated()
    assert field.get_attribute("aria-invalid") == "false"
