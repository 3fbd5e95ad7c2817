"""Snap a frame with Micro-Manager and segment it with a U-Net service; needs pymmcore-plus (or pymmcore) and NumPy.

From a script that has a microscope::

    from segment_unet import segment_snap
    found = segment_snap(core, "http://127.0.0.1:8000", min_area=30)
    print(found.count, "objects", found.objects[:3])

From a command line: ``python segment_unet.py MMConfig.cfg url=http://127.0.0.1:8000 min_area=30``.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

_EXAMPLE = "http://127.0.0.1:8000"
_SILENCE_S = 600.0  # twice what the service takes at most unless told otherwise (UNET_DEADLINE_S)
_LONGEST_WAIT_S = 120.0
_LONGEST_S = 1200.0  # of all tries together: who is refused or cut off after that asks no more
_HUNG_UP = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError, ssl.SSLEOFError)


class Refused(Exception):
    """There is no result; the message says why."""


@dataclass(frozen=True)
class Found:
    """What was snapped, and what the service finds in it.

    Parameters
    ----------
    frame
        (y, x), or (y, x, 3) of a colour camera, as the camera gave it.
    labels
        (y, x), integers; 0 is background.
    pixel_size_um
        Height and width, as Micro-Manager knows them, or as they were asked for; None where nobody does.
    receipt
        Of the service: model, normalisation, what was run.

    """

    frame: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    pixel_size_um: tuple[float, float] | None
    receipt: dict[str, Any]

    @property
    def count(self) -> int:
        """Number of objects."""
        return int(self.labels.max(initial=0))

    @property
    def objects(self) -> list[dict[str, float]]:
        """Of each object its label, its centre y and x in px, its area in px and, with a known pixel size, um2."""
        inside = np.nonzero(self.labels)
        of = self.labels[inside]
        areas, y, x = (np.bincount(of, weights, self.count + 1)[1:] for weights in (None, *inside))
        found = [
            {"label": label, "y": y[label - 1] / area, "x": x[label - 1] / area, "area_px": int(area)}
            for label, area in enumerate(areas, 1)
        ]
        if self.pixel_size_um is not None:
            height, width = self.pixel_size_um
            found = [one | {"area_um2": one["area_px"] * height * width} for one in found]
        return found


def segment_snap(core: Any, url: str = _EXAMPLE, **options: object) -> Found:  # noqa: ANN401 - of Micro-Manager
    """Snap one frame and segment it.

    Parameters
    ----------
    core
        A ``CMMCorePlus`` or ``CMMCore`` with a camera.
    url
        Address of the service; ``https://user:key@host`` where it wants them, with ``%40`` for an ``@`` in them.
    options
        Parameters of ``POST /segment``: model, threshold, min_area, min_score, channel, mirror, scale, pixel_size (um;
        Micro-Manager's own otherwise), timeout (seconds, after which a frame is of no use any more).

    Raises
    ------
    Refused
        Where there is no camera, or the service gives no result.

    """
    if not core.getCameraDevice():
        raise Refused("Micro-Manager has no camera; load a configuration that names one")
    core.snapImage()
    frame = np.asarray(core.getImage())
    known = core.getPixelSizeUm()
    given = {name: _text(value) for name, value in options.items() if value not in (None, "")}
    if known > 0:
        given.setdefault("pixel_size", repr(float(known)))
    body = io.BytesIO()
    np.save(body, frame)
    query = urllib.parse.urlencode({**given, "output": "labels", "format": "npy"})
    answer, receipt = _ask(url.strip().rstrip("/"), f"/segment?{query}", body.getvalue())
    return Found(frame, np.load(io.BytesIO(answer)), _lengths(given.get("pixel_size")), json.loads(receipt))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _lengths(text: str | None) -> tuple[float, float] | None:
    """Height and width, of a text that the service has taken."""
    if text is None:
        return None
    height, *width = map(float, text.split(","))
    return height, (width or [height])[0]


class _Line(urllib.request.HTTPSHandler, urllib.request.HTTPHandler, urllib.request.HTTPRedirectHandler):
    """Reads the answer of a server that hangs up before it has taken the whole image, as it may where it refuses it.

    Follows no redirect: another host would get the key, and no image.
    """

    def do_open(self, http_class: Any, req: Any, **given: Any) -> Any:  # noqa: ANN401 - of urllib
        """See :class:`urllib.request.AbstractHTTPHandler`."""

        class Connection(http_class):  # type: ignore[misc]
            def send(self, data: Any) -> None:  # noqa: ANN401 - of urllib
                if self.sock is None:
                    self.connect()
                with suppress(*_HUNG_UP):
                    super().send(data)

        return super().do_open(Connection, req, **given)

    def redirect_request(self, *_: object) -> None:
        """See :class:`urllib.request.HTTPRedirectHandler`."""


def _ask(url: str, path: str, body: bytes) -> tuple[bytes, str]:
    """Answer of the service and its receipt; waits while it is busy, and asks again where an answer broke off."""
    shown = _shown(url)
    if not re.match("https?://", url, re.IGNORECASE):
        raise Refused(f"the address is {shown!r}, it should begin with http:// or https://, as {_EXAMPLE} does")
    headers = {"Content-Type": "application/x-npy"}
    user = re.match("[a-zA-Z]+://(.*)@", url)
    if user:
        name, _, password = user[1].partition(":")
        pair = f"{urllib.parse.unquote(name)}:{urllib.parse.unquote(password)}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    began, waited, broke_off, away = time.monotonic(), 0.0, 0, 0
    opener = urllib.request.build_opener(_Line)
    while True:
        try:
            try:
                request = urllib.request.Request(shown + path, body, headers)  # noqa: S310 - http or https, see above
                with opener.open(request, timeout=_SILENCE_S) as answer:
                    found, receipt = bytes(answer.read()), answer.headers["X-UNet-Receipt"]
                if receipt is None:
                    page = "is another server, or a page to log in: give the address of the service itself"
                    raise Refused(f"{shown} {page}")
                return found, str(receipt)
            except urllib.error.HTTPError as refusal:
                asked_for = refusal.headers.get("Retry-After", "")
                pause: float | None = max(1, int(asked_for)) if asked_for.isdecimal() else None
                if pause is None or waited + pause > _LONGEST_WAIT_S or time.monotonic() - began > _LONGEST_S:
                    raise Refused(_reason(refusal, shown)) from None
                waited += pause
                time.sleep(pause)
        except (http.client.HTTPException, *_HUNG_UP) as error:
            broke_off += 1
            if broke_off > 3 or time.monotonic() - began > _LONGEST_S:
                raise Refused(f"the answer of {shown} broke off {broke_off} times: {error}; see its log") from None
            time.sleep(0.25 * 2**broke_off)
        except OSError as error:
            away += 1
            pause = 0.25 * 2**away
            # one that has answered before may be about to be replaced
            is_replaced = waited + broke_off > 0 and isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            if not is_replaced or waited + pause > _LONGEST_WAIT_S or time.monotonic() - began > _LONGEST_S:
                why = f"{error}; is it running, and is the address right?"
                raise Refused(f"no service answers at {shown}: {why}") from None
            waited += pause
            time.sleep(pause)


def _shown(url: str) -> str:
    """An address without user and password."""
    return re.sub(r"^([a-zA-Z]+://)?.*@", lambda found: found[1] or "", url)


def _reason(refusal: urllib.error.HTTPError, shown: str) -> str:
    text = refusal.read().decode(errors="replace")
    if refusal.headers.get_content_type() == "application/problem+json":
        with suppress(ValueError, TypeError, KeyError):  # of a proxy, which may say less
            return str(json.loads(text)["detail"])
    if refusal.code == 401:
        return f"{shown} wants user and password, or a key, in the address: https://user:key@host; ask its operator"
    if refusal.code == 403:
        return f"{shown} knows who asks, and does not allow it (403); ask its operator for access"
    place = refusal.headers.get("Location")
    if refusal.code < 400 and place:
        return f"{shown} has moved: it answers {refusal.code} and names {_shown(place)}; give the address there"
    return f"the service answers {refusal.code}: {text}"


if __name__ == "__main__":
    from pymmcore_plus import CMMCorePlus  # type: ignore[import-not-found, unused-ignore]

    microscope = CMMCorePlus()
    microscope.loadSystemConfiguration(sys.argv[1])
    try:
        snapped = segment_snap(microscope, **dict(argument.split("=", 1) for argument in sys.argv[2:]))
    except Refused as refusal:
        sys.exit(f"The U-Net service gives no result: {refusal}")
    sys.stdout.write(
        f"{snapped.count} object{'' if snapped.count == 1 else 's'}\n"
        + "".join(f"{json.dumps(one)}\n" for one in snapped.objects)
    )
