"""Which key goes to which address."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Mapping

import httpx

from .answers import ServiceUnreachable  # noqa: TID252 - the folder can stand anywhere

KEY_VARIABLE = "UNET_API_KEY"
"""Environment variable whose key is sent where none is given, so that keys stand in no command and no notebook."""

KEY_URL_VARIABLE = "UNET_API_KEY_URL"
"""Environment variable of the one service that the key in :data:`KEY_VARIABLE` is sent to; where not set, to any."""

NO_ADDRESS = (httpx.InvalidURL, UnicodeEncodeError)
"""What parsing raises of a text that is no address; the second of bytes that are no text."""

_LOG = logging.getLogger("unet.client")
_OWN_NETWORK = ("localhost", "local", "internal", "lan", "home.arpa")  # names that no public name server knows


def key_for(url: str, given: str | None, environment: Mapping[str, str]) -> str:
    """Return the key to send to a service; empty for none. What its sender should know is logged as a warning.

    Parameters
    ----------
    url
        Where the service is; what is no address gets none.
    given
        The key, where the caller has said which.
    environment
        Variables of this process.

    Raises
    ------
    ServiceUnreachable
        Where the key is none that can be sent.

    """
    try:
        to = httpx.URL(url)
    except NO_ADDRESS:
        return ""
    key = (environment.get(KEY_VARIABLE, "") if given is None else given).strip()
    place = str(to.copy_with(userinfo=b"", query=None))
    bound = environment.get(KEY_URL_VARIABLE, "").strip() if given is None else ""
    if key and bound and _origin(bound) != _origin(url):
        shown = str(httpx.URL(bound).copy_with(userinfo=b"", query=None)) if _origin(bound) else repr(bound)
        _LOG.warning("%s is for %s (%s) and is not sent to %s", KEY_VARIABLE, shown, KEY_URL_VARIABLE, place)
        key = ""
    if wrong := re.search(r"[^\x21-\x7e]", key):
        name = KEY_VARIABLE if given is None else "api_key"
        raise ServiceUnreachable(
            f"the key of {name} cannot be sent to {place}: character {wrong.start() + 1} of its {len(key)} is none of "
            "ASCII's letters, digits and signs; give the key as it was handed out, without anything around it"
        )
    if (key or to.userinfo) and to.scheme == "http" and not _in_own_network(to.host):
        _LOG.warning(
            "the key for %s goes there unencrypted, and everybody on the way can read it; use https:// if the service "
            "has it",
            place,
        )
    return key


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; None where it is no address."""
    try:
        address = httpx.URL(url)
    except NO_ADDRESS:
        return None
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    return (address.scheme, address.host, port) if address.host else None


def _in_own_network(host: str) -> bool:
    """Whether a host is this machine or beside it, by its address or its name alone; nobody is asked."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".")
        return "." not in name or name.endswith(tuple(f".{ending}" for ending in _OWN_NETWORK))
    return not address.is_global
