"""The function for napari, against a running service; with napari's own viewer where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.client import Client
from tests.clients.conftest import (
    IMAGE,
    LARGE,
    SECRET,
    Cells,
    assert_no_other_server_is_heard,
    assert_patience_ends,
    busy_server,
    hasty_server,
    listening,
    loaded,
    losing_proxy,
    refusals_in_words,
    with_key,
)
from tests.live import LiveServer, wait_until

CLIENT = loaded("napari/segment_unet.py")


class Image:
    """Stand-in of napari's layer."""

    def __init__(self, affine: Any = None, **fields: Any) -> None:
        self.__dict__.update(fields)
        if affine is not None:
            self.affine = SimpleNamespace(affine_matrix=affine)


class Layers(list[Any]):
    selection: set[Any]


class Viewer:
    """Stand-in of napari's viewer model."""

    def __init__(self) -> None:
        self.layers = Layers()
        self.layers.selection = set()

    def add_image(self, data: Any, *, rgb: bool = False, **place: Any) -> Any:
        axes = data.ndim - rgb
        given = {"name": "cells", "scale": [1] * axes, "translate": [0] * axes, **place}
        self.layers.append(Image(data=data, rgb=rgb, **given))
        return self.layers[-1]

    def add_labels(self, data: Any, **place: Any) -> Any:
        self.layers.append(Image(data=data, **place))
        return self.layers[-1]


def viewers() -> dict[str, Any]:
    """Kinds of viewer that there are: napari's own where it is installed."""
    if importlib.util.find_spec("napari") is None:
        return {"stand-in": Viewer}
    from napari.components import ViewerModel  # type: ignore[import-not-found, unused-ignore]

    return {"stand-in": Viewer, "napari": ViewerModel}


@pytest.fixture(params=list(viewers().values()), ids=list(viewers()))
def viewer(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_labels_lie_where_the_image_lies(viewer: Any, locked: LiveServer, server: LiveServer) -> None:
    viewer.add_image(IMAGE, name="cells", scale=[0.325, 0.5], translate=[7, 8])
    layer = CLIENT.segment_layer(viewer, with_key(locked.url, SECRET) + "/", min_area=3, mirror=True, pixel_size=(1, 2))
    with Client(server.url) as client:
        np.testing.assert_array_equal(layer.data, client.segment_array(IMAGE, output="labels"))
    assert viewer.layers[-1] is layer
    assert layer.name == "cells objects"
    np.testing.assert_array_equal(layer.scale, [0.325, 0.5])
    np.testing.assert_array_equal(layer.translate, [7, 8])


TURNED = {"rotate": 30, "shear": [0.2], "affine": np.array([[0.0, 2, 10], [-3, 0, 5], [0, 0, 1]])}


@pytest.mark.parametrize(
    "place",
    [
        TURNED | {"units": ("um", "um"), "axis_labels": ("y", "x")},
        TURNED,
        {
            "scale": (2, 0.5, 0.4),
            "rotate": np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]]),  # in the plane
            "units": ("s", "nm", "nm"),
            "axis_labels": ("t", "y", "x"),
        },
    ],
    ids=["turned", "without units", "stack"],
)
def test_labels_are_turned_as_the_image_is_and_have_its_units(
    viewer: Any, server: LiveServer, place: dict[str, Any]
) -> None:
    data = np.stack([IMAGE, IMAGE]) if len(place.get("scale", ())) == 3 else IMAGE
    image = viewer.add_image(data, **place)
    layer = CLIENT.segment_layer(viewer, server.url)
    for name in place:
        is_there, expected = getattr(layer, name), getattr(image, name)
        if name == "affine":
            is_there, expected = is_there.affine_matrix, expected.affine_matrix
        np.testing.assert_array_equal(is_there, expected)
    if hasattr(image, "data_to_world"):  # napari's own
        for corner in [(0,) * data.ndim, data.shape, (1, 100, 7)[-data.ndim :]]:
            np.testing.assert_allclose(layer.data_to_world(corner), image.data_to_world(corner))
        assert layer.units == image.units


@pytest.mark.parametrize("planes", [1, 3])
def test_a_stack_of_few_planes_is_no_image_of_channels(
    viewer: Any, server: LiveServer, cells: Cells, planes: int
) -> None:
    one = cells.labels > 0
    stack = np.stack([IMAGE, np.flip(IMAGE), IMAGE])[:planes]
    viewer.add_image(stack, scale=[2, 0.5, 0.5])
    layer = CLIENT.segment_layer(viewer, server.url)
    assert layer.data.shape == stack.shape
    np.testing.assert_array_equal(layer.data > 0, np.stack([one, np.flip(one), one])[:planes])
    np.testing.assert_array_equal(layer.scale, [2, 0.5, 0.5])
    linked = CLIENT.segment_layer(viewer.layers[0], server.url, link=1)
    with Client(server.url) as client:
        expected = client.segment_array(stack[..., np.newaxis], output="labels", link=1)
    np.testing.assert_array_equal(linked, expected.reshape(stack.shape))
    assert (layer.data.max(), linked.max()) == (24, 24 * planes)  # flipped discs lie a pixel beside the others


def test_a_colour_image_gives_labels_without_colours(viewer: Any, server: LiveServer, cells: Cells) -> None:
    colours = np.zeros((*IMAGE.shape, 3), np.uint8)
    colours[..., 1] = (cells.labels > 0) * 200
    viewer.add_image(colours, rgb=True)
    layer = CLIENT.segment_layer(viewer, server.url, channel=1)
    np.testing.assert_array_equal(layer.data > 0, cells.labels > 0)


def test_one_image_among_several_is_selected(viewer: Any, server: LiveServer, cells: Cells) -> None:
    images = [viewer.add_image(IMAGE), viewer.add_image(np.flip(IMAGE))]
    viewer.layers.selection = set(images)
    with pytest.raises(CLIENT.Refused, match="2 Image layers are selected, the limit is one"):
        CLIENT.segment_layer(viewer, server.url)
    viewer.layers.selection = {images[1]}
    np.testing.assert_array_equal(CLIENT.segment_layer(viewer, server.url).data > 0, np.flip(cells.labels > 0))


@refusals_in_words
def test_a_refusal_has_its_words_and_no_password(
    viewer: Any, server: LiveServer, url: str | None, options: dict[str, Any], words: str
) -> None:
    viewer.add_image(IMAGE)
    with pytest.raises(CLIENT.Refused, match=words) as refusal:
        CLIENT.segment_layer(viewer, url or server.url, **options)
    assert "secret" not in str(refusal.value)


def test_a_service_with_keys_says_so(viewer: Any, locked: LiveServer) -> None:
    viewer.add_image(IMAGE)
    with pytest.raises(CLIENT.Refused, match="no key was sent"):
        CLIENT.segment_layer(viewer, locked.url)


def test_a_server_that_hangs_up_early_is_asked_again_and_its_refusal_heard() -> None:
    with hasty_server("", "the limit is 1 MiB") as hasty:
        with pytest.raises(CLIENT.Refused, match="the limit is 1 MiB"):
            CLIENT.segment_array(LARGE, hasty.url + "\n")
        assert len(hasty.asked) == 2


def test_only_the_service_is_heard() -> None:
    assert_no_other_server_is_heard(lambda url: CLIENT.segment_array(IMAGE, url))


def test_a_service_that_is_replaced_is_waited_for(server: LiveServer) -> None:
    with losing_proxy(server, ["away"]) as proxy:
        assert CLIENT.segment_array(IMAGE, proxy.url).max() == 24
    assert len(proxy.asked) == 2


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_patience_ends(CLIENT, lambda url: CLIENT.segment_array(IMAGE, url), monkeypatch)


@dataclass(slots=True)
class Silent:
    """A server that takes requests and answers none; of each, what it hears then: nothing where the client hangs up."""

    url: str
    asked: list[str] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)


@pytest.fixture
def silent() -> Iterator[Silent]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.append(self.path)
            told.heard.append(self.connection.recv(1))

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        told = Silent(url)
        yield told


def test_what_is_cancelled_hangs_up_and_ends_without_a_result(silent: Silent) -> None:
    line = CLIENT._Line()
    steps = CLIENT._wanted_steps(Image(data=IMAGE), silent.url, {}, line)
    assert next(steps) == f"{silent.url} is at work"
    with ThreadPoolExecutor() as threads:
        ended = threads.submit(lambda: next(steps, "ended"))
        wait_until(lambda: bool(silent.asked))
        line.cut()
        assert ended.result(30) == "ended"
    wait_until(lambda: silent.heard == [b""])


def test_what_is_cancelled_waits_for_no_busy_service(silent: Silent) -> None:
    line = CLIENT._Line()
    with busy_server("60") as busy:
        steps = CLIENT._wanted_steps(Image(data=IMAGE), busy.url, {}, line)
        assert [next(steps), next(steps)] == [
            f"{busy.url} is at work",
            f"{busy.url} is busy, and is asked again in 60 s",
        ]
        line.cut()
        assert list(steps) == []
        assert len(busy.asked) == 1
    assert list(CLIENT._wanted_steps(Image(data=IMAGE), silent.url, {}, line)) == [f"{silent.url} is at work"]
    wait_until(lambda: len(silent.asked) == len(silent.heard))  # nothing, or what was on its way


class Window:
    """The panel with a viewer, in a Qt without a screen."""

    def __init__(self) -> None:
        from napari.components import ViewerModel
        from qtpy.QtWidgets import QApplication  # type: ignore[import-not-found, unused-ignore]

        self.application = QApplication.instance() or QApplication([])
        self.viewer = ViewerModel()
        self.panel = CLIENT.segment_widget()
        self.panel.show()

    def start(self, layer: Any, url: str, **options: Any) -> None:
        self.panel(self.viewer, layer, url, **options)
        assert (self.panel.call_button.visible, self.panel.cancel.visible) == (False, True)

    def until(self, happened: Callable[[], bool]) -> None:
        """Let the window do its work until then."""

        def looked() -> bool:
            self.application.processEvents()
            return happened()

        wait_until(looked)

    def ended(self) -> bool:
        return bool(self.panel.call_button.visible and not self.panel.cancel.visible)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Window]:
    if any(importlib.util.find_spec(name) is None for name in ("napari", "PyQt6")):
        pytest.skip("not installed: napari with its window")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    window = Window()
    yield window
    window.panel.close()


@pytest.mark.program
def test_the_panel_adds_labels_and_says_what_it_does(window: Window, server: LiveServer, cells: Cells) -> None:
    layer = window.viewer.add_image(IMAGE, name="cells", scale=[0.5, 0.25])
    window.start(layer, server.url, mirror=True)
    assert len(window.viewer.layers) == 1  # the window has not waited
    told = []

    def ended() -> bool:
        told.append(window.panel.told.value)
        return window.ended()

    window.until(ended)
    assert set(told) <= {"cells: is being read", f"cells: {server.url} is at work", "cells: done"}
    assert told[-1] == "cells: done"
    labels = window.viewer.layers["cells objects"]
    np.testing.assert_array_equal(labels.data, cells.labels)
    np.testing.assert_array_equal(labels.scale, [0.5, 0.25])
    window.start(layer, server.url, min_area=str(10**6))
    window.until(window.ended)
    assert window.panel.told.value == "cells: done, no object was found"


@pytest.mark.program
def test_the_panel_cancels(window: Window, silent: Silent) -> None:
    layer = window.viewer.add_image(IMAGE, name="cells")
    window.start(layer, silent.url)
    window.until(lambda: bool(silent.asked))
    window.panel.cancel.native.click()
    window.until(window.ended)
    assert window.panel.told.value == "cells: cancelled"
    wait_until(lambda: silent.heard == [b""])
    assert len(window.viewer.layers) == 1


@pytest.mark.program
def test_napari_that_is_closed_waits_for_no_answer(window: Window, silent: Silent) -> None:
    from napari._qt.qthreading import (  # type: ignore[import-not-found, unused-ignore]
        wait_for_workers_to_quit,
    )

    window.start(window.viewer.add_image(IMAGE), silent.url)
    window.until(lambda: bool(silent.asked))
    wait_for_workers_to_quit()
    wait_until(lambda: silent.heard == [b""])


@pytest.mark.program
def test_the_panel_shows_refusals_as_napari_shows_errors(window: Window, server: LiveServer) -> None:
    from napari.utils.notifications import (  # type: ignore[import-not-found, unused-ignore]
        notification_manager,
    )

    shown: list[Any] = []
    notification_manager.notification_ready.connect(shown.append)
    try:
        window.start(window.viewer.add_image(IMAGE, name="cells"), server.url, threshold="7")
        window.until(window.ended)
    finally:
        notification_manager.notification_ready.disconnect(shown.append)
    assert window.panel.told.value == "cells: no result"
    assert [(one.type, "threshold is '7'" in one.message) for one in shown] == [("error", True)]
    with pytest.raises(CLIENT.Refused, match="there is no Image layer"):
        window.panel(window.viewer, None, server.url)
