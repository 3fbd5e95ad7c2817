"""Exit status 0 where the service is ready, 1 where it is not: the HEALTHCHECK of the images.

A bare socket and no imports to speak of, because this program starts anew every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 5.0

# as the service reads them: empty is not set; where it listens on every address, which may be those of IPv6 alone
host, port = os.environ.get("UNET_HOST", ""), int(os.environ.get("UNET_PORT") or "8000")
for address in ("127.0.0.1", "::1") if host in ("", "0.0.0.0", "::") else (host,):  # noqa: S104 - nothing is bound here
    try:
        connection = socket.create_connection((address, port), TIMEOUT_S)
    except OSError:
        continue
    with connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        sys.exit(connection.recv(12) != b"HTTP/1.1 200")
sys.exit(f"nothing listens on port {port} of {host or 'this container'}")
