"""The script for Micro-Manager, against a running service; with its own demo camera where that is installed."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.client import Client
from tests.clients.conftest import (
    IMAGE,
    LARGE,
    SECRET,
    assert_no_other_server_is_heard,
    assert_patience_ends,
    hasty_server,
    loaded,
    losing_proxy,
    refusals_in_words,
    with_key,
)
from tests.live import LiveServer

CLIENT = loaded("micromanager/segment_unet.py")
PIXEL_UM = 0.65


def stand_in(pixel_um: float = PIXEL_UM, image: np.ndarray[Any, Any] = IMAGE) -> Any:
    """Stand-in of Micro-Manager's core: a camera that sees one image, once it is snapped."""
    cameras, frames = ["Camera"], [np.zeros_like(image)]
    return SimpleNamespace(
        getCameraDevice=lambda: cameras[-1],
        setCameraDevice=cameras.append,
        snapImage=lambda: frames.append(image),
        getImage=lambda: frames[-1],
        getPixelSizeUm=lambda: pixel_um,
    )


def demonstration() -> Any:
    """Micro-Manager with its demo camera, 16 bit, binned twice."""
    import mm_test_adapters  # type: ignore[import-not-found, unused-ignore]
    from pymmcore_plus import CMMCorePlus  # type: ignore[import-not-found, unused-ignore]

    core = CMMCorePlus()
    core.setDeviceAdapterSearchPaths([str(mm_test_adapters.device_adapter_path())])
    core.loadDevice("Camera", "DemoCamera", "DCam")
    core.initializeDevice("Camera")
    core.setCameraDevice("Camera")
    core.setProperty("Camera", "PixelType", "16bit")
    core.setProperty("Camera", "BitDepth", "16")
    core.setProperty("Camera", "Binning", "2")
    core.definePixelSizeConfig("10x")
    core.setPixelSizeUm("10x", PIXEL_UM / 2)
    core.setPixelSizeConfig("10x")
    return core


def cores() -> dict[str, Any]:
    """Kinds of core that there are: Micro-Manager's own where it and its demo camera are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("pymmcore_plus", "mm_test_adapters")):
        return {"stand-in": stand_in}
    return {"stand-in": stand_in, "micro-manager": demonstration}


@pytest.fixture(params=list(cores().values()), ids=list(cores()))
def core(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_objects_are_those_of_the_frame_in_pixels_and_micrometres(
    core: Any, locked: LiveServer, server: LiveServer
) -> None:
    found = CLIENT.segment_snap(core, with_key(locked.url, SECRET) + "/", min_area=3, mirror=True)
    assert (found.frame.dtype, found.frame.ndim) == (np.uint16, 2)
    with Client(server.url) as client:
        np.testing.assert_array_equal(found.labels, client.segment_array(found.frame, output="labels", min_area=3))
    assert found.pixel_size_um == (PIXEL_UM, PIXEL_UM)
    assert found.receipt["output"]["pixel_size_um"] == [PIXEL_UM, PIXEL_UM]
    assert found.count == len(found.objects) > 0
    for one in found.objects:
        y, x = np.nonzero(found.labels == one["label"])
        assert (one["y"], one["x"], one["area_px"]) == (pytest.approx(y.mean()), pytest.approx(x.mean()), len(y))
        assert one["area_um2"] == pytest.approx(len(y) * PIXEL_UM**2)


def test_a_pixel_size_that_is_asked_for_goes_before_that_of_the_microscope(core: Any, server: LiveServer) -> None:
    found = CLIENT.segment_snap(core, server.url, pixel_size=0.1)
    assert (found.pixel_size_um, found.receipt["output"]["pixel_size_um"]) == ((0.1, 0.1), [0.1, 0.1])


@pytest.mark.parametrize("pixel_size", ["0.5,0.6", (0.5, 0.6)])
def test_pixels_may_be_higher_than_wide(server: LiveServer, pixel_size: object) -> None:
    found = CLIENT.segment_snap(stand_in(), f"{server.url}/\n", pixel_size=pixel_size)
    assert (found.pixel_size_um, found.receipt["output"]["pixel_size_um"]) == ((0.5, 0.6), [0.5, 0.6])
    assert found.objects[0]["area_um2"] == pytest.approx(found.objects[0]["area_px"] * 0.3)


def test_a_microscope_that_knows_no_pixel_size_gets_objects_in_pixels(server: LiveServer) -> None:
    core = stand_in(pixel_um=0.0)
    found = CLIENT.segment_snap(core, server.url)
    assert (found.count, found.pixel_size_um) == (24, None)
    assert set(found.objects[0]) == {"label", "y", "x", "area_px"}
    assert CLIENT.segment_snap(core, server.url, min_area=10**6).objects == []


@refusals_in_words
def test_a_refusal_has_its_words_and_no_password(
    core: Any, server: LiveServer, url: str | None, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CLIENT.Refused, match=words) as refusal:
        CLIENT.segment_snap(core, url or server.url, **options)
    assert "secret" not in str(refusal.value)


def test_without_a_camera_nothing_is_asked(core: Any) -> None:
    core.setCameraDevice("")
    with pytest.raises(CLIENT.Refused, match="has no camera; load a configuration"):
        CLIENT.segment_snap(core, "http://127.0.0.1:1")


def test_a_service_with_keys_says_so(core: Any, locked: LiveServer) -> None:
    with pytest.raises(CLIENT.Refused, match="no key was sent"):
        CLIENT.segment_snap(core, locked.url)


def test_a_server_that_hangs_up_early_is_asked_again_and_its_refusal_heard() -> None:
    with hasty_server("", "the limit is 1 MiB") as hasty:
        with pytest.raises(CLIENT.Refused, match="the limit is 1 MiB"):
            CLIENT.segment_snap(stand_in(image=LARGE), hasty.url)
        assert len(hasty.asked) == 2


def test_a_service_that_is_replaced_is_waited_for(server: LiveServer) -> None:
    with losing_proxy(server, ["away"]) as proxy:
        assert CLIENT.segment_snap(stand_in(), proxy.url).count == 24
    assert len(proxy.asked) == 2


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_patience_ends(CLIENT, lambda url: CLIENT.segment_snap(stand_in(), url), monkeypatch)


def test_only_the_service_is_heard() -> None:
    assert_no_other_server_is_heard(lambda url: CLIENT.segment_snap(stand_in(), url))
