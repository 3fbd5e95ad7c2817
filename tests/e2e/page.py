"""The page in a real browser, used as a person does."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.images import disc

WAIT_S = 60
IMAGE = np.tile(disc(64, 64), (4, 6))  # 24 discs on 256 x 384 px
DROP = """
    const data = new DataTransfer();
    for (const [name, content] of Object.entries(arguments[0]))
      data.items.add(new File([Uint8Array.from(atob(content), (character) => character.charCodeAt(0))], name));
    say("");
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
"""


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: Chrome, url: str, folder: Path) -> None:
        self.browser = browser
        self.url = url
        self.folder = folder
        self.asked: list[str] = []
        browser.get_log("performance")  # what came before
        browser.get(url)
        try:
            self.until(lambda: self.script("return document.getElementById('model').length") == 1)
        except TimeoutException as error:
            found = self.script(
                "return [document.readyState, ...performance.getEntriesByType('resource').map((r) => r.name)]"
            )
            raise AssertionError(f"there is no model: {found}, {browser.get_log('browser')}") from error

    def script(self, code: str) -> Any:
        return self.browser.execute_script(code)

    def text(self, name: str) -> str:
        return str(self.browser.find_element(By.ID, name).text)

    def shown(self, name: str) -> bool:
        return bool(self.browser.find_element(By.ID, name).is_displayed())

    def hand_over(self, name: str, content: bytes) -> None:
        """Choose a file."""
        path = self.folder / name
        path.write_bytes(content)
        self.script("say('')")  # else words on the file before could be taken for words on this one
        self.browser.find_element(By.ID, "file").send_keys(str(path))

    def choose(self, name: str, content: bytes) -> None:
        """Choose a file and wait until the page says how it went."""
        self.hand_over(name, content)
        self.settled()

    def drop(self, files: dict[str, bytes]) -> None:
        """Drop files from elsewhere at once, and wait likewise."""
        dropped = {name: base64.b64encode(content).decode() for name, content in files.items()}
        self.browser.execute_script(DROP, dropped)
        self.settled()

    def paths(self) -> list[str]:
        """Paths that the browser has asked for since the page was opened."""
        return [urlsplit(url).path for url in self.requested()]

    def pixel(self, x: int, y: int) -> list[int]:
        """Red, green, blue and opacity on the canvas."""
        picture = f"document.getElementById('canvas').getContext('2d').getImageData({x}, {y}, 1, 1)"
        rgba: list[int] = self.script(f"return [...{picture}.data]")
        return rgba

    def without_objects(self) -> None:
        """Move Opacity to 0, and wait until that is drawn."""
        self.script("$('opacity').value = 0; $('opacity').dispatchEvent(new Event('input'))")
        self.browser.execute_async_script("requestAnimationFrame(arguments[0])")

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        root = "document.documentElement"
        pixels: int = self.script(f"return {root}.scrollWidth - {root}.clientWidth")
        return pixels

    def style(self, selector: str, name: str, pseudo: str = "") -> str:
        """Return a computed style, of a part that no element stands for where ``pseudo`` names one."""
        element = f"document.querySelector('{selector}')"
        return str(self.script(f"return getComputedStyle({element}, '{pseudo}').getPropertyValue('{name}')"))

    def colour(self, selector: str, name: str, pseudo: str = "") -> list[int]:
        """Return a computed colour as red, green and blue."""
        value = self.style(selector, name, pseudo)
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

    def outdated(self) -> bool:
        """Whether what is shown is marked as not of the options that are chosen, and cannot be downloaded."""
        outdated = "outdated" in (self.browser.find_element(By.TAG_NAME, "body").get_attribute("class") or "")
        assert self.browser.find_element(By.ID, "download").is_enabled() != outdated
        return outdated

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
