"""Exit status 0 where the service is ready, 1 where it is not: the HEALTHCHECK of the images.

A bare socket and no imports to speak of, because this program starts anew every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 5.0

with socket.create_connection(("127.0.0.1", int(os.environ.get("UNET_PORT", "8000"))), TIMEOUT_S) as connection:
    connection.settimeout(TIMEOUT_S)
    connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
    sys.exit(connection.recv(12) != b"HTTP/1.1 200")
