"""docker/healthcheck.py against a server that listens as the settings say; no engine needed."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.docker.containers import PROJECT


class Probe(http.server.BaseHTTPRequestHandler):
    """Ready, or not."""

    protocol_version = "HTTP/1.1"
    status = 200

    def do_GET(self) -> None:
        """Answer as ``/readyz`` does."""
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()


@contextmanager
def listening(address: str, status: int = 200) -> Iterator[int]:
    """Give the port of a server on this address alone."""

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Server((address, 0), type("Answering", (Probe,), {"status": status})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def check(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run it as the image does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNET_")}
    command = [sys.executable, "-I", "-S", str(PROJECT / "docker" / "healthcheck.py")]
    return subprocess.run(command, env={**environment, **settings}, capture_output=True, text=True, check=False)


def has_ipv6() -> bool:
    """Whether this machine, or container, has an IPv6 address of its own."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = [("::", "::1"), ("::1", "::1")] if has_ipv6() else []


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - nothing is bound to it
        ("127.0.0.2", "127.0.0.2"),
        *IPV6,
    ],
)
@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)], ids=["ready", "unready"])
def test_it_asks_where_the_service_listens(host: str, address: str, status: int, expected: int) -> None:
    with listening(address, status) as port:
        done = check(UNET_HOST=host, UNET_PORT=str(port))
    assert (done.returncode, done.stderr) == (expected, "")


def test_where_nothing_listens_it_says_so() -> None:
    with listening("127.0.0.1") as port:
        pass
    done = check(UNET_HOST="127.0.0.1", UNET_PORT=str(port))
    assert (done.returncode, done.stderr) == (1, f"nothing listens on port {port} of 127.0.0.1\n")


def test_an_empty_port_is_the_default() -> None:
    """Asked of an address that nothing answers on."""
    done = check(UNET_HOST="127.0.0.3", UNET_PORT="")
    assert done.stderr == "nothing listens on port 8000 of 127.0.0.3\n"
