"""The script for OMERO against a running service; a stand-in of a server's connection, of omero-py where it lacks."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import httpx
import numpy as np
import pytest

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
    refusals_in_words,
    with_key,
)
from tests.live import LiveServer

GROUP = 53


class Stored:
    """Stand-in of OMERO's model: what is set can be got; shapes are added."""

    def __init__(self, *given: object) -> None:
        self.values: dict[str, Any] = {"Id": SimpleNamespace(val=given[0])} if given else {}
        self.shapes: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        verb, field = name[:3], name[3:]
        if verb == "set":
            return lambda value: self.values.__setitem__(field, value)
        return {"get": lambda: self.values[field], "add": self.shapes.append, "cop": lambda: list(self.shapes)}[verb]


class Input:
    """Stand-in of a script's parameter."""

    def __init__(self, name: str, **_: object) -> None:
        self.name = name

    def ofType(self, _: object) -> Input:  # noqa: N802 - as OMERO has it
        return self


def stand_ins() -> dict[str, ModuleType]:
    """Modules of omero-py, as far as the script uses them."""
    value = {name: lambda given: SimpleNamespace(val=given) for name in ("rint", "rlong", "rstring")}
    contents: dict[str, dict[str, Any]] = {
        "omero": {},
        "omero.model": {"RoiI": Stored, "PolygonI": Stored, "ImageI": Stored},
        "omero.scripts": dict.fromkeys(("String", "List", "Bool", "Int", "Float"), Input),
        "omero.gateway": {"BlitzGateway": None},
        "omero.rtypes": value,
    }
    modules = {name: ModuleType(name) for name in contents}
    for name, module in modules.items():
        module.__dict__.update(contents[name])
        if "." in name:
            setattr(modules["omero"], name.partition(".")[2], module)
    return modules


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    if importlib.util.find_spec("omero") is None:
        for name, module in stand_ins().items():
            monkeypatch.setitem(sys.modules, name, module)
    return loaded("omero/segment_unet.py")


class Length:
    """Stand-in of OMERO's length: a number and a unit, or another length in ``unit``."""

    UM: ClassVar = {"MICROMETER": 1.0, "NANOMETER": 0.001, "MILLIMETER": 1000.0}

    def __init__(self, value: float | Length, unit: str) -> None:
        self.unit = unit
        if isinstance(value, Length):
            if {value.unit, unit} - set(self.UM):
                raise Exception(f"{value.value} {value.unit} cannot be converted to {unit}")
            self.value: float = value.value * self.UM[value.unit] / self.UM[unit]
        else:
            self.value = value

    def getValue(self) -> float:  # noqa: N802 - as OMERO has it
        return self.value

    def getUnit(self) -> str:  # noqa: N802 - as OMERO has it
        return self.unit


class Image:
    """Stand-in of an image on a server, (t, z, c, y, x), big-endian as planes come from there."""

    def __init__(
        self,
        pixels_tzcyx: np.ndarray[Any, Any],
        number: int = 7,
        pixel_size: tuple[float, str] | None = (0.5, "MICROMETER"),
    ) -> None:
        self.pixels = pixels_tzcyx.astype(">u2")
        self.number = number
        self.stored = pixel_size and Length(*pixel_size)

    def __getattr__(self, name: str) -> Any:
        size_t, size_z, size_c = self.pixels.shape[:3]
        told = {
            "getSizeT": size_t,
            "getSizeZ": size_z,
            "getSizeC": size_c,
            "getDefaultT": 0,
            "getDefaultZ": size_z // 2,
            "getId": self.number,
            "getName": f"image {self.number}",
            "getPrimaryPixels": self,
            "getDetails": SimpleNamespace(group=SimpleNamespace(id=SimpleNamespace(val=GROUP))),
        }
        return lambda: told[name]

    def getPixelSizeX(self, units: object = None) -> Any:  # noqa: N802 - as OMERO has it
        """As stored; with ``units`` a length, converted where they are the name of some."""
        if self.stored is None or units is None:
            return self.stored and self.stored.getValue()
        return Length(self.stored, units) if isinstance(units, str) else self.stored

    getPixelSizeY = getPixelSizeX  # noqa: N815 - as OMERO has it

    def getPlanes(self, zct: list[tuple[int, int, int]]) -> Iterator[np.ndarray[Any, Any]]:  # noqa: N802 - as OMERO has it
        return (self.pixels[t, z, c] for z, c, t in zct)


class Connection:
    """Stand-in of a connection: keeps what is saved, and in which groups."""

    def __init__(self, *images: Image) -> None:
        self.images = images
        self.groups: list[object] = []
        self.saved: list[Any] = []
        self.SERVICE_OPTS = SimpleNamespace(setOmeroGroup=self.groups.append)

    def getUpdateService(self) -> Any:  # noqa: N802 - as OMERO has it
        def save(rois: list[Any], _: object) -> None:
            assert self.groups[-1] == GROUP
            assert len(rois) <= 500
            self.saved += rois

        return SimpleNamespace(saveArray=save)

    def getObjects(self, kind: str, ids: list[int]) -> Iterator[Any]:  # noqa: N802 - as OMERO has it
        assert self.groups[-1] == "-1"
        images = [image for image in self.images if image.number in ids]
        return iter(images if kind == "Image" else [SimpleNamespace(listChildren=lambda: iter(self.images))])


def image_of(*planes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(t, z, c, y, x) of planes along z, one channel."""
    return np.stack(planes)[np.newaxis, :, np.newaxis]


def drawn(rois: list[Any]) -> dict[tuple[int, int], list[tuple[float, ...]]]:
    """Of each plane (z, t): label, least and greatest x and y, and area of each polygon."""
    found: dict[tuple[int, int], list[tuple[float, ...]]] = {}
    for roi in rois:
        for shape in roi.copyShapes():
            x, y = np.array([corner.split(",") for corner in shape.getPoints().val.split()], float).T
            area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
            place = (shape.getTheZ().val, shape.getTheT().val)
            label = float(shape.getTextValue().val)
            found.setdefault(place, []).append((label, x.min(), x.max(), y.min(), y.max(), area))
    return found


def expected(labels: np.ndarray[Any, Any]) -> list[tuple[float, ...]]:
    found = []
    for label in range(1, labels.max() + 1):
        y, x = np.nonzero(labels == label)
        found.append((float(label), *map(float, (x.min(), x.max() + 1, y.min(), y.max() + 1, len(y)))))
    return found


def test_objects_become_polygons_of_their_plane(script: Any, locked: LiveServer, cells: Cells) -> None:
    conn = Connection()
    image = Image(image_of(np.zeros_like(IMAGE), IMAGE, IMAGE[::-1]))
    assert script.segment_image(conn, image, with_key(locked.url, SECRET) + "/\n", min_area=3) == 24
    assert drawn(conn.saved) == {(1, 0): expected(cells.labels)}
    assert {roi.getName().val for roi in conn.saved} == {"U-Net"}
    assert {roi.getImage().getId().val for roi in conn.saved} == {7}
    assert all(roi.getDescription().val.startswith("tiny@") for roi in conn.saved)


def test_every_plane_is_segmented_where_that_is_asked_for(script: Any, server: LiveServer, cells: Cells) -> None:
    conn = Connection()
    stack = np.concatenate([image_of(IMAGE, np.zeros_like(IMAGE)), image_of(np.zeros_like(IMAGE), IMAGE)])
    assert script.segment_image(conn, Image(stack), server.url, all_planes=True) == 48
    assert drawn(conn.saved) == {(0, 0): expected(cells.labels), (1, 1): expected(cells.labels)}


def test_one_channel_is_sent_by_itself_and_too_many_are_refused(script: Any, server: LiveServer, cells: Cells) -> None:
    channels = np.zeros((1, 1, 5, *IMAGE.shape), np.uint16)
    channels[:, :, 4] = IMAGE
    conn = Connection()
    with pytest.raises(script.Refused, match="image 7 has 5 channels, 4 can be sent; choose one"):
        script.segment_image(conn, Image(channels), server.url)
    with pytest.raises(script.Refused, match="channel is 5, there are 0 to 4"):
        script.segment_image(conn, Image(channels), server.url, channel=5)
    assert conn.saved == []
    assert script.segment_image(conn, Image(channels), server.url, channel=4) == 24
    assert drawn(conn.saved) == {(0, 0): expected(cells.labels)}


@pytest.mark.parametrize(
    ("pixel_size", "sent"),
    [
        ((0.5, "MICROMETER"), "0.5,0.5"),
        ((325.0, "NANOMETER"), "0.325,0.325"),
        ((0.002, "MILLIMETER"), "2.0,2.0"),
        ((1.0, "PIXEL"), None),
        ((1.0, "REFERENCEFRAME"), None),
        (None, None),
    ],
)
def test_pixel_sizes_are_sent_in_micrometres_whatever_they_are_stored_in(
    script: Any, server: LiveServer, pixel_size: tuple[float, str] | None, sent: str | None
) -> None:
    with losing_proxy(server, ()) as proxy:
        assert script.segment_image(Connection(), Image(image_of(IMAGE), pixel_size=pixel_size), proxy.url) == 24
    assert dict(parse_qsl(proxy.asked[0].partition("?")[2])).get("pixel_size") == sent


class NotReady(Exception):
    """As OMERO's errors are: a message, and a stack in what it prints as."""

    message = "the pyramid is not ready"

    def __str__(self) -> str:
        return "exception ::omero::MissingPyramidException\n{\n    serverStackTrace = ...\n}"


class Half(Image):
    """An image whose second plane cannot be had."""

    def getPlanes(self, zct: list[tuple[int, int, int]]) -> Iterator[np.ndarray[Any, Any]]:  # noqa: N802 - as OMERO has it
        if zct[0][0]:
            raise NotReady
        return super().getPlanes(zct)


class Empty(Image):
    """An image that is not imported to its end."""

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "getPrimaryPixels" else super().__getattr__(name)


@pytest.fixture
def message_of(script: Any, server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run the script as OMERO does; gives what it says at the end."""

    def run(conn: Connection, kind: str, *, all_planes: bool = False, url: str = server.url) -> str:
        told: dict[str, Any] = {}
        asked: list[str] = []
        closed: list[bool] = []

        def client(_name: str, _description: str, *inputs: Any) -> Any:
            asked.extend(getattr(one, "name", None) or one._name for one in inputs)
            ids = [image.number for image in conn.images]
            given = {"Data_Type": kind, "IDs": ids, "All_Planes": all_planes, "Mirror": False, "Min_Area": 0}
            assert set(given) <= set(asked)
            return SimpleNamespace(
                getInputs=lambda unwrap: given, setOutput=told.__setitem__, closeSession=lambda: closed.append(True)
            )

        monkeypatch.setattr(script.scripts, "client", client, raising=False)
        monkeypatch.setattr(script, "BlitzGateway", lambda client_obj: conn)
        place = tmp_path / "address"
        place.write_text(url + "\n")
        monkeypatch.setattr(script, "SERVICE_FILE", place)
        script.run_script()
        assert closed == [True]
        return str(told["Message"].val)

    return run


@pytest.mark.parametrize("kind", ["Image", "Dataset"])
def test_the_script_goes_on_after_an_image_without_result(message_of: Callable[..., str], kind: str) -> None:
    conn = Connection(Image(np.zeros((1, 1, 5, 8, 8)), 6), Image(image_of(IMAGE), 7))
    assert message_of(conn, kind) == (
        "24 objects in 1 image; "
        "1 image is not done, or not whole: image 6: image 6 has 5 channels, 4 can be sent; choose one"
    )


def test_the_script_goes_on_after_whatever_happens_to_an_image_and_counts_all_that_is_done(
    message_of: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    conn = Connection(Half(image_of(IMAGE, IMAGE), 5), Empty(image_of(IMAGE), 6), Image(image_of(IMAGE), 7))
    assert message_of(conn, "Image", all_planes=True) == (
        "48 objects in 1 image; 2 images are not done, or not whole: image 5: NotReady the pyramid is not ready"
    )
    assert len(conn.saved) == 48
    assert "serverStackTrace" in capfd.readouterr().err


class Unread(Image):
    """An image that nobody may ask for."""

    def getPlanes(self, zct: list[tuple[int, int, int]]) -> Iterator[np.ndarray[Any, Any]]:  # noqa: N802 - as OMERO has it
        pytest.fail(f"{zct} is read")


@pytest.mark.parametrize("status", [301, 401, 403, 200])
def test_no_further_image_is_read_where_none_would_have_a_result(
    message_of: Callable[..., str], server: LiveServer, status: int
) -> None:
    conn = Connection(Image(np.zeros((1, 1, 5, 8, 8)), 5), *(Image(image_of(IMAGE), one) for one in (6, 7)))
    conn.images = (*conn.images, Unread(image_of(IMAGE), 8))
    answers: list[str | httpx.Response] = [
        "none",
        httpx.Response(status, headers={"Location": "/login"}, content=b"no"),
    ]
    with losing_proxy(server, answers) as proxy:
        said = message_of(conn, "Dataset", url=proxy.url)
    assert said.startswith(f"24 objects in 1 image; 3 images are not done, or not whole: image 7: {proxy.url} ")
    assert len(proxy.asked) == 2


def test_no_further_image_is_read_where_the_service_is_silent(
    message_of: Callable[..., str], script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "_SILENCE_S", 0.5)
    conn = Connection(Image(image_of(IMAGE), 6), Unread(image_of(IMAGE), 7))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = message_of(conn, "Dataset", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert said.startswith("0 objects in 0 images; 2 images are not done, or not whole: image 6: no service answers")


def test_an_image_without_pixels_is_named(script: Any) -> None:
    with pytest.raises(script.Refused, match="image 7 has no pixels; wait until it is imported"):
        script.segment_image(Connection(), Empty(image_of(IMAGE)), "http://127.0.0.1:1")


@refusals_in_words
def test_a_refusal_has_its_words_and_no_password(
    script: Any, server: LiveServer, url: str | None, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(script.Refused, match=words) as refusal:
        script.segment_image(Connection(), Image(image_of(IMAGE)), url or server.url, **options)
    assert "secret" not in str(refusal.value)


def test_a_service_with_keys_says_so(script: Any, locked: LiveServer) -> None:
    with pytest.raises(script.Refused, match="no key was sent"):
        script.segment_image(Connection(), Image(image_of(IMAGE)), locked.url)


def test_a_server_that_hangs_up_early_is_asked_again_and_its_refusal_heard(script: Any) -> None:
    with hasty_server("", "the limit is 1 MiB") as hasty:
        with pytest.raises(script.Refused, match="the limit is 1 MiB"):
            script.segment_image(Connection(), Image(image_of(LARGE)), hasty.url)
        assert len(hasty.asked) == 2


def test_a_service_that_is_replaced_is_waited_for(script: Any, server: LiveServer) -> None:
    with losing_proxy(server, ["away"]) as proxy:
        assert script.segment_image(Connection(), Image(image_of(IMAGE)), proxy.url) == 24
    assert len(proxy.asked) == 2


def test_patience_ends(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(image_of(IMAGE))
    assert_patience_ends(script, lambda url: script.segment_image(Connection(), image, url), monkeypatch)


def test_only_the_service_is_heard(script: Any) -> None:
    image = Image(image_of(IMAGE))
    assert_no_other_server_is_heard(lambda url: script.segment_image(Connection(), image, url))
