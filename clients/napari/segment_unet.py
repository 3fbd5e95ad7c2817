"""Segment an Image layer of napari with a U-Net service; needs nothing but napari.

From napari's console or a script::

    from segment_unet import segment_layer
    segment_layer(viewer, "http://127.0.0.1:8000", min_area=30)

With a panel: ``viewer.window.add_dock_widget(segment_widget())``, or ``python segment_unet.py IMAGE ...``.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

_EXAMPLE = "http://127.0.0.1:8000"
_CONNECT_S = 10.0
_SILENCE_S = 600.0  # twice what the service takes at most unless told otherwise (UNET_DEADLINE_S)
_LONGEST_WAIT_S = 120.0
_LONGEST_S = 1200.0  # of all tries together: who is refused or cut off after that asks no more
_HUNG_UP = (BrokenPipeError, ConnectionAbortedError, ConnectionResetError, ssl.SSLEOFError)


class Refused(Exception):
    """There is no result; the message says why."""


class _Cancelled(Exception):
    """Nobody wants the result any more."""


def segment_layer(target: Any, url: str = _EXAMPLE, **options: object) -> Any:  # noqa: ANN401 - of napari
    """Segment an Image layer and show its objects as a Labels layer of the same place and size.

    Parameters
    ----------
    target
        A viewer, whose selected Image layer is taken (or the only one there is), or an Image layer. Its data are
        (y, x) or (planes, y, x), with a last axis of channels where the layer is RGB.
    url
        Address of the service; ``https://user:key@host`` where it wants them, with ``%40`` for an ``@`` in them.
    options
        Parameters of ``POST /segment``: model, threshold, min_area, min_score, link (0.25: one number through the
        planes of a stack for objects that overlap so much, at least), channel, mirror, scale, pixel_size, timeout.

    Returns
    -------
    The Labels layer, added to the viewer; of a layer without viewer, its data, integers (y, x) or (planes, y, x).

    Raises
    ------
    Refused
        Where no layer, more than one, or one of another shape is meant, or the service gives no result.

    """
    viewer = target if hasattr(target, "layers") else None
    layer = _image_layer(viewer) if viewer is not None else target
    labels = _drained(_layer_steps(layer, url, options, _Line()))
    return labels if viewer is None else _added(viewer, layer, labels)


def _drained(steps: Generator[str, None, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """What steps lead to."""
    while True:
        try:
            next(steps)
        except StopIteration as over:
            labels: np.ndarray[Any, Any] = over.value
            return labels


def _layer_steps(
    layer: Any,  # noqa: ANN401 - of napari
    url: str,
    options: Mapping[str, object],
    line: _Line,
) -> Generator[str, None, np.ndarray[Any, Any]]:
    """Labels of a layer; yields what is being done, in words."""
    if getattr(layer, "multiscale", False):
        raise Refused(
            f"layer {layer.name!r} has several scales; segment a region of its finest one as a layer of its own"
        )
    image = np.asarray(layer.data)
    rgb = bool(getattr(layer, "rgb", False))
    axes = image.ndim - rgb
    if axes not in {2, 3}:
        raise Refused(f"layer {layer.name!r} has {axes} axes, 2 or 3 can be sent; make a layer of a part of it")
    if axes == 3 and not rgb:
        image = image[..., np.newaxis]  # planes of one channel, however few
    return (yield from _array_steps(image, url, options, line))


def _added(viewer: Any, layer: Any, labels: np.ndarray[Any, Any]) -> Any:  # noqa: ANN401 - of napari
    """Labels layer that lies where the image lies, as far as this version of napari tells where that is."""
    known = ("scale", "translate", "rotate", "shear", "units", "axis_labels")
    place = {name: getattr(layer, name) for name in known if hasattr(layer, name)}
    if hasattr(layer, "affine"):
        place["affine"] = layer.affine.affine_matrix
    return viewer.add_labels(labels, name=f"{layer.name} objects", **place)


def _image_layer(viewer: Any) -> Any:  # noqa: ANN401 - of napari
    images = [layer for layer in viewer.layers if type(layer).__name__ == "Image"]
    chosen = [layer for layer in images if layer in viewer.layers.selection]
    for layers in (chosen, images):
        if len(layers) == 1:
            return layers[0]
    raise Refused(f"{len(chosen)} Image layers are selected, the limit is one; select the one to segment")


def segment_array(image: np.ndarray[Any, Any], url: str = _EXAMPLE, **options: object) -> np.ndarray[Any, Any]:
    """Labels (y, x) or (planes, y, x) of an array (y, x), (y, x, channels) or (planes, y, x, channels).

    Raises
    ------
    Refused
        Where the service gives no result.

    """
    return _drained(_array_steps(image, url, options, _Line()))


def _array_steps(
    image: np.ndarray[Any, Any], url: str, options: Mapping[str, object], line: _Line
) -> Generator[str, None, np.ndarray[Any, Any]]:
    given = {name: _text(value) for name, value in options.items() if value not in (None, "")}
    query = urllib.parse.urlencode({**given, "output": "labels", "format": "npy"})
    body = io.BytesIO()
    np.save(body, image)
    answer = yield from _ask(url.strip().rstrip("/"), f"/segment?{query}", body.getvalue(), line)
    labels: np.ndarray[Any, Any] = np.load(io.BytesIO(answer))
    # a stack of one plane comes back without its axis
    return labels[np.newaxis] if image.ndim == 4 and labels.ndim == 2 else labels


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


class _Line(urllib.request.HTTPSHandler, urllib.request.HTTPHandler, urllib.request.HTTPRedirectHandler):
    """Reads the answer of a server that hangs up before it has taken the whole image, as it may where it refuses it.

    Follows no redirect: another host would get the key, and no image. Has one request at a time, which another
    thread may cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = threading.Event()
        self._socket: socket.socket | None = None

    def cut(self) -> None:
        """Hang up, so that the service drops the work; what connects is cut when it has."""
        self.is_cut.set()
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                # not an SSLSocket's own shutdown, which takes the encryption away from under who reads
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def heed(self, seconds: float = 0.0) -> None:
        """Wait so long; ends where it is cut."""
        if self.is_cut.wait(seconds):
            raise _Cancelled

    def do_open(self, http_class: Any, req: Any, **given: Any) -> Any:  # noqa: ANN401 - of urllib
        """See :class:`urllib.request.AbstractHTTPHandler`."""
        line = self

        class Connection(http_class):  # type: ignore[misc]
            def connect(self) -> None:
                self.timeout = _CONNECT_S
                super().connect()
                self.sock.settimeout(_SILENCE_S)
                line._socket = self.sock
                if line.is_cut.is_set():
                    line.cut()

            def send(self, data: Any) -> None:  # noqa: ANN401 - of urllib
                if self.sock is None:
                    self.connect()
                with suppress(*_HUNG_UP):
                    super().send(data)

        return super().do_open(Connection, req, **given)

    def redirect_request(self, *_: object) -> None:
        """See :class:`urllib.request.HTTPRedirectHandler`."""


def _ask(url: str, path: str, body: bytes, line: _Line) -> Generator[str, None, bytes]:
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
    opener = urllib.request.build_opener(line)
    while True:
        yield f"{shown} is at work"
        try:
            try:
                request = urllib.request.Request(shown + path, body, headers)  # noqa: S310 - http or https, see above
                with opener.open(request) as answer:
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
                yield f"{shown} is busy, and is asked again in {pause:g} s"
        except (http.client.HTTPException, *_HUNG_UP) as error:
            broke_off += 1
            line.heed()
            if broke_off > 3 or time.monotonic() - began > _LONGEST_S:
                raise Refused(f"the answer of {shown} broke off {broke_off} times: {error}; see its log") from None
            pause = 0.25 * 2**broke_off
        except OSError as error:
            line.heed()
            away += 1
            pause = 0.25 * 2**away
            # one that has answered before may be about to be replaced
            is_replaced = waited + broke_off > 0 and isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            if not is_replaced or waited + pause > _LONGEST_WAIT_S or time.monotonic() - began > _LONGEST_S:
                why = f"{error}; is it running, and is the address right?"
                raise Refused(f"no service answers at {shown}: {why}") from None
            waited += pause
        line.heed(pause)


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


def _wanted_steps(
    layer: Any,  # noqa: ANN401 - of napari
    url: str,
    options: Mapping[str, object],
    line: _Line,
) -> Generator[str, None, np.ndarray[Any, Any] | None]:
    """Labels of a layer, or None where the line was cut."""
    try:
        return (yield from _layer_steps(layer, url, options, line))
    except _Cancelled:
        return None


def segment_widget() -> Any:  # noqa: ANN401 - of magicgui
    """Return a panel for ``viewer.window.add_dock_widget``; the window stays usable while the service is at work."""
    import napari  # type: ignore[import-not-found, unused-ignore]
    from magicgui import magicgui, widgets  # type: ignore[import-not-found, unused-ignore]
    from napari.qt.threading import create_worker  # type: ignore[import-not-found, unused-ignore]
    from napari.utils.notifications import (  # type: ignore[import-not-found, unused-ignore]
        notification_manager,
        show_error,
    )
    from superqt.utils import GeneratorWorker  # type: ignore[import-not-found, unused-ignore]

    def segment(  # noqa: PLR0917 - a field each
        viewer: Any,  # noqa: ANN401 - see below
        image: Any,  # noqa: ANN401 - see below
        url: str = _EXAMPLE,
        model: str = "",
        threshold: str = "",
        min_area: str = "",
        min_score: str = "",
        link: str = "",
        channel: str = "",
        scale: str = "",
        pixel_size: str = "",
        timeout: str = "",
        mirror: bool = False,
    ) -> None:
        if image is None:
            raise Refused("there is no Image layer; open an image")
        options = {
            "model": model,
            "threshold": threshold,
            "min_area": min_area,
            "min_score": min_score,
            "link": link,
            "channel": channel,
            "scale": scale,
            "pixel_size": pixel_size,
            "timeout": timeout,
            "mirror": mirror,
        }
        line = _Line()

        class Worker(GeneratorWorker):  # type: ignore[misc, unused-ignore]
            def quit(self) -> None:
                """Hang up; napari asks for it, too, where it is closed."""
                super().quit()
                line.cut()

        def end() -> None:
            workers.remove(worker)
            if worker.abort_requested:
                tell("cancelled")
            with suppress(RuntimeError):
                panel.call_button.visible, cancel.visible = True, False

        def tell(words: str) -> None:
            with suppress(RuntimeError):  # the panel is closed
                told.value = f"{image.name}: {words}"

        def show(labels: np.ndarray[Any, Any]) -> None:
            if worker.abort_requested:
                return
            _added(viewer, image, labels)
            tell("done" if labels.any() else "done, no object was found")

        def fail(error: Exception) -> None:
            if worker.abort_requested:
                return
            tell("no result")
            if isinstance(error, Refused):
                show_error(str(error))  # alone: a traceback would show the address, and so the key
            else:
                notification_manager.receive_error(type(error), error, error.__traceback__)

        worker = create_worker(_wanted_steps, image, url, options, line, _worker_class=Worker, _ignore_errors=True)
        worker.yielded.connect(tell)
        worker.returned.connect(show)
        worker.errored.connect(fail)
        worker.finished.connect(end)
        workers.append(worker)
        panel.call_button.visible, cancel.visible = False, True
        tell("is being read")
        worker.start()

    workers: list[Any] = []
    segment.__annotations__.update(viewer=napari.Viewer, image=napari.layers.Image)
    panel = magicgui(segment, call_button="Segment")
    cancel = widgets.PushButton(text="Cancel", name="cancel", visible=False, gui_only=True)
    cancel.changed.connect(lambda: [worker.quit() for worker in workers])
    told = widgets.Label(name="told", gui_only=True)
    panel.extend([cancel, told])
    return panel


if __name__ == "__main__":
    import napari

    opened = napari.Viewer()
    opened.open(sys.argv[1:])
    opened.window.add_dock_widget(segment_widget(), name="U-Net")
    napari.run()
