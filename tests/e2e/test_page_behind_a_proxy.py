"""The page where a proxy shows the service under a prefix that it strips."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver import Chrome

from tests.e2e.page import IMAGE, Page
from tests.images import png
from tests.live import live_server


@contextmanager
def stripping_proxy(upstream: str, prefix: str) -> Iterator[str]:
    """Show what is at ``upstream`` under ``prefix``, and nothing else; gives the address that has it."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.removeprefix(prefix) or "/"
            answer = httpx.request(self.command, f"{upstream}{path}", content=body, timeout=60)
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Security-Policy"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = forward  # noqa: N815 - names that the base class asks for

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}"
        proxy.shutdown()


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_works_under_a_prefix_with_and_without_a_slash_behind_it(
    browser: Chrome, under_a_prefix: str, tmp_path: Path, slash: str
) -> None:
    page = Page(browser, f"{under_a_prefix}{slash}", tmp_path)
    page.choose("a.png", png(IMAGE))
    assert "24 objects" in page.text("facts")
    assert page.script("return [...document.links].map((link) => link.href)") == [
        f"{under_a_prefix}/{name}" for name in ("docs", "models", "readyz", "metrics")
    ]
    asked = [url for url in page.requested() if url.startswith("http")]
    assert f"{under_a_prefix}/segment" in {url.partition("?")[0] for url in asked}
    assert all(url.startswith(under_a_prefix) for url in asked)


@pytest.fixture(scope="module")
def under_a_prefix(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[str]:
    with (
        live_server(tmp_path_factory.mktemp("prefixed"), packages, root_path="/unet/") as server,
        stripping_proxy(server.url, "/unet") as url,
    ):
        yield url
