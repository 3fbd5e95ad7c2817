"""The page in a real browser: headless Chromium on the running service."""

from __future__ import annotations

import base64
import io
import json
import re
import struct

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from service.client import Client
from tests.e2e.page import IMAGE, Page
from tests.images import bmp, disc, jpeg, npy, png, tiff

COLOURS = """
    const canvas = document.getElementById("canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const found = new Set();
    for (let at = 0; at < data.length; at += 4)
      if (Math.max(data[at], data[at + 1], data[at + 2]) !== Math.min(data[at], data[at + 1], data[at + 2]))
        found.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
    return found.size;
"""


NOTE_CHANGES = """
    window.noted = {clock: [], status: []};
    for (const [name, texts] of Object.entries(noted))
      new MutationObserver(() => texts.push($(name).textContent)).observe($(name), {childList: true});
"""


def luminance(rgb: list[int]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2.2 defines it."""
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio, as WCAG 2.2 defines it: 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png(IMAGE)),
        ("a.tif", tiff(IMAGE.astype(np.uint16) * 200)),
        ("lzw.tif", tiff(IMAGE.astype(np.uint16) * 200, compression="lzw")),
        ("a.npy", npy(IMAGE)),
    ],
    ids=["png", "16 bit TIFF", "TIFF that no browser shows", "npy"],
)
def test_each_object_of_a_chosen_file_is_counted_and_coloured(page: Page, name: str, content: bytes) -> None:
    page.choose(name, content)
    assert page.text("facts").startswith("384 \N{MULTIPLICATION SIGN} 256 px · 24 objects")
    assert page.script(COLOURS) == 24
    assert page.shown("canvas")


def sixteen_bit_png(image_yx: NDArray[np.uint16]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_yx).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dim.png", sixteen_bit_png(IMAGE.astype(np.uint16) * 16)),
        ("little.tif", tiff(IMAGE.astype(np.uint16) * 16)),
        ("big.tif", tiff(IMAGE.astype(np.uint16) * 16, byteorder=">", rowsperstrip=10)),
        ("deflated.tif", tiff(IMAGE.astype(np.uint16) * 16, compression="zlib", rowsperstrip=10)),
        ("signed.tif", tiff(IMAGE.astype(np.int16) * 16 - 3000)),
        ("lzw.tif", tiff(IMAGE, compression="lzw", rowsperstrip=100)),
        ("differences.tif", tiff(IMAGE.astype(np.uint16) * 16, compression="zlib", predictor=True, rowsperstrip=10)),
        ("signed-differences.tif", tiff(IMAGE.astype(np.int16) * 200 - 30000, compression="lzw", predictor=True)),
        ("tiles.tif", tiff(IMAGE.astype(np.uint16) * 16, compression="lzw", predictor=True, tile=(48, 80))),
        ("float.tif", tiff(IMAGE.astype(np.float32) / 1000)),
        ("bigtiff.tif", tiff(IMAGE.astype(np.uint16) * 16, bigtiff=True, rowsperstrip=10)),
        ("stack.tif", tiff(np.stack([IMAGE, IMAGE]).astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dim_picture_is_shown_over_all_greys(page: Page, name: str, content: bytes) -> None:
    page.choose(name, content)
    assert page.text("status").endswith(" s"), "shown, not left out"
    page.without_objects()
    assert page.pixel(32, 32) == [255, 255, 255, 255]
    assert page.pixel(0, 0) == [0, 0, 0, 255]


@pytest.mark.parametrize("name", ["noise", "flat", "repeated", "one", "steps"])
def test_the_page_unpacks_lzw_as_others_do(page: Page, name: str) -> None:
    rng = np.random.default_rng(0)
    content = {
        "noise": rng.integers(0, 256, 50_000, dtype=np.uint8),
        "flat": np.zeros(200_000, dtype=np.uint8),
        "repeated": np.tile(rng.integers(0, 256, 300, dtype=np.uint8), 200),
        "one": np.array([7], dtype=np.uint8),
        "steps": np.repeat(rng.integers(0, 4, 9_000, dtype=np.uint8), 5),
    }[name]
    packed = base64.b64encode(imagecodecs.lzw_encode(content.tobytes())).decode()
    unpacked = page.script(
        f"const packed = Uint8Array.from(atob('{packed}'), (character) => character.charCodeAt(0));"
        f"return Array.from(unpackLzw(packed, {content.size}));"
    )
    assert unpacked == content.tolist()


STACK = np.stack([IMAGE] * 6)


def of_os_2(content: bytes) -> bytes:
    """Give a grey bitmap the first version of its header, whose sides have 16 bits, and colours of three bytes."""
    width, height = struct.unpack_from("<ii", content, 18)
    colours = np.frombuffer(content[54 : 54 + 4 * 256], dtype=np.uint8).reshape(256, 4)[:, :3].tobytes()
    at = 14 + 12 + len(colours)
    return content[:10] + struct.pack("<IIHHHH", at, 12, width, height, 1, 8) + colours + content[54 + 4 * 256 :]


@pytest.mark.parametrize(
    ("name", "content", "planes"),
    [
        ("a.png", png(IMAGE), 1),
        ("a.jpg", jpeg(IMAGE), 1),
        ("a.bmp", bmp(IMAGE), 1),
        ("old.bmp", of_os_2(bmp(IMAGE)), 1),
        ("a.npy", npy(IMAGE), 1),
        ("stack.npy", npy(STACK), 6),
        ("colour.npy", npy(np.stack([IMAGE] * 3, axis=-1)), 1),
        ("strips.tif", tiff(IMAGE, byteorder=">", rowsperstrip=10), 1),
        ("big.tif", tiff(STACK, bigtiff=True, photometric="minisblack", metadata=None), 6),
        ("imagej.tif", tiff(STACK, imagej=True, metadata={"axes": "ZYX"}), 6),
        (
            "hyperstack.tif",
            tiff(np.stack([STACK] * 2, axis=1).astype(np.uint8), imagej=True, metadata={"axes": "ZCYX"}),
            6,
        ),
        ("ome-colour.tif", tiff(np.stack([STACK] * 3, axis=-1), ome=True, metadata={"axes": "ZYXS"}), 6),
        (
            "imagej-of-nine.tif",
            tiff(STACK, imagej=True, metadata={"axes": "ZYX"}).replace(b"images=6", b"images=9"),
            6,
        ),
        ("ome.tif", tiff(np.stack([STACK] * 2), ome=True, photometric="minisblack", metadata={"axes": "CZYX"}), 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_page_knows_the_size_of_a_picture_beforehand(page: Page, name: str, content: bytes, planes: int) -> None:
    with Client(page.url) as client:
        told = json.loads(client.segment(content, format="rle", channel=0))
    assert len(told.get("planes", [0])) == planes
    page.choose(name, content)
    found = page.browser.execute_async_script("measured(image).then(arguments[0])")
    assert found == {"height": told["size"][0], "width": told["size"][1], "planes": planes}


def in_a_circle(content: bytes) -> bytes:
    """Let the last page of a classic little-endian TIFF be followed by its first one."""
    circle, first = bytearray(content), struct.unpack_from("<I", content, 4)[0]
    at = 4
    while following := struct.unpack_from("<I", circle, at)[0]:
        at = following + 2 + 12 * struct.unpack_from("<H", circle, following)[0]
    struct.pack_into("<I", circle, at, first)
    return bytes(circle)


def test_pages_in_a_circle_are_gone_through_once(page: Page) -> None:
    page.script("window.reads = 0; slice = ((before) => (...range) => { reads++; return before(...range); })(slice)")
    page.choose("circle.tif", in_a_circle(tiff(STACK, photometric="minisblack", metadata=None)))
    assert page.failed()
    assert page.browser.execute_async_script("measured(image).then(arguments[0])") is None
    assert page.script("return reads") < 40


def test_a_picture_of_many_strips_is_shown(page: Page) -> None:
    page.choose("strips.tif", tiff(np.tile(IMAGE, (8, 8)), compression="zlib", rowsperstrip=1))
    assert page.text("status").startswith("Done")
    assert not page.text("status").endswith("stands alone")


def test_the_page_says_how_long_it_will_take(page: Page) -> None:
    page.script(NOTE_CHANGES)
    page.choose("large.png", png(np.tile(IMAGE, (6, 4))))
    noted = page.script("return noted")
    assert any(re.search(r"^\d+\.\d s of (about|at least) \d+ (s|min)$", text) for text in noted["clock"])
    # words that change are read aloud
    assert [text.partition(" ")[0] for text in noted["status"] if text] == ["Segmenting", "Done"]
    assert page.script("return $('clock').ariaHidden") == "true"
    assert page.text("clock") == ""


def test_an_image_that_is_too_large_is_not_sent(page: Page) -> None:
    content = bytearray(png(IMAGE))
    content[16:24] = (400_000).to_bytes(4, "big") * 2
    page.choose("huge.png", bytes(content))
    assert page.failed()
    refusal = httpx.get(f"{page.url}/plan", params={"size": "400000x400000"})
    assert refusal.status_code == 413
    assert page.text("status") == f"huge.png: {refusal.json()['detail']}"
    assert "/plan" in page.paths()
    assert "/segment" not in page.paths()


def test_a_dropped_file_is_segmented(page: Page) -> None:
    page.drop({"dropped.png": png(IMAGE)})
    assert "24 objects" in page.text("facts")
    assert "files" not in page.text("status")


def test_of_several_dropped_files_the_page_says_which_it_takes(page: Page) -> None:
    page.drop({"one.png": png(IMAGE), "two.png": png(disc()), "three.png": png(disc())})
    assert "24 objects" in page.text("facts")
    assert page.text("status").endswith(" s (3 files dropped; this page takes one at a time, and this is one.png)")
    page.choose("two.png", png(disc()))
    assert "files" not in page.text("status")
    page.drop({"letter.txt": b"Dear editor, " * 20, "one.png": png(IMAGE)})
    assert page.failed()
    assert page.text("status").count("letter.txt") == 1
    assert page.text("status").endswith("this page takes one at a time, and this is letter.txt)")


def test_options_are_sent_and_the_result_renewed(page: Page) -> None:
    page.choose("a.png", png(np.hstack([IMAGE, disc(256, 64, radius=4)])))
    assert "25 objects" in page.text("facts")
    page.set("min_area", "100")
    page.until(lambda: "24 objects" in page.text("facts"))
    page.set("min_score", "0.5")
    page.until(lambda: '"min_score": 0.5' in page.script("return $('receipt').textContent"))
    page.set("output", "mask")
    page.until(lambda: "object:" in page.text("facts"))
    assert page.script(COLOURS) == 1
    page.browser.find_element(By.ID, "mirror").click()
    page.until(lambda: '"views": 8' in page.script("return $('receipt').textContent"))


def test_the_scale_is_fitted_to_the_model_in_place_of_a_number(page: Page) -> None:
    page.choose("a.png", png(IMAGE))
    page.set("scale", "2")
    page.until(lambda: '"scale": 2' in page.script("return $('receipt').textContent"))
    page.browser.find_element(By.ID, "fit").click()
    page.until(lambda: "scale=auto" in page.text("notes"))
    output = json.loads(page.script("return $('receipt').textContent"))["output"]
    assert output["scale"] not in {1, 2}
    assert not page.browser.find_element(By.ID, "scale").is_enabled()
    assert "24 objects" in page.text("facts")
    page.browser.find_element(By.ID, "fit").click()
    page.until(lambda: '"scale": 2' in page.script("return $('receipt').textContent"))


def test_a_channel_is_chosen_and_shown_under_its_objects(page: Page) -> None:
    dark = np.full_like(IMAGE, 20)
    half = np.where(np.arange(384) < 192, IMAGE, 20)
    metadata = {"axes": "CYX", "Labels": ["actin", "DAPI"]}
    page.choose("two.tif", tiff(np.stack([dark, half]).astype(np.uint8), imagej=True, metadata=metadata))
    assert page.failed()
    assert "choose one in the field Channel: 0 to 1 or a name (0 'actin', 1 'DAPI')" in page.text("status")
    page.set("channel", "dapi")
    page.until(lambda: "12 objects" in page.text("facts"))
    page.without_objects()
    assert page.pixel(32, 32)[:3] == [255, 255, 255]
    assert page.pixel(352, 32)[:3] == [0, 0, 0]
    page.set("channel", "0")
    page.until(lambda: "0 objects" in page.text("facts") and "12 objects" not in page.text("facts"))


def test_axes_are_said_and_the_channel_lies_under_its_objects(page: Page) -> None:
    dark = np.full_like(IMAGE, 20)
    slices = np.stack([dark, np.where(np.arange(384) < 192, IMAGE, 20), dark]).astype(np.uint8)
    page.choose("slices.tif", tiff(slices, imagej=True, metadata={"axes": "ZYX"}))
    page.until(lambda: not page.browser.find_element(By.ID, "plane-label").get_property("hidden"))
    page.set("axes", "CYX")
    page.until(lambda: "choose one in the field Channel: 0 to 2" in page.text("status"))
    page.set("channel", "1")
    page.until(lambda: "12 objects" in page.text("facts"))
    assert "axes CYX as asked for, in place of ZYX" in page.text("notes")
    page.without_objects()
    assert page.pixel(32, 32)[:3] == [255, 255, 255]
    assert page.pixel(352, 32)[:3] == [0, 0, 0]


def test_planes_of_a_stack_are_shown_one_by_one(page: Page) -> None:
    stack = np.stack([IMAGE, np.where(np.arange(384) < 64, IMAGE, 20).astype(np.uint8)])
    page.choose("stack.tif", tiff(stack, imagej=True, metadata={"axes": "ZYX"}))
    assert "plane 1 of 2 · 24 objects" in page.text("facts")
    plane = page.browser.find_element(By.ID, "plane")
    assert plane.get_attribute("value") == "1", "as it is read aloud"
    plane.send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: "plane 2 of 2 · 4 objects" in page.text("facts"))
    page.without_objects()
    assert page.pixel(32, 32)[:3] == [255, 255, 255]
    assert page.pixel(96, 32)[:3] == [0, 0, 0]


def test_an_object_of_a_stack_has_one_colour_in_all_planes_where_overlaps_link_it(page: Page) -> None:
    right = np.where(np.arange(384) >= 320, IMAGE, 20).astype(np.uint8)  # of which none is the first of the whole
    page.choose("stack.tif", tiff(np.stack([IMAGE, right]), imagej=True, metadata={"axes": "ZYX"}))

    def colours() -> list[list[int]]:
        page.script("$('opacity').value = 1; $('opacity').dispatchEvent(new Event('input'))")
        found = []
        for plane, facts in enumerate(("plane 1 of 2 · 24 objects", "plane 2 of 2 · 4 objects"), 1):
            page.script(f"$('plane').value = {plane}; $('plane').dispatchEvent(new Event('input'))")
            page.until(lambda facts=facts: facts in page.text("facts"))
            found.append(page.pixel(352, 32)[:3])
        return found

    apart = colours()
    assert apart[0] != apart[1]
    page.set("link", "0.5")
    page.until(lambda: "4 objects of 24" in page.text("facts"))
    linked = colours()
    assert linked == [apart[0], apart[0]]
    assert "4 objects of 24" in page.text("facts")
    page.set("output", "mask")
    page.until(lambda: "object:" in page.text("facts"))
    assert not page.browser.find_element(By.ID, "link").is_enabled()
    page.set("output", "labels")
    page.until(lambda: "4 objects of 24" in page.text("facts"))


@pytest.mark.parametrize(
    ("form", "extension"),
    [("rois", ".zip"), ("csv", ".csv"), ("npy", ".npy"), ("geojson", ".geojson"), ("tiff", ".tif"), ("png", ".png")],
)
def test_a_download_is_what_the_service_answers(page: Page, form: str, extension: str) -> None:
    page.choose("cells.png", png(IMAGE))
    page.set("format", form)
    page.browser.find_element(By.ID, "download").click()
    page.until(lambda: page.text("saved").startswith("Saved"))
    saved = page.folder / page.text("saved").removeprefix("Saved ")
    assert saved.name.startswith("cells-")
    assert saved.suffix == extension
    page.until(saved.is_file)
    with Client(page.url) as client:
        direct = client.segment(png(IMAGE), output="labels", format=form)
    if form in {"tiff", "png"}:  # these hold the receipt, and with it milliseconds
        read = tifffile.imread if form == "tiff" else Image.open
        np.testing.assert_array_equal(np.asarray(read(saved)), np.asarray(read(io.BytesIO(direct))))
    else:
        assert saved.read_bytes() == direct


def test_all_is_done_by_keyboard(page: Page) -> None:
    drop = page.browser.find_element(By.ID, "drop")
    assert drop.accessible_name == drop.text
    page.script("window.opened = 0; $('file').click = () => opened++")
    press = "return $('drop').dispatchEvent(new KeyboardEvent('keydown', {key: '%s', cancelable: true}))"
    assert [page.script(press % key) for key in (" ", "Enter", "a")] == [False, False, True], "a space does not scroll"
    assert page.script("return opened") == 2
    assert not page.shown("zoom")
    page.choose("wide.png", png(np.tile(IMAGE, (1, 6))))
    canvas, zoom = (page.browser.find_element(By.ID, name) for name in ("canvas", "zoom"))
    for key, pressed in ((Keys.SPACE, "true"), (Keys.ENTER, "false")):
        zoom.send_keys(key)
        assert zoom.get_attribute("aria-pressed") == pressed
        assert (canvas.rect["width"] == 6 * 384) == (pressed == "true")
    canvas.click()
    assert zoom.get_attribute("aria-pressed") == "true"
    page.browser.find_element(By.ID, "stage").send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.script("return $('stage').scrollLeft") > 0)


UNDER = """
    window.under = ([x, y]) => {
      const found = $("canvas").getBoundingClientRect();
      return [(x - found.left) / found.width, (y - found.top) / found.height];
    };
    window.clicked = null;
    addEventListener("click", ({clientX, clientY}) => {
      clicked ??= {at: [clientX, clientY], place: under([clientX, clientY])};
    }, {capture: true});
"""


def test_a_click_enlarges_what_was_clicked_and_the_button_the_middle(page: Page) -> None:
    page.choose("wide.png", png(np.tile(IMAGE, (12, 8))))
    page.script(UNDER)
    canvas, zoom = (page.browser.find_element(By.ID, name) for name in ("canvas", "zoom"))
    assert zoom.text == "Each pixel as it is"
    right, down = round(0.25 * canvas.rect["width"]), round(0.1 * canvas.rect["height"])
    ActionChains(page.browser).move_to_element_with_offset(canvas, right, down).click().perform()
    assert canvas.rect["width"] == 3072
    clicked = page.script("return clicked")
    assert min(abs(part - 0.5) for part in clicked["place"]) > 0.05
    assert page.script("return under(clicked.at)") == pytest.approx(clicked["place"], abs=0.01)
    zoom.click()
    zoom.click()
    frame = "const {left, top} = $('stage').getBoundingClientRect();"
    middle = page.script(
        f"{frame} return under([left + $('stage').clientWidth / 2, top + $('stage').clientHeight / 2])"
    )
    assert middle == pytest.approx([0.5, 0.5], abs=0.01)


def test_what_explains_a_field_is_found_by_assistive_technology(page: Page) -> None:
    page.browser.execute_cdp_cmd("Accessibility.enable", {})
    document = page.browser.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
    for name, word in (
        ("channel", "its number"),
        ("axes", "a letter"),
        ("scale", "0.5 where"),
        ("mirror", "a little"),
    ):
        node = page.browser.execute_cdp_cmd("DOM.querySelector", {"nodeId": document, "selector": f"#{name}"})
        found = page.browser.execute_cdp_cmd("Accessibility.getPartialAXTree", {**node, "fetchRelatives": False})
        assert found["nodes"][0]["description"]["value"].startswith(word)


@pytest.mark.parametrize("form", ["coco", "rle"])
def test_both_kinds_of_json_are_told_apart_by_name(page: Page, form: str) -> None:
    page.choose("cells.png", png(IMAGE))
    page.set("format", form)
    page.browser.find_element(By.ID, "download").click()
    page.until(lambda: page.text("saved") == f"Saved cells-tiny-labels.{form}.json")


def test_a_refused_file_shows_the_words_of_the_problem_and_no_older_result(page: Page) -> None:
    text = b"Dear editor, " * 20
    page.choose("a.png", png(IMAGE))
    page.choose("letter.txt", text)
    assert page.failed()
    refusal = httpx.post(f"{page.url}/segment", content=text).json()
    assert page.text("status") == f"letter.txt: {refusal['detail']}"
    assert not page.shown("canvas")
    assert not page.browser.find_element(By.ID, "download").is_enabled()
    page.choose("a.png", png(IMAGE))
    assert not page.failed()
    assert page.shown("canvas")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_the_layout_fits_narrow_and_wide_windows(page: Page, scheme: str, width: int, height: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.choose("wide.png", png(np.tile(IMAGE, (1, 6))))
    page.browser.find_element(By.CSS_SELECTOR, "#receipt-box summary").click()
    assert page.overflow() == 0
    canvas = page.browser.find_element(By.ID, "canvas")
    assert canvas.rect["x"] + canvas.rect["width"] <= width
    # the words have the contrast that WCAG 2.2 asks for (1.4.3) on the ground of the scheme
    assert (luminance(page.colour("body", "color")) > luminance(page.ground())) == (scheme == "dark")
    assert contrast(page.colour("body", "color"), page.ground()) >= 4.5
    for element in ("#channel", "#threshold"):
        ground, ink = page.colour(element, "background-color"), page.colour(element, "color", "::placeholder")
        opacity = float(page.style(element, "opacity", "::placeholder"))
        assert contrast([round(b + opacity * (a - b)) for a, b in zip(ink, ground, strict=True)], ground) >= 4.5
    page.choose("letter.txt", b"Dear editor, " * 20)
    assert contrast(page.colour("#status", "color"), page.ground()) >= 4.5
    assert page.overflow() == 0


def test_a_file_of_annotations_names_its_image(page: Page) -> None:
    name = "Zellen β's 1;2.png"
    page.choose(name, png(IMAGE))
    page.set("format", "coco")
    page.browser.find_element(By.ID, "download").click()
    page.until(lambda: page.text("saved").startswith("Saved "))
    saved = page.folder / page.text("saved").removeprefix("Saved ")
    page.until(saved.is_file)
    assert [entry["file_name"] for entry in json.loads(saved.read_text())["images"]] == [name]
