"""Who may use the service: keys out of a file, asked of every request but those of orchestrators and Prometheus."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model.wording import counted
from service.api.access import ACCESS, PROBES, Access
from service.api.problems import refused
from service.request_errors import Unauthorized
from service.settings import InvalidSettings
from service.telemetry import Metrics

_LOG = logging.getLogger("unet.api")
_OPEN = PROBES | {"/metrics"}
_LINE = re.compile(
    r"(?P<owner>[\w.@-]{1,64}):(?:sha256:(?P<digest>[0-9a-fA-F]{64})|(?P<key>(?!(?i:sha\d+):)[\x21-\x7e]{16,256}))"
)
_LINE_RULE = "NAME:KEY, the key of 16 to 256 letters, digits and signs, or NAME:sha256:<64 hexadecimal digits>"
_LOOK_S = 1.0

NO_KEY = (
    "no key was sent; send one as Authorization: Bearer KEY, or as password (Basic), or in the address, as "
    "https://any:KEY@host"
)
"""What is said to whoever sends none; programs of labs have a field for the address alone."""


class ApiKeys:
    """The keys of a file, which is read again when it changes.

    Parameters
    ----------
    path
        One ``NAME:KEY`` or ``NAME:sha256:DIGEST`` on each line; empty lines and those that begin with ``#`` count for
        nothing. A name may have several keys.
    clock
        Seconds, from any start.

    Raises
    ------
    InvalidSettings
        Where the file cannot be read, holds no key, or a line is none.

    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)  # before it is read: what changes meanwhile is read again
        self._owner_of = _read(path)
        self._look_at = clock() + _LOOK_S

    def owner(self, authorization: str | None) -> str:
        """Name to which the key of an ``Authorization`` header belongs.

        Parameters
        ----------
        authorization
            ``Bearer KEY``, or ``Basic`` with the key for a password and any user name.

        Raises
        ------
        Unauthorized
            Where there is none, or one that is not known.

        """
        self._look()
        if authorization is None:
            raise Unauthorized(NO_KEY)
        key = _sent_key(authorization)
        if key is None:
            raise Unauthorized(
                "the Authorization header is neither 'Bearer KEY' nor 'Basic' with the key for a password; send one"
            )
        # known by its digest: how long a search takes says nothing of the keys
        owner = self._owner_of.get(hashlib.sha256(key).digest())
        if owner is None:
            raise Unauthorized(f"the key is none of the {len(self._owner_of)} that are known; ask who runs the service")
        return owner

    def _look(self) -> None:
        """Read the file again where it has changed; a broken one leaves the keys as they were."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_S
        stamp, before = _stamp(self._path), self._stamp
        if stamp == before:
            return
        self._stamp = stamp
        if stamp is not None and stamp.links == 0 and before is not None and before.links > 0:
            # a mount of the file alone keeps it, and hides what has its name by now
            _LOG.error(
                "the keys stay as they were: %s has been replaced where it is mounted from, which a mount of one file "
                "does not show; mount the folder that holds it and start the service again",
                self._path,
            )
            return
        try:
            self._owner_of = _read(self._path)
        except InvalidSettings as error:
            _LOG.error("the keys stay as they were: %s", error)
        else:
            _LOG.warning("%s read from %s, which has changed", counted(len(self._owner_of), "key"), self._path)


class KeyCheck:
    """Lets nobody in without a key, but orchestrators and Prometheus; before a byte of the body is read."""

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._keys is not None and Access.path(scope) not in _OPEN:
            access: Access = scope[ACCESS]
            try:
                access.user = self._keys.owner(Headers(scope=scope).get("authorization"))
            except Unauthorized as error:
                await refused(scope, self._metrics, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _sent_key(authorization: str) -> bytes | None:
    scheme, _, value = authorization.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip().encode("latin-1", "replace")
        case "basic":
            try:
                return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return None
        case _:
            return None


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells a changed file: time of change in ns, size in bytes, which file it is, and how many names it has."""

    modified_ns: int
    size: int
    inode: int
    links: int


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino, found.st_nlink)


def _read(path: Path) -> Mapping[bytes, str]:
    """Owners by the SHA-256 of their keys."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # editors of Windows begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, f"cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    owner_of: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise _invalid(path, f"line {number} is no key")
        digest = bytes.fromhex(match["digest"]) if match["digest"] else hashlib.sha256(match["key"].encode()).digest()
        owner_of[digest] = match["owner"]
    if not owner_of:
        raise _invalid(path, "holds 0 keys, 1 is needed")
    return owner_of


def _invalid(path: Path, what: str) -> InvalidSettings:
    return InvalidSettings(f"UNET_API_KEYS_FILE (--api-keys-file) is '{path}': {what}; write one a line, {_LINE_RULE}")
