"""Real microscopy through the running service."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from tests.live import LiveServer

pytestmark = [
    pytest.mark.data,
    # pycocotools 2.0 hands NumPy 2 an object that does not know the copy keyword
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def size(file: Path | io.BytesIO) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def grey_images(data_root: Path) -> list[Path]:
    folder = data_root / "nuclei-dsb2018"
    with (folder / "index.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["kind"] == "grey_fluorescence"]
    return [folder / "images" / f"{row['id']}.png" for row in rows]


def test_every_grey_nuclei_image_comes_back_as_a_mask_of_its_own_size(server: LiveServer, data_root: Path) -> None:
    images = grey_images(data_root)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        answers = {path: client.post("/segment", content=path.read_bytes()) for path in images}
    wrong = {path.name: answer.text for path, answer in answers.items() if answer.status_code != 200}
    assert wrong == {}
    sizes = {path.name: size(io.BytesIO(answer.content)) for path, answer in answers.items()}
    assert sizes == {path.name: size(path) for path in images}


def test_run_lengths_read_by_pycocotools_are_the_label_image(server: LiveServer, data_root: Path) -> None:
    body = grey_images(data_root)[0].read_bytes()
    url = f"{server.url}/segment"
    png = httpx.post(url, content=body, params={"output": "labels", "format": "png"}).content
    labels = np.asarray(Image.open(io.BytesIO(png)))
    document = httpx.post(url, content=body, params={"output": "labels", "format": "rle"}).json()
    drawn = np.zeros_like(labels)
    for entry in document["objects"]:
        drawn[coco.decode(entry["segmentation"]).astype(bool)] = entry["label"]
    assert labels.max() == len(document["objects"]) > 1
    np.testing.assert_array_equal(drawn, labels)


def test_every_file_that_readers_meet_gets_an_answer_or_a_problem(server: LiveServer, data_root: Path) -> None:
    files = sorted(path for path in (data_root / "reader-files").rglob("*") if path.is_file())
    with httpx.Client(base_url=server.url, timeout=60) as client:
        asked = {"format": "npy", "channel": "0"}
        answers = [client.post("/segment", content=path.read_bytes(), params=asked) for path in files]
    statuses = {answer.status_code for answer in answers}
    assert {200, 415, 422} <= statuses <= {200, 400, 413, 415, 422}
    problems = [answer for answer in answers if answer.status_code != 200]
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in problems)
    assert not [event for event in server.events() if "exception" in event], json.dumps(server.events()[-3:])
