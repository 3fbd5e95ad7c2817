"""Who the client is behind proxies: forged, broken and unusual headers, and one spelling for each address."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.api.proxies import TrustedProxies
from service.settings import load_settings

TRUSTED = "10.0.0.0/8,fd00::/8,fe80::/10"
PROXY = "10.0.0.7"


def client_of(peer: str, *lines: str, header: str = "x-forwarded-for", trusted: str = TRUSTED) -> tuple[str, int]:
    """Return the client of a request that ``peer`` sends with these lines of the header."""
    seen: list[tuple[str, int]] = []

    async def application(scope: Any, _: Any, __: Any) -> None:
        seen.append(scope["client"])

    settings = load_settings({"trusted_proxies": trusted, "client_header": header})
    app = TrustedProxies(application, settings.trusted_proxies, settings.client_header)
    headers = [(header.encode(), line.encode("latin-1")) for line in lines]
    asyncio.run(app({"type": "http", "client": (peer, 4711), "headers": headers}, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    "peer", ["10.0.0.7", "::ffff:10.0.0.7", "::FFFF:a00:7", "fd00::1", "FD00:0:0::1", "fe80::1%eth0"]
)
def test_a_proxy_is_trusted_however_its_address_is_written(peer: str) -> None:
    assert client_of(peer, "192.0.2.1") == ("192.0.2.1", 0)


@pytest.mark.parametrize("trusted", ["::ffff:10.0.0.0/104", "::ffff:10.0.0.7", "::ffff:0:0/96"])
def test_a_network_of_ipv4_in_ipv6_is_one_of_ipv4(trusted: str) -> None:
    assert client_of(PROXY, "2001:db8::1", trusted=trusted)[0] == "2001:db8::1"


@pytest.mark.parametrize(
    ("told", "address"),
    [
        *((told, "192.0.2.1") for told in ("192.0.2.1", "192.0.2.1:443", "::ffff:192.0.2.1", "[::FFFF:c000:201]:9")),
        *(
            (told, "2001:db8::a")
            for told in (
                "2001:DB8:0:0::A",
                "[2001:db8::a]",
                "[2001:db8:0::a]:443",
                "2001:db8::a%eth0",
                "\t2001:db8::a ",
            )
        ),
        ("[fe80::1%25eth0]:80, fd00::1", "fe80::1"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(told: str, address: str) -> None:
    assert client_of(PROXY, told) == (address, 0)
    quoted = ", ".join(f'for="{node.strip()}"' for node in told.split(","))
    assert client_of(PROXY, quoted, header="forwarded") == (address, 0)


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1"])
@pytest.mark.parametrize(("header", "line"), [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")])
def test_who_is_no_proxy_tells_nothing(peer: str, header: str, line: str) -> None:
    assert client_of(peer, line, header=header) == ("192.0.2.1", 4711)


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, ::ffff:10.0.0.9"], "198.51.100.1"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["10.0.0.1:80,,", ""], "10.0.0.1"),
        ([], PROXY),
        ([""], PROXY),
        (["198.51.100.1, unknown"], PROXY),
        (["198.51.100.1, 10.0.0.9\xe4, 10.0.0.8"], "10.0.0.8"),
        (["198.51.100.1, 010.0.0.9"], PROXY),
        (["198.51.100.1, 10.0.0.9:x"], PROXY),
        (["198.51.100.1, [10.0.0.9"], PROXY),
        (["198.51.100.1, 10.0.0.9%eth0"], PROXY),
        (["198.51.100.1" + ", 10.0.0.9" * 33], "10.0.0.9"),
    ],
)
def test_the_last_address_that_no_proxy_has_counts_and_one_that_is_broken_ends_the_chain(
    lines: list[str], address: str
) -> None:
    assert client_of(PROXY, *lines)[0] == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["for=198.51.100.1, for=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        (["for=198.51.100.1", 'proto=https ; host="a, for=b" ; For="[2001:db8::1]:_p" ,'], "2001:db8::1"),
        (['for="198.51.100.1:\\80";ext="\\"", for="10.0.0.9"'], "198.51.100.1"),
        ([""], PROXY),
        (["for=198.51.100.1;proto=http;, ,;for=10.0.0.9 ; ,, "], "198.51.100.1"),
        (["for=198.51.100.1, proto=https"], PROXY),
        (["for=198.51.100.1, for=unknown"], PROXY),
        (['for=198.51.100.1, for="_hidden:_port"'], PROXY),
        (["for=198.51.100.1, for=10.0.0.9;for=198.51.100.2"], PROXY),
        # open quotes of a client, with which he would swallow the proxy's own word, or have it say something else
        (['for="198.51.100.1, for=203.0.113.7'], PROXY),
        (['for=198.51.100.1;ext=", for="[2001:db8::1]"'], PROXY),
        (['for=198.51.100.1;ext=", for=203.0.113.7;host=";for=198.51.100.2;ext="'], PROXY),
        (['for=198.51.100.1;ext="', "for=203.0.113.7"], "203.0.113.7"),
        (["for=198.51.100.1;=, for=203.0.113.7"], PROXY),
        (["for=[2001:db8::1]"], PROXY),
    ],
)
def test_forwarded_is_read_by_its_grammar_or_not_at_all(lines: list[str], address: str) -> None:
    assert client_of(PROXY, *lines, header="forwarded")[0] == address


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_only_the_header_that_the_proxies_write_is_read(header: str) -> None:
    """The other one comes from the client as it is: a proxy that writes one of them passes the other on."""
    settings = load_settings({"trusted_proxies": TRUSTED, "client_header": header})
    scope: dict[str, Any] = {"type": "http", "client": (PROXY, 4711)}
    scope["headers"] = [(b"x-forwarded-for", b"198.51.100.1"), (b"forwarded", b"for=198.51.100.2")]

    async def application(scope: Any, _: Any, __: Any) -> None:
        assert scope["client"][0] == {"x-forwarded-for": "198.51.100.1", "forwarded": "198.51.100.2"}[header]

    asyncio.run(TrustedProxies(application, settings.trusted_proxies, settings.client_header)(scope, None, None))  # type: ignore[arg-type]


def test_what_is_no_address_of_the_internet_stays_as_it_is() -> None:
    assert client_of("testclient", "192.0.2.1") == ("testclient", 4711)
