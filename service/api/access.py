"""What one request leaves behind: filled in on its way, written as one log line and counted at its end."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

ACCESS = "unet.access"
"""Key of the ASGI scope under which a request's :class:`Access` travels."""

PROBES = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that orchestrators ask again and again."""


@dataclass(slots=True)
class Access:
    """Figures of one request; what stays None is left out of the log line."""

    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    user: str | None = None
    """To whom the key belongs that it came with."""
    address: str | None = None
    """Whence it came, beyond proxies that are trusted; None where that is no address of the internet's."""
    segments: bool = False
    """Whether it is a request for a segmentation, which the request metrics count."""
    model: str | None = None
    format: str | None = None
    job: str | None = None
    """Id of the job that it made or asked for."""
    pixels: int | None = None
    provider: str | None = None
    problem: str | None = None
    """Slug of the problem it was answered with."""

    @property
    def party(self) -> str | None:
        """Who shares the service with others: the user, or where there are no keys the address, of IPv6 its /64."""
        if self.user is not None or self.address is None:
            return self.user
        try:
            address = ipaddress.IPv6Address(self.address)
        except ValueError:
            return self.address
        # one machine has all of the lower half to itself, and takes another part of it every day
        return str(ipaddress.IPv6Network((address.packed[:8] + bytes(8), 64)))

    @staticmethod
    def path(scope: Scope) -> str:
        """Path of a request, without the prefix that a proxy shows it under."""
        path: str = scope["path"]
        return path.removeprefix(scope.get("root_path", ""))

    def fill(self, receipt: Mapping[str, Any]) -> None:
        """Note what a finished segmentation's receipt says."""
        seen = receipt["input"]
        height, width = seen["size_yx"]
        self.pixels = height * width * seen["planes"]
        self.provider = receipt["provider"]
