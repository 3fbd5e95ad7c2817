"""A page of another origin, in a real browser: what it may read, and what it may not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.images import disc, npy
from tests.live import LiveServer, live_server

ASK = """
const [path, body, key, done] = arguments;
const headers = key ? {Authorization: `Bearer ${key}`, "X-Request-ID": "from-a-page"} : {};
const options = body.length ? {method: "POST", body: new Uint8Array(body), headers} : {headers};
fetch(path, options).then(async answer => done({
  status: answer.status, id: answer.headers.get("X-Request-ID"), receipt: answer.headers.get("X-UNet-Receipt"),
  size: (await answer.arrayBuffer()).byteLength,
}), error => done({failed: String(error)}));
"""
KEY = "alice-key-0123456789"


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
        pass


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Port of a server of pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield str(pages.server_address[1])
        pages.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, packages: Path, elsewhere: str) -> Iterator[LiveServer]:
    """A service that wants keys and lets one origin in."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"alice:{KEY}\n")
    origin = f"http://127.0.0.1:{elsewhere}"
    with live_server(folder, packages, api_keys_file=folder / "keys", cors_origins=origin) as running:
        yield running


def ask(browser: Chrome, url: str, body: bytes = b"", key: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = browser.execute_async_script(ASK, url, list(body), key)
    return answer


def test_a_page_of_a_named_origin_segments_and_reads_the_receipt(
    browser: Chrome, guarded: LiveServer, elsewhere: str
) -> None:
    browser.get(f"http://127.0.0.1:{elsewhere}/")
    answer = ask(browser, f"{guarded.url}/segment?format=npy", npy(disc()), KEY)
    assert (answer["status"], answer["id"]) == (200, "from-a-page")
    assert answer["size"] == len(npy(disc()))
    assert '"provider":"CPUExecutionProvider"' in answer["receipt"]


def test_it_reads_a_refusal(browser: Chrome, guarded: LiveServer, elsewhere: str) -> None:
    browser.get(f"http://127.0.0.1:{elsewhere}/")
    refused = ask(browser, f"{guarded.url}/segment", npy(disc()))
    assert refused["status"] == 401
    assert refused["id"]


def test_a_page_of_another_origin_reads_nothing(browser: Chrome, guarded: LiveServer, elsewhere: str) -> None:
    browser.get(f"http://localhost:{elsewhere}/")
    assert ask(browser, f"{guarded.url}/models", key=KEY) == {"failed": "TypeError: Failed to fetch"}
