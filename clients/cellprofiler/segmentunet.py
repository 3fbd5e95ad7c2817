"""SegmentUNet: objects of a U-Net service, as a module of CellProfiler 4.

CellProfiler divides 8 and 16 bit images by their greatest value. What it divided is sent as it was, so that the answer
is that of the file itself; what other modules have computed is sent as float32. Workers ask at the same time: one whom
a busy service tells to wait does.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import Any

import numpy
from cellprofiler_core.module.image_segmentation import ImageSegmentation  # type: ignore[import-not-found]
from cellprofiler_core.object import Objects  # type: ignore[import-not-found]
from cellprofiler_core.setting import Binary  # type: ignore[import-not-found]
from cellprofiler_core.setting.text import Text  # type: ignore[import-not-found]

_EXAMPLE = "http://127.0.0.1:8000"
_SILENCE_S = 600.0  # twice what the service takes at most unless told otherwise (UNET_DEADLINE_S)
_LONGEST_WAIT_S = 600  # of one image, before it is asked for again
_LONGEST_S = 1200.0  # of all tries together: who is refused or cut off after that asks no more
_HUNG_UP = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError, ssl.SSLEOFError)


class Refused(RuntimeError):
    """There is no result; the message says why."""


class SegmentUNet(ImageSegmentation):  # type: ignore[misc]
    """Input image and output objects are settings of the parent class; an empty one of these is the model's own."""

    module_name = "SegmentUNet"
    category = "Object Processing"
    variable_revision_number = 3

    def create_settings(self) -> None:
        """Make the settings."""
        super().create_settings()
        self.url = Text(
            "Address of the service",
            _EXAMPLE,
            doc="https://user:key@host where the service wants them, with %40 for an @; saved with the pipeline.",
        )
        self.model = Text("Model", "", doc="name or name@version; empty for the service's default.")
        self.min_area = Text("Smallest object, px", "", doc="Empty for the model's own.")
        self.threshold = Text("Threshold", "", doc="Of a pixel's probability, 0 to 1; empty for the model's own.")
        self.min_score = Text("Least score of an object", "", doc="0 to 1; empty for the model's own.")
        self.channel = Text("Channel", "", doc="Of a colour image, from 0, for a model of one channel; empty for all.")
        self.scale = Text("Scale", "", doc="0.5 where objects are twice as large as those that the model knows.")
        self.timeout = Text("Seconds to wait at most", "", doc="Of one image; empty for the service's own.")
        self.mirror = Binary("Mean of mirrored views", False, doc="A little better, eight times the time.")  # noqa: FBT003
        self.link = Text(
            "Link objects of a volume from",
            "",
            doc="0.25: objects of neighbouring planes are one where they overlap so much (intersection over union), "
            "at least. Empty: each plane is numbered by itself, from 1.",
        )

    def _own(self) -> dict[str, Any]:
        """Settings by parameter of the service, in the order of a pipeline; the first is the address."""
        return {
            "url": self.url,
            "model": self.model,
            "min_area": self.min_area,
            "threshold": self.threshold,
            "min_score": self.min_score,
            "channel": self.channel,
            "scale": self.scale,
            "timeout": self.timeout,
            "mirror": self.mirror,
            "link": self.link,
        }

    def settings(self) -> list[Any]:
        """Return what a pipeline keeps, in its order."""
        return [*super().settings(), *self._own().values()]

    def visible_settings(self) -> list[Any]:
        """Return what is shown."""
        return [*super().visible_settings(), *self._own().values()]

    def upgrade_settings(self, values: list[str], revision: int, _module: str) -> tuple[list[str], int]:
        """Fill up what a pipeline of an earlier version of this module has not."""
        if revision == 1:
            values, revision = [*values, *[""] * 5, "No"], 2
        if revision == 2:
            values, revision = [*values, ""], 3
        return values, revision

    def volumetric(self) -> bool:
        """Volumes are segmented plane by plane; objects go through them where ``link`` is given."""
        return True

    def run(self, workspace: Any) -> None:  # noqa: ANN401 - of CellProfiler
        """Segment the input image of one image set."""
        image = workspace.image_set.get_image(self.x_name.value)
        pixels = _as_acquired(numpy.asarray(image.pixel_data, dtype=numpy.float32), image.scale)
        if image.volumetric and not image.multichannel:
            pixels = pixels[..., numpy.newaxis]  # planes of one channel, however few
        query = {name: setting.value for name, setting in self._own().items() if name != "url"}
        if image.multichannel:  # more than four would pass for planes
            query["axes"] = "ZYXC" if image.volumetric else "YXC"
        labels = segment(self.url.value, pixels, query).reshape(pixels.shape[: 3 if image.volumetric else 2])
        objects = Objects()
        objects.segmented = labels.astype(numpy.int32)
        objects.parent_image = image.parent_image
        workspace.object_set.add_objects(objects, self.y_name.value)
        self.add_measurements(workspace)
        if self.show_window:
            workspace.display_data.x_data = image.pixel_data
            workspace.display_data.y_data = objects.segmented
            workspace.display_data.dimensions = image.dimensions


def _as_acquired(pixels: Any, scale: float | None) -> Any:  # noqa: ANN401 - arrays, of any NumPy
    """Whole numbers, if these divided by ``scale`` are the pixels, up to the rounding of float32; else the pixels."""
    if not scale or not pixels.size:
        return pixels
    values = pixels * numpy.float32(scale)
    whole = numpy.rint(values)
    if not (whole.min() >= 0 and whole.max() <= 65535 and numpy.abs(values - whole).max() < 0.02):
        return pixels
    return whole.astype(numpy.uint8 if scale <= 255 and whole.max() <= 255 else numpy.uint16)


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


def segment(url: str, pixels: Any, query: dict[str, Any]) -> Any:  # noqa: ANN401 - arrays, of any NumPy
    """Labels of an array.

    Raises
    ------
    Refused
        Where the service gives no result, with its words.

    """
    given = {name: "true" if value is True else value for name, value in query.items() if value}
    asked = urllib.parse.urlencode({**given, "output": "labels", "format": "npy"})
    body = io.BytesIO()
    numpy.save(body, pixels)
    return numpy.load(io.BytesIO(_ask(url.strip().rstrip("/"), f"/segment?{asked}", body.getvalue())))


def _ask(url: str, path: str, body: bytes) -> bytes:
    """Answer of the service; waits while it is busy, and asks again where an answer broke off, three times at most."""
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
                return found
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
