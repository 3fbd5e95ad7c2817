"""What the page shows of a picture, and what it says where it shows none."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.by import By

from service.client import Client
from tests.e2e.page import IMAGE, Page
from tests.images import bmp, disc, npy, png, tiff

NOTE_DECODING = """
    window.noted = {planes: [], atOnce: 0, most: 0, bytes: 0};
    tiffPlane = ((before) => async (file, plane, ...rest) => {
      noted.planes.push(plane);
      noted.most = Math.max(noted.most, ++noted.atOnce);
      return before(file, plane, ...rest).finally(() => noted.atOnce--);
    })(tiffPlane);
    Blob.prototype.arrayBuffer = ((before) => function () {
      noted.bytes += this.size;
      return before.call(this);
    })(Blob.prototype.arrayBuffer);
"""
DRAG = """
    for (let plane = 2; plane <= 12; plane++) {
      $("plane").value = plane;
      $("plane").dispatchEvent(new Event("input"));
      while (noted.planes.length === 0) await new Promise((resume) => setTimeout(resume));
    }
"""

ANSWER = {
    "size": [256, 384],
    "output": "labels",
    "objects": [],
    "receipt": {"input": {"notes": []}, "output": {}},
}

PREPARED = "const body = arguments[0]; ask = async () => ({body});"  # the service would take minutes


def bits_in_reverse(content: bytes) -> bytes:
    """Say that each byte's lowest bit comes first (FillOrder 2), in the place of the resolution's unit."""
    before = struct.pack("<HHII", 296, 3, 1, 1)
    assert content.count(before) == 1
    return content.replace(before, struct.pack("<HHII", 266, 3, 1, 2))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reversed.tif", bits_in_reverse(tiff(IMAGE))),
        ("ome.tif", tiff(np.stack([IMAGE] * 2), ome=True, photometric="minisblack", metadata={"axes": "ZYX"})),
        ("a.npy", npy(IMAGE)),
    ],
    ids=["bits in reverse", "pages in an order of their own", "npy"],
)
def test_what_the_page_cannot_read_for_sure_is_not_shown(page: Page, name: str, content: bytes) -> None:
    page.choose(name, content)
    assert page.text("status").endswith("; this browser does not show such a file, so the result stands alone")


def test_a_picture_that_browsers_turn_is_measured_as_it_is_stored_and_not_shown(page: Page) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # a quarter to the right
    Image.fromarray(IMAGE).save(buffer, "JPEG", exif=exif)
    page.choose("turned.jpg", buffer.getvalue())
    assert "browsers turn such a picture" in page.text("status")
    assert page.script("return [layers.ground, canvas.width, canvas.height]") == [None, 384, 256]
    measured = page.browser.execute_async_script("measured(image).then(arguments[0])")
    assert measured == {"height": 256, "width": 384, "planes": 1}


def test_a_bitmap_is_shown_as_a_png_is(page: Page) -> None:
    seen = []
    for name, content in (("cells.png", png(IMAGE)), ("cells.bmp", bmp(IMAGE))):
        page.choose(name, content)
        assert page.text("status").endswith(" s"), "with its picture"
        seen.append(page.script("return canvas.toDataURL()"))
    assert seen[0] == seen[1]


def with_alpha(opacity: int) -> bytes:
    alpha = np.full_like(IMAGE, 255)
    alpha[:64] = opacity
    return png(np.dstack([IMAGE, alpha]))


def without_darkest() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG", transparency=int(IMAGE.min()))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "shown"),
    [(with_alpha(255), True), (with_alpha(254), False), (with_alpha(0), False), (without_darkest(), False)],
    ids=["opaque", "nearly opaque", "transparent", "one grey transparent"],
)
def test_a_picture_with_transparent_parts_is_not_shown_as_black(page: Page, content: bytes, shown: bool) -> None:
    page.choose("alpha.png", content)
    assert "24 objects" in page.text("facts")
    assert page.text("status").endswith(" s") == shown
    assert ("parts of the picture are transparent" in page.text("status")) != shown


def test_notes_on_how_an_image_was_read_stand_under_it_and_go_with_it(page: Page) -> None:
    page.set("output", "mask")  # of objects there is more to note
    page.choose("alpha.png", with_alpha(254))
    assert page.text("notes") == "alpha channel dropped"
    assert page.shown("notes")
    page.choose("plain.png", png(IMAGE))
    assert not page.text("notes")
    assert not page.shown("notes")


def coloured(page: Page) -> NDArray[np.bool_]:
    """Where the canvas has colour (y, x)."""
    packed = base64.b64decode(page.script("return canvas.toDataURL()").partition(",")[2])
    rgb = np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"))
    return np.asarray(rgb.max(axis=2) != rgb.min(axis=2))


def test_a_picture_that_is_longer_than_canvases_is_shown_smaller(page: Page) -> None:
    cells = np.pad(np.tile(disc(64, 64), (1, 300)), ((64, 0), (64 * 300 + 1, 0)), constant_values=20)
    page.choose("long.png", png(cells))
    assert page.text("facts").startswith("38401 \N{MULTIPLICATION SIGN} 128 px · shown 1:2 · 300 objects")
    assert page.text("status").endswith(" s"), "with its picture"
    with Client(page.url) as client:
        labels = client.segment_array(cells, output="labels")
    np.testing.assert_array_equal(coloured(page), labels[::2, ::2] > 0)
    page.without_objects()
    assert page.pixel(9600 + 16, 48) == [255, 255, 255, 255]
    assert page.pixel(9600 + 16, 16) == [0, 0, 0, 255]


def png_declaring(edge: int) -> bytes:
    content = bytearray(png(IMAGE))
    content[16:24] = edge.to_bytes(4, "big") * 2
    return bytes(content)


def test_a_picture_that_is_too_large_is_not_decoded_and_its_objects_are_drawn_smaller(page: Page) -> None:
    edge, step = 20_000, 5
    lengths = [edge * 1000 + 2000, 2000, edge * edge - edge * 1000 - 4000]  # part of one column
    object_ = {"label": 1, "area": 2000, "segmentation": {"counts": "COUNTS"}}
    receipt: dict[str, Any] = {"input": {"notes": []}, "output": {}}
    answer = {"size": [edge, edge], "output": "labels", "objects": [object_], "receipt": receipt}
    # the service would take minutes
    page.script(f"counts = () => {lengths}; ask = async () => ({{body: {json.dumps(answer)}}})")
    page.choose("huge.png", png_declaring(edge))
    assert page.text("status").endswith("; the picture is too large to be shown here, so the result stands alone")
    assert page.text("zoom") == f"Largest, 1:{step}"
    assert f"shown 1:{step} · 1 object, 2000 px" in page.text("facts")
    assert page.script("return [canvas.width, canvas.height]") == [edge // step] * 2
    red, green, blue, _ = page.pixel(1000 // step, 2000 // step)
    assert max(red, green, blue) > min(red, green, blue)
    assert page.pixel(1000 // step, 2000 // step - 1)[:3] == [0, 0, 0]
    assert page.pixel(1000 // step + 1, 2000 // step)[:3] == [0, 0, 0]


@pytest.mark.parametrize(
    "options", [{"rowsperstrip": 100}, {"tile": (1008, 1008), "predictor": True}], ids=["strips", "tiles, differences"]
)
def test_a_large_tiff_is_shown_smaller(page: Page, options: dict[str, Any]) -> None:
    image = np.tile(IMAGE, (20, 13)).astype(np.uint16) * 16
    page.browser.execute_script(PREPARED, {**ANSWER, "size": [*image.shape]})
    page.choose("large.tif", tiff(image, compression="zlib", **options))
    assert page.text("status").endswith(" s"), "with its picture"
    assert page.text("zoom") == "Largest, 1:2"
    shown = greys(page)[..., 0]
    half = image[::2, ::2]
    assert shown.shape == half.shape
    np.testing.assert_array_equal(shown == 255, half == image.max())


@pytest.mark.parametrize("edge", [1, 5])
def test_a_very_small_picture_is_enlarged(page: Page, edge: int) -> None:
    page.choose("small.png", png(np.full((edge, edge), 7, np.uint8)))
    assert not page.failed()
    shown = page.browser.find_element(By.ID, "canvas").rect
    assert 128 <= shown["width"] == shown["height"] < 140


def test_of_the_planes_that_a_drag_passes_few_are_read_and_one_at_a_time(page: Page) -> None:
    stack = np.stack([np.tile(np.roll(IMAGE, plane, axis=1), (4, 4)).astype(np.uint16) for plane in range(12)])
    content = tiff(stack, imagej=True, metadata={"axes": "ZYX"})
    page.choose("stack.tif", content)
    page.script(NOTE_DECODING + DRAG)
    page.until(lambda: "plane 12 of 12" in page.text("facts") and page.script("return noted.atOnce") == 0)
    noted = page.script("return noted")
    assert noted["planes"] == [1, 11], "what is overtaken is not decoded"
    assert noted["most"] == 1
    assert noted["bytes"] < len(content) / 2
    page.without_objects()
    x, y = np.argwhere(np.roll(IMAGE, 11, axis=1) == 200)[0][::-1]
    assert page.pixel(int(x), int(y))[:3] == [255, 255, 255]
    assert page.pixel(int(x) - 1, int(y))[:3] == [0, 0, 0]


def greys(page: Page) -> NDArray[np.uint8]:
    """Return what the canvas shows without objects, red, green and blue (y, x, 3)."""
    page.without_objects()
    packed = base64.b64decode(page.script("return canvas.toDataURL()").partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"))


@pytest.mark.parametrize("kind", ["NONE", "SUB", "UP", "AVG", "PAETH"])
@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_all_bits_of_a_dim_png_are_shown(page: Page, kind: str, colours: int) -> None:
    rng = np.random.default_rng(0)
    image = (IMAGE[..., None] + rng.integers(0, 40, (*IMAGE.shape, colours))).astype(np.uint16)  # of 16 bits below 240
    if colours in {2, 4}:
        image[..., -1] = 65535
    content = bytes(
        imagecodecs.png_encode(image[..., 0] if colours == 1 else image, filter=imagecodecs.PNG.FILTER[kind])
    )
    if colours > 2:
        page.script(f"ask = async () => ({{body: {json.dumps(ANSWER)}}})")  # the net takes grey alone
    page.choose("dim.png", content)
    assert page.text("status").endswith(" s")
    seen = greys(page).astype(float)
    for channel in range(3):
        expected = image[..., channel if colours > 2 else 0].astype(float)
        middle = (expected > 25) & (expected < 230)
        line = np.polyfit(expected[middle], seen[..., channel][middle], 1)
        assert np.abs(np.polyval(line, expected[middle]) - seen[..., channel][middle]).max() < 2
        assert line[0] > 1
    assert seen.min() == 0
    assert seen.max() == 255


def test_a_deep_png_that_the_page_cannot_unpack_is_shown_in_part_and_says_so(page: Page) -> None:
    page.script("png16 = async () => null")
    page.choose("deep.png", bytes(imagecodecs.png_encode(IMAGE.astype(np.uint16) * 200)))
    assert page.text("status").endswith("; the picture is shown by the upper 8 of its 16 bits")


def test_the_picture_is_shown_by_the_numbers_that_the_net_sees(page: Page) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1))).save(buffer, "PNG")
    content = buffer.getvalue()
    after_header = 8 + 25
    gamma = b"gAMA" + struct.pack(">I", 100_000)  # linear, which browsers brighten
    chunk = struct.pack(">I", 4) + gamma + struct.pack(">I", zlib.crc32(gamma))
    page.choose("plain.png", content)
    plain = greys(page)
    page.choose("linear.png", content[:after_header] + chunk + content[after_header:])
    np.testing.assert_array_equal(greys(page), plain)


def test_a_picture_that_cannot_be_decoded_hides_no_later_one(page: Page) -> None:
    page.script("decoded = ((before) => async (...given) => { decoded = before; throw new Error('broken'); })(decoded)")
    page.choose("a.png", png(IMAGE))
    assert page.text("status") == "a.png: broken"
    page.choose("b.png", png(IMAGE))
    assert page.text("status").startswith("Done")


def test_steps_of_opacity_are_drawn_once_a_frame_from_what_is_there(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.script("window.drawn = 0; draw = ((before) => () => { drawn++; before(); })(draw); layersOf = stretch = null")
    page.browser.execute_async_script(
        "for (let step = 0; step < 5; step++) $('opacity').dispatchEvent(new Event('input'));"
        "requestAnimationFrame(arguments[0])"
    )
    assert page.script("return drawn") == 1
    page.without_objects()
    assert page.script("return drawn") == 2
    assert page.pixel(32, 32)[:3] == [255, 255, 255]


def test_the_page_answers_while_a_picture_is_drawn_and_gives_up_what_is_overtaken(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.script(
        "window.late = 0; performance.now = ((before) => () => before() + (late += 60))"
        "(performance.now.bind(performance))"  # so that each look at the clock finds it is time to rest
    )
    drawn = page.browser.execute_async_script(
        "const done = arguments[0]; let turns = 0; const timer = setInterval(() => turns++);"
        "layersOf(result, 0, null, () => false).then((layers) => {"
        "  clearInterval(timer); done([turns > 10, Boolean(layers)]);"
        "})"
    )
    assert drawn == [True, True]
    assert page.browser.execute_async_script("layersOf(result, 0, null, () => true).then(arguments[0])") is None
