"""The page in a real browser: headless Chromium on the running service."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from service.client import Client
from tests.images import disc, npy, png, tiff
from tests.live import LiveServer

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
WAIT_S = 60
IMAGE = np.tile(disc(64, 64), (4, 6))  # 24 discs on 256 x 384 px
COLOURS = """
    const canvas = document.getElementById("canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const found = new Set();
    for (let at = 0; at < data.length; at += 4)
      if (Math.max(data[at], data[at + 1], data[at + 2]) !== Math.min(data[at], data[at + 1], data[at + 2]))
        found.add(`${data[at]},${data[at + 1]},${data[at + 2]}`);
    return found.size;
"""
DROP = """
    const bytes = Uint8Array.from(atob("CONTENT"), (character) => character.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "dropped.png"));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
"""


def luminance(rgb: list[int]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2.2 defines it."""
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio, as WCAG 2.2 defines it: 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: Chrome, url: str, folder: Path) -> None:
        self.browser = browser
        self.url = url
        self.folder = folder
        self.asked: list[str] = []
        browser.get(url)
        self.until(lambda: self.script("return document.getElementById('model').length") == 1)

    def script(self, code: str) -> Any:
        return self.browser.execute_script(code)

    def text(self, name: str) -> str:
        return str(self.browser.find_element(By.ID, name).text)

    def shown(self, name: str) -> bool:
        return bool(self.browser.find_element(By.ID, name).is_displayed())

    def choose(self, name: str, content: bytes) -> None:
        """Choose a file and wait until the page says how it went."""
        path = self.folder / name
        path.write_bytes(content)
        self.script("say('')")  # else words on the file before could be taken for words on this one
        self.browser.find_element(By.ID, "file").send_keys(str(path))
        self.settled()

    def pixel(self, x: int, y: int) -> list[int]:
        """Red, green, blue and opacity on the canvas."""
        picture = f"document.getElementById('canvas').getContext('2d').getImageData({x}, {y}, 1, 1)"
        rgba: list[int] = self.script(f"return [...{picture}.data]")
        return rgba

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        root = "document.documentElement"
        pixels: int = self.script(f"return {root}.scrollWidth - {root}.clientWidth")
        return pixels

    def colour(self, selector: str, name: str) -> list[int]:
        """Return a computed colour as red, green and blue."""
        value = self.script(f"return getComputedStyle(document.querySelector('{selector}')).getPropertyValue('{name}')")
        return [int(number) for number in re.findall(r"\d+", value)[:3]]

    def ground(self) -> list[int]:
        """Colour behind the words, read from the screen: the page leaves it to the browser."""
        shot = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
        corner = shot.getpixel((2, 2))
        assert isinstance(corner, tuple)
        return [int(value) for value in corner]

    def settled(self) -> None:
        self.until(lambda: self.text("status").startswith("Done") or self.failed())

    def failed(self) -> bool:
        return "problem" in (self.browser.find_element(By.ID, "status").get_attribute("class") or "")

    def set(self, name: str, value: str) -> None:
        """Type a value and leave the field, or choose an entry of a list."""
        field = self.browser.find_element(By.ID, name)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value, "\t")

    def until(self, condition: Any) -> None:
        WebDriverWait(self.browser, WAIT_S, poll_frequency=0.05).until(lambda _: condition())

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser has written to its console."""
        entries: list[dict[str, Any]] = self.browser.get_log("browser")
        return entries

    def requested(self) -> list[str]:
        """Addresses that the browser has asked for since the page was opened."""
        entries = self.browser.get_log("performance")
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        self.asked += [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return self.asked


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser with a profile of its own; downloads go where fixture ``page`` says."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    running = Chrome(options=options, service=Service(driver))
    yield running
    running.quit()


@pytest.fixture
def page(browser: Chrome, server: LiveServer, tmp_path: Path) -> Iterator[Page]:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.set_window_size(1280, 900)
    opened = Page(browser, server.url, tmp_path)
    opened.complaints()
    yield opened
    allowed = {"127.0.0.1"}
    web = [urlsplit(url) for url in opened.requested() if url.startswith(("http", "ws"))]
    assert web
    assert {address.hostname for address in web} == allowed
    # a refused request is the browser's own remark; anything else is a fault of the page
    assert not [entry for entry in opened.complaints() if entry["source"] != "network"]


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
        ("stack.tif", tiff(np.stack([IMAGE, IMAGE]).astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_dim_picture_is_shown_over_all_greys(page: Page, name: str, content: bytes) -> None:
    page.choose(name, content)
    assert page.text("status").endswith(" s"), "shown, not left out"
    page.script("$('opacity').value = 0; $('opacity').dispatchEvent(new Event('input'))")
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


def jpeg(image_yx: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_yx).save(buffer, "JPEG")
    return buffer.getvalue()


STACK = np.stack([IMAGE] * 6)


@pytest.mark.parametrize(
    ("name", "content", "planes"),
    [
        ("a.png", png(IMAGE), 1),
        ("a.jpg", jpeg(IMAGE), 1),
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
    page.script("window.said = []; say = ((before) => (...words) => { said.push(words[0]); before(...words); })(say)")
    page.choose("large.png", png(np.tile(IMAGE, (6, 4))))
    assert any(re.search(r"… \d+\.\d s of about \d+ (s|min)$", text) for text in page.script("return said"))


def test_an_image_that_is_too_large_is_not_sent(page: Page) -> None:
    content = bytearray(png(IMAGE))
    content[16:24] = (400_000).to_bytes(4, "big") * 2
    page.choose("huge.png", bytes(content))
    assert page.failed()
    refusal = httpx.get(f"{page.url}/plan", params={"size": "400000x400000"})
    assert refusal.status_code == 413
    assert page.text("status") == refusal.json()["detail"]
    asked = [urlsplit(url).path for url in page.requested()]
    assert "/plan" in asked
    assert "/segment" not in asked


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
    ],
    ids=["bits in reverse", "pages in an order of their own"],
)
def test_what_the_page_cannot_read_for_sure_is_not_shown(page: Page, name: str, content: bytes) -> None:
    page.choose(name, content)
    assert page.text("status").endswith("the result stands alone")


def test_a_dropped_file_is_segmented(page: Page) -> None:
    page.script(DROP.replace("CONTENT", base64.b64encode(png(IMAGE)).decode()))
    page.settled()
    assert "24 objects" in page.text("facts")


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


def test_a_channel_is_chosen_and_shown_under_its_objects(page: Page) -> None:
    dark = np.full_like(IMAGE, 20)
    half = np.where(np.arange(384) < 192, IMAGE, 20)
    page.choose("two.tif", tiff(np.stack([dark, half]).astype(np.uint8), imagej=True, metadata={"axes": "CYX"}))
    assert page.failed()
    assert "choose one with channel=0 to 1" in page.text("status")
    page.set("channel", "1")
    page.until(lambda: "12 objects" in page.text("facts"))
    page.script("$('opacity').value = 0; $('opacity').dispatchEvent(new Event('input'))")
    assert page.pixel(32, 32)[:3] == [255, 255, 255]
    assert page.pixel(352, 32)[:3] == [0, 0, 0]
    page.set("channel", "0")
    page.until(lambda: "0 objects" in page.text("facts") and "12 objects" not in page.text("facts"))


def test_planes_of_a_stack_are_shown_one_by_one(page: Page) -> None:
    stack = np.stack([IMAGE, np.where(np.arange(384) < 64, IMAGE, 20).astype(np.uint8)])
    page.choose("stack.tif", tiff(stack, imagej=True, metadata={"axes": "ZYX"}))
    assert "plane 1 of 2 · 24 objects" in page.text("facts")
    page.browser.find_element(By.ID, "plane").send_keys("\ue014")  # arrow to the right
    page.until(lambda: "plane 2 of 2 · 4 objects" in page.text("facts"))
    page.script("$('opacity').value = 0; $('opacity').dispatchEvent(new Event('input'))")
    assert page.pixel(32, 32)[:3] == [255, 255, 255]
    assert page.pixel(96, 32)[:3] == [0, 0, 0]


@pytest.mark.parametrize(
    ("form", "extension"),
    [("rois", ".zip"), ("npy", ".npy"), ("geojson", ".geojson"), ("tiff", ".tif"), ("png", ".png")],
)
def test_a_download_is_what_the_service_answers(page: Page, form: str, extension: str) -> None:
    page.choose("cells.png", png(IMAGE))
    page.set("format", form)
    page.browser.find_element(By.ID, "download").click()
    page.until(lambda: page.text("status").startswith("Saved"))
    saved = page.folder / page.text("status").removeprefix("Saved ")
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


def test_a_service_that_is_gone_is_named(page: Page) -> None:
    offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": True})
    page.choose("a.png", png(IMAGE))
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    assert page.failed()
    assert "The service does not answer" in page.text("status")


def test_a_refused_file_shows_the_words_of_the_problem_and_no_older_result(page: Page) -> None:
    text = b"Dear editor, " * 20
    page.choose("a.png", png(IMAGE))
    page.choose("letter.txt", text)
    assert page.failed()
    assert page.text("status") == httpx.post(f"{page.url}/segment", content=text).json()["detail"]
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
    page.choose("letter.txt", b"Dear editor, " * 20)
    assert contrast(page.colour("#status", "color"), page.ground()) >= 4.5
    assert page.overflow() == 0
