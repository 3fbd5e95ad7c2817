"""Segment images of OMERO with a U-Net service; objects come back as polygons. A script for OMERO.server.

An administrator sets the address below and uploads the file::

    omero script upload --official segment_unet.py

From a Python session of one's own, with omero-py::

    from segment_unet import segment_image
    segment_image(conn, conn.getObject("Image", 51), "http://127.0.0.1:8000", min_area=30)

Needs omero-py, which the server's scripts have, and NumPy.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import ssl
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import omero.model  # type: ignore[import-not-found, unused-ignore]
from omero import scripts  # type: ignore[import-not-found, unused-ignore]
from omero.gateway import BlitzGateway  # type: ignore[import-not-found, unused-ignore]
from omero.rtypes import rint, rlong, rstring  # type: ignore[import-not-found, unused-ignore]

SERVICE = "http://127.0.0.1:8000"
"""Address of the service, as OMERO.server's machine sees it."""

SERVICE_FILE = Path("~/.unet-service")
"""Read in place of it where there is one, by the account that runs OMERO.server: scripts, and so keys in them, are
shown to every user. ``https://user:key@host`` where the service wants them, with ``%40`` for an ``@`` in them."""

_MOST_CHANNELS = 4
_EXAMPLE = "http://127.0.0.1:8000"
_SILENCE_S = 600.0  # twice what the service takes at most unless told otherwise (UNET_DEADLINE_S)
_LONGEST_WAIT_S = 600.0
_LONGEST_S = 1200.0  # of all tries together: who is refused or cut off after that asks no more
_HUNG_UP = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError, ssl.SSLEOFError)
_OF_ALL_IMAGES = {301, 302, 303, 307, 308, 401, 403}  # moved, and not for who asks
_SAVED_AT_ONCE = 500


class Refused(Exception):
    """There is no result; the message says why."""


class Unserved(Refused):
    """No image would have a result: there is no service, or none for who asks."""


def segment_image(
    conn: Any,  # noqa: ANN401 - of OMERO
    image: Any,  # noqa: ANN401 - of OMERO
    url: str,
    *,
    all_planes: bool = False,
    channel: int | None = None,
    **options: object,
) -> int:
    """Segment an image and attach a ROI named ``U-Net`` for each object; returns how many.

    A part of an object is a polygon, without its holes; ROIs that were there stay.

    Parameters
    ----------
    conn
        A ``BlitzGateway``.
    image
        An ``ImageWrapper`` of it.
    url
        Address of the service.
    all_planes
        Every plane, each by itself; else the one that OMERO shows first.
    channel
        From 0; None sends all, four at most.
    options
        Parameters of ``POST /segment``: model, threshold, min_area, min_score, mirror, scale, pixel_size (um; OMERO's
        own otherwise), timeout.

    Raises
    ------
    Refused
        Where the image cannot be sent, or the service gives no result; planes that are done have their ROIs.

    """
    return sum(_segmented_planes(conn, image, url, all_planes=all_planes, channel=channel, options=options))


def _segmented_planes(
    conn: Any,  # noqa: ANN401 - of OMERO
    image: Any,  # noqa: ANN401 - of OMERO
    url: str,
    *,
    all_planes: bool,
    channel: int | None,
    options: Mapping[str, object],
) -> Iterator[int]:
    """Objects of each plane, once it has its ROIs."""
    conn.SERVICE_OPTS.setOmeroGroup(image.getDetails().group.id.val)  # ROIs belong where the image does
    primary = image.getPrimaryPixels()
    if primary is None:
        raise Refused(f"{image.getName()} has no pixels; wait until it is imported, or import it again")
    given = {name: _text(value) for name, value in options.items() if value not in (None, "")}
    height_um, width_um = _micrometres(image.getPixelSizeY), _micrometres(image.getPixelSizeX)
    if height_um and width_um:
        given.setdefault("pixel_size", f"{height_um!r},{width_um!r}")
    query = urllib.parse.urlencode({**given, "output": "labels", "format": "geojson"})
    channels = _channels(image, channel)
    for z, t in _planes(image, all_planes):
        pixels = primary.getPlanes([(z, one, t) for one in channels])
        frame = np.stack([plane.astype(plane.dtype.newbyteorder("=")) for plane in pixels], axis=-1)
        body = io.BytesIO()
        np.save(body, frame if len(channels) > 1 else frame[..., 0])
        found = json.loads(_ask(url.strip().rstrip("/"), f"/segment?{query}", body.getvalue()))
        rois = [_roi(image, feature, found["receipt"]["model"], z, t) for feature in found["features"]]
        for first in range(0, len(rois), _SAVED_AT_ONCE):
            conn.getUpdateService().saveArray(rois[first : first + _SAVED_AT_ONCE], conn.SERVICE_OPTS)
        yield len(rois)


def _micrometres(size: Callable[..., Any]) -> float | None:
    """Height or width of a pixel, whatever unit it is stored in; None where it is not known, or no length."""
    stored = size(units=True)
    if stored is None or str(stored.getUnit()) in {"PIXEL", "REFERENCEFRAME"}:
        return None
    return float(size(units="MICROMETER").getValue())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _channels(image: Any, channel: int | None) -> list[int]:  # noqa: ANN401 - of OMERO
    there = image.getSizeC()
    if channel is not None:
        if not 0 <= channel < there:
            raise Refused(f"{image.getName()}: channel is {channel}, there are 0 to {there - 1}; choose one of them")
        return [channel]
    if there > _MOST_CHANNELS:
        raise Refused(f"{image.getName()} has {there} channels, {_MOST_CHANNELS} can be sent; choose one")
    return list(range(there))


def _planes(image: Any, all_planes: bool) -> Iterator[tuple[int, int]]:  # noqa: ANN401 - of OMERO
    """Numbers z and t of planes."""
    if not all_planes:
        yield image.getDefaultZ(), image.getDefaultT()
        return
    for t in range(image.getSizeT()):
        for z in range(image.getSizeZ()):
            yield z, t


def _roi(image: Any, feature: Any, model: Any, z: int, t: int) -> Any:  # noqa: ANN401 - of OMERO
    roi = omero.model.RoiI()
    roi.setImage(omero.model.ImageI(image.getId(), False))  # noqa: FBT003 - as OMERO has it
    roi.setName(rstring("U-Net"))
    roi.setDescription(rstring(f"{model['name']}@{model['version']}, sha256 {model['sha256']}"))
    geometry = feature["geometry"]
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    for outline, *_holes in parts:
        polygon = omero.model.PolygonI()
        polygon.setPoints(rstring(" ".join(f"{x:g},{y:g}" for x, y in outline[:-1])))  # closed by itself
        polygon.setTheZ(rint(z))
        polygon.setTheT(rint(t))
        polygon.setTextValue(rstring(feature["properties"]["name"]))
        roi.addShape(polygon)
    return roi


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
                    raise Unserved(f"{shown} {page}")
                return found
            except urllib.error.HTTPError as refusal:
                asked_for = refusal.headers.get("Retry-After", "")
                pause: float | None = max(1, int(asked_for)) if asked_for.isdecimal() else None
                if pause is None or waited + pause > _LONGEST_WAIT_S or time.monotonic() - began > _LONGEST_S:
                    kind = Unserved if refusal.code in _OF_ALL_IMAGES else Refused
                    raise kind(_reason(refusal, shown)) from None
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
                raise Unserved(f"no service answers at {shown}: {why}") from None
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


def _images(conn: Any, kind: str, ids: list[int]) -> list[Any]:  # noqa: ANN401 - of OMERO
    conn.SERVICE_OPTS.setOmeroGroup("-1")  # in whatever group they are
    found = list(conn.getObjects(kind, ids))
    return found if kind == "Image" else [image for dataset in found for image in dataset.listChildren()]


def _words(error: Exception) -> str:
    """What an image failed for; what is not foreseen goes whole to where OMERO keeps a script's errors."""
    if isinstance(error, Refused):
        return str(error)
    traceback.print_exc()
    said = getattr(error, "message", "") or str(error)  # those of OMERO have a stack beside their message
    return " ".join([type(error).__name__, *said.splitlines()[:1]])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run_script() -> None:
    """Ask OMERO for what was filled in, segment, and say what came of it."""
    client = scripts.client(
        "Segment_UNet.py",
        "Objects of a U-Net service, as polygons. What is left empty is the model's own.",
        scripts.String(
            "Data_Type", optional=False, grouping="1", values=[rstring("Image"), rstring("Dataset")], default="Image"
        ),
        scripts.List("IDs", optional=False, grouping="2", description="Images or datasets.").ofType(rlong(0)),
        scripts.Bool("All_Planes", grouping="3", default=False, description="Else the one that is shown first."),
        scripts.Int("Channel", grouping="4", min=0, description="From 0; empty for all, four at most."),
        scripts.String("Model", grouping="5", description="name or name@version."),
        scripts.Float("Threshold", grouping="6", description="Of a pixel's probability, between 0 and 1."),
        scripts.Int("Min_Area", grouping="7", min=0, description="Smallest object, px."),
        scripts.Float("Min_Score", grouping="8", description="Least mean probability of an object."),
        scripts.Float("Scale", grouping="9", description="0.5 where objects are twice as large as the model knows."),
        scripts.Bool("Mirror", grouping="10", default=False, description="Mean of eight views, eight times the time."),
        scripts.Float("Timeout", grouping="11", description="Seconds to wait at most for a plane."),
    )
    try:
        given = {name.lower(): value for name, value in client.getInputs(unwrap=True).items()}
        conn = BlitzGateway(client_obj=client)
        place = SERVICE_FILE.expanduser()
        url = place.read_text() if place.exists() else SERVICE
        kind, ids = given.pop("data_type"), given.pop("ids")
        all_planes, channel = given.pop("all_planes", False), given.pop("channel", None)
        objects, done = 0, 0
        failed: list[str] = []
        images = _images(conn, kind, ids)
        for image in images:
            try:
                for found in _segmented_planes(conn, image, url, all_planes=all_planes, channel=channel, options=given):
                    objects += found
                done += 1
            except Unserved as error:
                failed.insert(0, f"{image.getName()}: {error}")
                break
            except Exception as error:  # of this image, whatever it is
                failed.append(f"{image.getName()}: {_words(error)}")
        message = f"{_counted(objects, 'object')} in {_counted(done, 'image')}"
        if failed:
            left = len(images) - done
            message += f"; {_counted(left, 'image')} {'is' if left == 1 else 'are'} not done, or not whole: {failed[0]}"
        client.setOutput("Message", rstring(message))
    finally:
        client.closeSession()


if __name__ == "__main__":
    run_script()
