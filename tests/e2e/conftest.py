"""One running service for the tests that leave it as it was, and a browser for those of its page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.e2e.page import Page
from tests.live import LiveServer, live_server
from tests.packages import write_tiny_package

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with package ``tiny``."""
    folder = tmp_path_factory.mktemp("packages")
    write_tiny_package(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[LiveServer]:
    """A service of default settings."""
    with live_server(tmp_path_factory.mktemp("server"), packages) as running:
        yield running


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser with a profile of its own; downloads go where fixture ``page`` says."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    running = Chrome(options=options, service=Service(driver))
    yield running
    running.quit()


@pytest.fixture
def page(browser: Chrome, server: LiveServer, tmp_path: Path) -> Iterator[Page]:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.set_window_size(1280, 900)
    opened = Page(browser, server.url, tmp_path)
    opened.complaints()
    yield opened
    allowed = {"127.0.0.1"}
    web = [urlsplit(url) for url in opened.requested() if url.startswith(("http", "ws"))]
    assert web
    assert {address.hostname for address in web} == allowed
    # a refused request is the browser's own remark; anything else is a fault of the page
    assert not [entry for entry in opened.complaints() if entry["source"] != "network"]
