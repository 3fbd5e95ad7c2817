"""The module for CellProfiler, with stand-ins of the classes that it uses, against a running service."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

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
    hasty_server,
    loaded,
    losing_proxy,
    refusal,
    with_key,
)
from tests.live import LiveServer


class Text:
    """Stand-in of a setting."""

    def __init__(self, text: str, value: Any, doc: str = "") -> None:
        self.text, self.value, self.doc = text, value, doc


class ImageSegmentation:
    """Stand-in of the parent class: its settings, and a count of measured objects."""

    show_window = True

    def __init__(self) -> None:
        self.create_settings()

    def create_settings(self) -> None:
        self.x_name, self.y_name = Text("Input", "DNA"), Text("Output", "Nuclei")

    def settings(self) -> list[Any]:
        return [self.x_name, self.y_name]

    visible_settings = settings

    def add_measurements(self, workspace: Any) -> None:
        workspace.measured = int(workspace.object_set.objects[self.y_name.value].segmented.max())


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An instance of the module, as CellProfiler would make one."""
    stand_ins: dict[str, dict[str, Any]] = {
        "module.image_segmentation": {"ImageSegmentation": ImageSegmentation},
        "object": {"Objects": SimpleNamespace},
        "setting": {"Binary": Text},
        "setting.text": {"Text": Text},
    }
    for name in ("", ".module", *(f".{name}" for name in stand_ins)):
        imported = ModuleType(f"cellprofiler_core{name}")
        imported.__dict__.update(stand_ins.get(name[1:], {}))
        monkeypatch.setitem(sys.modules, imported.__name__, imported)
    return loaded("cellprofiler/segmentunet.py").SegmentUNet()


class ObjectSet:
    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}

    def add_objects(self, objects: Any, name: str) -> None:
        self.objects[name] = objects


def run(module: Any, pixels: np.ndarray[Any, Any], *, volumetric: bool = False, multichannel: bool = False) -> Any:
    """Workspace after a run, on an image as CellProfiler scales it."""
    image = SimpleNamespace(
        pixel_data=pixels / np.iinfo(pixels.dtype).max,
        scale=np.iinfo(pixels.dtype).max,
        volumetric=volumetric,
        multichannel=multichannel,
        dimensions=3 if volumetric else 2,
        parent_image=None,
    )
    images = SimpleNamespace(get_image={"DNA": image}.__getitem__)
    workspace = SimpleNamespace(image_set=images, object_set=ObjectSet(), display_data=SimpleNamespace())
    module.run(workspace)
    return workspace


def test_objects_are_those_of_the_sixteen_bit_image(module: Any, locked: LiveServer, server: LiveServer) -> None:
    module.url.value = with_key(locked.url, SECRET) + "/"
    module.model.value, module.min_area.value = "tiny", "3"
    workspace = run(module, IMAGE)
    found = workspace.object_set.objects["Nuclei"].segmented
    with Client(server.url) as client:
        np.testing.assert_array_equal(found, client.segment_array(IMAGE, output="labels"))
    assert workspace.measured == 24
    assert [setting.value for setting in module.settings()[:5]] == ["DNA", "Nuclei", module.url.value, "tiny", "3"]


def test_every_parameter_arrives(module: Any, server: LiveServer) -> None:
    given: dict[str, Any] = {
        "model": "tiny",
        "min_area": "4",
        "threshold": "0.4",
        "min_score": "0.1",
        "channel": "1",
        "scale": "0.5",
        "timeout": "60",
        "mirror": True,
        "link": "0.5",
    }
    for name, value in given.items():
        getattr(module, name).value = value
    colours = np.stack([np.zeros_like(IMAGE), IMAGE, np.zeros_like(IMAGE)], axis=-1)
    with losing_proxy(server, []) as proxy:
        module.url.value = proxy.url
        found = run(module, colours, multichannel=True).object_set.objects["Nuclei"].segmented
    assert dict(parse_qsl(proxy.asked[0].partition("?")[2])) == {
        **given,
        "axes": "YXC",
        "mirror": "true",
        "output": "labels",
        "format": "npy",
    }
    with Client(server.url) as client:
        np.testing.assert_array_equal(found, client.segment_array(colours, output="labels", **given))


@pytest.mark.parametrize(
    ("kept", "of"),
    [
        (["DNA", "Nuclei", "http://here", "tiny", "3"], 1),
        (["DNA", "Nuclei", "http://here", "tiny", "3", "0.5", "0.1", "1", "2", "60", "Yes"], 2),
    ],
)
def test_a_pipeline_of_an_earlier_version_keeps_its_settings(module: Any, kept: list[str], of: int) -> None:
    values, revision = module.upgrade_settings(kept, of, "SegmentUNet")
    assert values[: len(kept)] == kept
    assert set(values[len(kept) :]) <= {"", "No"}
    assert (len(values), revision) == (len(module.settings()), module.variable_revision_number)
    named = dict(zip(module._own(), values[2:], strict=True))
    assert (named["min_area"], named["mirror"], named["link"]) == ("3", kept[10] if of == 2 else "No", "")
    assert module.upgrade_settings(values, revision, "SegmentUNet") == (values, revision)


@pytest.mark.parametrize(
    ("values", "scale", "sent_as"),
    [
        ([[0, 1, 254, 255]], 255, np.uint8),
        ([[0, 1, 255, 65535]], 65535, np.uint16),
        ([[0, 7, 4095, 4096]], 4095, np.uint16),  # of 12 bits, and one that should not be there
        ([[0, 256]], 255, np.uint16),
        ([[0.0, 0.5]], 255, np.float32),  # smoothed
        ([[-1.0, 1.0]], 255, np.float32),
        ([[0.0, 65536.0]], 255, np.float32),
        ([[0.25, 0.75]], 1, np.float32),
        ([[0, 255]], None, np.float32),
    ],
)
def test_what_was_divided_is_sent_as_it_was(
    module: Any, values: list[list[float]], scale: int | None, sent_as: type[np.generic]
) -> None:
    script = sys.modules[type(module).__module__]
    divided = (np.array(values) / (scale or 1)).astype(np.float32)
    sent = script._as_acquired(divided, scale)
    assert sent.dtype == sent_as
    np.testing.assert_array_equal(sent, divided if sent_as is np.float32 else values)
    empty = np.zeros((0, 0), np.float32)
    assert script._as_acquired(empty, scale) is empty


@pytest.mark.parametrize("planes", [1, 3])
def test_a_volume_is_segmented_plane_by_plane(module: Any, server: LiveServer, cells: Cells, planes: int) -> None:
    module.url.value = server.url
    one = cells.labels > 0
    stack = np.stack([IMAGE, np.flip(IMAGE), IMAGE])[:planes]
    found = run(module, stack, volumetric=True).object_set.objects["Nuclei"].segmented
    np.testing.assert_array_equal(found > 0, np.stack([one, np.flip(one), one])[:planes])
    module.link.value = "0.25"
    linked = run(module, np.stack([IMAGE] * planes), volumetric=True).object_set.objects["Nuclei"].segmented
    np.testing.assert_array_equal(linked, np.stack([cells.labels] * planes))
    apart = run(module, np.stack([IMAGE, 0 * IMAGE, IMAGE])[:planes], volumetric=True)
    assert apart.measured == (24 if planes == 1 else 48)


@pytest.mark.parametrize(
    ("url", "area", "words"),
    [
        (None, "-1", "min_area is '-1'"),
        ("http://alice:secret@127.0.0.1:1", "", "no service answers at http://127.0.0.1:1"),
        ("alice:secret@host", "", "the address is 'host', it should begin with http"),
    ],
)
def test_a_refusal_has_its_words_and_no_password(
    module: Any, server: LiveServer, url: str | None, area: str, words: str
) -> None:
    module.url.value, module.min_area.value = url or server.url, area
    with pytest.raises(RuntimeError, match=words) as refusal:
        run(module, IMAGE)
    assert "secret" not in str(refusal.value)


def test_a_busy_service_is_asked_again_when_it_says(module: Any, server: LiveServer) -> None:
    with losing_proxy(server, [refusal(503, "0"), refusal(503, "0")]) as proxy:
        module.url.value = proxy.url
        assert run(module, IMAGE).measured == 24
    assert len(proxy.asked) == 3


def test_a_server_that_hangs_up_early_is_asked_again_and_its_refusal_heard(module: Any) -> None:
    with hasty_server("", "the limit is 1 MiB") as hasty:
        module.url.value = hasty.url + "\n"
        with pytest.raises(RuntimeError, match="the limit is 1 MiB"):
            run(module, LARGE)
        assert len(hasty.asked) == 2


def test_a_service_that_is_replaced_is_waited_for(module: Any, server: LiveServer) -> None:
    with losing_proxy(server, ["away"]) as proxy:
        module.url.value = proxy.url
        assert run(module, IMAGE).measured == 24
    assert len(proxy.asked) == 2


def test_patience_ends(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = sys.modules[type(module).__module__]

    def ask(url: str) -> None:
        module.url.value = url
        run(module, IMAGE)

    assert_patience_ends(script, ask, monkeypatch)


@pytest.mark.parametrize("volumetric", [False, True], ids=["image", "volume"])
def test_an_image_of_many_channels_is_no_stack_of_its_rows(
    module: Any, server: LiveServer, cells: Cells, volumetric: bool
) -> None:
    module.url.value, module.channel.value = server.url, "3"
    black = np.zeros_like(IMAGE)
    image = np.stack([black, black, black, IMAGE, black], axis=-1)
    pixels = np.stack([image, image]) if volumetric else image
    found = run(module, pixels, volumetric=volumetric, multichannel=True).object_set.objects["Nuclei"].segmented
    assert found.shape == pixels.shape[:-1]
    np.testing.assert_array_equal((found[0] if volumetric else found) > 0, cells.labels > 0)


def test_only_the_service_is_heard(module: Any) -> None:
    script = sys.modules[type(module).__module__]
    assert_no_other_server_is_heard(lambda url: script.segment(url, IMAGE, {}))
