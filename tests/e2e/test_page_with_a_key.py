"""Pages opened from an address that holds a key: browsers make no request from those as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from tests.e2e.page import IMAGE, WAIT_S, Page
from tests.images import png
from tests.live import live_server

KEY = "alice-key-0123456789"


@pytest.fixture(scope="module")
def with_a_key(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[str]:
    """Address of a service that wants a key, and the key in it."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"alice:{KEY}\n")
    with live_server(folder, packages, api_keys_file=folder / "keys") as running:
        yield running.url.replace("://", f"://any:{KEY}@")


def test_the_page_segments(browser: Chrome, with_a_key: str, tmp_path: Path) -> None:
    page = Page(browser, f"{with_a_key}/?from=bookmark#drop", tmp_path)
    page.choose("a.png", png(IMAGE))
    assert "24 objects" in page.text("facts")
    assert page.script("return document.baseURI") == with_a_key.replace(f"any:{KEY}@", "") + "/?from=bookmark#drop"


def test_the_interface_is_shown(browser: Chrome, with_a_key: str) -> None:
    browser.get(f"{with_a_key}/docs")
    shown = "return document.body.innerText.includes('Segment an image')"
    WebDriverWait(browser, WAIT_S).until(lambda _: browser.execute_script(shown))
