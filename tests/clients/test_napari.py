"""The function for napari, against a running service; with napari's own viewer where it is installed."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.client import Client
from tests.clients.conftest import IMAGE, LARGE, SECRET, Cells, assert_patience_ends, hasty_server, loaded, with_key
from tests.live import LiveServer

CLIENT = loaded("napari/segment_unet.py")


class Image:
    """Stand-in of napari's layer."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Layers(list[Any]):
    selection: set[Any]


class Viewer:
    """Stand-in of napari's viewer model."""

    def __init__(self) -> None:
        self.layers = Layers()
        self.layers.selection = set()

    def add_image(self, data: Any, *, rgb: bool = False, **place: Any) -> Any:
        axes = data.ndim - rgb
        self.layers.append(Image(data=data, name="cells", rgb=rgb, scale=[1] * axes, translate=[0] * axes))
        self.layers[-1].__dict__.update(place)
        return self.layers[-1]

    def add_labels(self, data: Any, **place: Any) -> Any:
        self.layers.append(SimpleNamespace(data=data, **place))
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


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        (None, {"threshold": 7}, "threshold is '7', it should be less than 1"),
        ("http://alice:secret@127.0.0.1:1", {}, "no service answers at http://127.0.0.1:1"),
        ("alice:secret@host", {}, "url is 'host', it should begin with http"),
    ],
)
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


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_patience_ends(CLIENT, lambda url: CLIENT.segment_array(IMAGE, url), monkeypatch)
