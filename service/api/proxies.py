"""Who the client is, beyond proxies that are trusted.

Each hop tells the address of the one before it, and is believed where its own address is that of a trusted proxy. The
first address that is none is the client's, or the last that is told: a hop that tells no address, or writes its header
wrongly, stands for whoever is behind it. So a client can write what it likes before what the proxies add.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.setting_kinds import ClientHeader

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MOST_HOPS = 32
"""A header has room for thousands, which would hold up the event loop."""
# of both headers: 192.0.2.7, 192.0.2.7:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80, each with a zone
_NODE = re.compile(r"(?:\[(?P<inside>[^\[\]]*)\]|(?P<bare>[^\[\]:]*))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - of RFC 9110: no secret
_PAIR = re.compile(
    rf"[ \t]*+(?:(?P<name>{_TOKEN})=(?:(?P<token>{_TOKEN})|\"(?P<quoted>(?:[^\"\\]|\\.)*+)\"))?"
    r"[ \t]*+(?P<end>[;,][;, \t]*+|\Z)"
)


class TrustedProxies:
    """Sets the client of each request to the one that trusted proxies tell of, each address in its one spelling."""

    def __init__(self, app: ASGIApp, trusted: str, header: ClientHeader) -> None:
        self._app = app
        self._trusted = [ipaddress.ip_network(network) for network in trusted.split(",") if network]
        self._header = header
        self._told = _forwarded_for if header == "forwarded" else _x_forwarded_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope.get("client"):
            scope["client"] = self._client(scope, *scope["client"])
        await self._app(scope, receive, send)

    def _client(self, scope: Scope, host: str, port: int) -> tuple[str, int]:
        """Return address and port; the port is 0 where a proxy tells the address."""
        peer = address = _address(host)
        if address is None:
            return host, port
        hops = (told for line in reversed(Headers(scope=scope).getlist(self._header)) for told in self._told(line))
        for told in islice(hops, _MOST_HOPS):
            if told is None or not self._trusts(address):
                break
            address = told
        return str(address), port if address is peer else 0

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def _x_forwarded_for(line: str) -> Iterator[_Address | None]:
    """Addresses that one line of the header tells, the nearest first; None for what is no address."""
    return (_address(node) for part in reversed(line.split(",")) if (node := part.strip(" \t")))


def _forwarded_for(line: str) -> Iterator[_Address | None]:
    """Do the same for RFC 7239; a line that breaks its grammar tells nothing: quotes may hide where a hop ends."""
    hops: list[dict[str, str]] = [{}]
    at, end = 0, ","
    while end:
        pair = _PAIR.match(line, at)
        if pair is None:
            return iter([None])
        at, end = pair.end(), pair["end"]
        if name := (pair["name"] or "").lower():
            if name in hops[-1]:
                return iter([None])
            hops[-1][name] = pair["token"] or re.sub(r"\\(.)", r"\1", pair["quoted"] or "")
        if "," in end:
            hops.append({})
    return (_address(hop.get("for", "")) for hop in reversed(hops) if hop)


def _address(node: str) -> _Address | None:
    """Read an address with or without port, brackets and zone, IPv4 in IPv6 as IPv4; None where it is none."""
    parts = _NODE.fullmatch(node)
    host = node if parts is None else parts["inside"] if parts["bare"] is None else parts["bare"]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address if address.version == 4 else address.ipv4_mapped or ipaddress.IPv6Address(address.packed)
