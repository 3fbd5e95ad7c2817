"""A stand-in for a replica that misbehaves as told; run inside a container, so the standard library must do.

    python replica.py good|busy|breaking|waiting

All are ready. ``good`` answers a POST with the number of bytes that came; ``busy`` refuses it with 503 after the last
byte; ``breaking`` hangs up instead of answering; ``waiting`` never answers; how many
wait, and how many were hung up on, it says to a GET.
"""

from __future__ import annotations

import http.server
import sys
from contextlib import suppress

_CHUNK = 1 << 20


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers every path alike."""

    protocol_version = "HTTP/1.1"
    behaviour = "good"
    waiting = 0
    hung_up = 0

    def do_GET(self) -> None:
        """Be ready."""
        self._answer(200, b"%d wait, %d hung up" % (self.waiting, self.hung_up))

    def do_POST(self) -> None:
        """Take the body, then do as told."""
        left = int(self.headers["Content-Length"])
        count = 0
        while left > count:
            count += len(self.rfile.read(min(_CHUNK, left - count)))
        if self.behaviour == "waiting":
            Replica.waiting += 1
            with suppress(ConnectionResetError):
                self.rfile.read(1)
            Replica.waiting -= 1
            Replica.hung_up += 1
        if self.behaviour in {"breaking", "waiting"}:
            self.close_connection = True
        elif self.behaviour == "busy":
            self._answer(503, b'{"type": "/problems/overloaded"}', {"Retry-After": "7"})
        else:
            self._answer(200, b"%d" % count, {"X-Seen-Request-ID": self.headers["X-Request-ID"]})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Replica.behaviour = sys.argv[1]
    http.server.ThreadingHTTPServer(("", 8000), Replica).serve_forever()
