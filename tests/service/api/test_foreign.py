"""A package that brings no label rule, over HTTP: what was taken for one is said wherever it counts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.foreign import touching_pair, write_foreign_package
from tests.packages import write_tiny_package

NOTE = "the package has no label rule; by the names of its channels"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    packages = tmp_path_factory.mktemp("packages")
    write_foreign_package(packages / "foreign", description="bioimageio.yaml")
    write_foreign_package(packages / "mute", classes=("channel0", "channel1"))
    write_tiny_package(packages)
    with ready_app(Settings(models_dir=Path(packages), backend="cpu", threads=1)) as running:
        yield running


def test_a_card_says_what_the_values_of_a_mask_stand_for(client: AppClient) -> None:
    card = client.get("/models/foreign").json()
    assert card["classes"] == ["foreground", "boundary"]
    assert card["mask_classes"] == ["background", "object"]


def segment(client: AppClient, output: str) -> httpx.Response:
    buffer = io.BytesIO()
    np.save(buffer, touching_pair())
    answer = client.segment(buffer.getvalue(), params={"model": "foreign", "output": output, "format": "npy"})
    assert answer.status_code == 200, answer.text
    return answer


def notes(answer: httpx.Response) -> list[str]:
    return list(json.loads(answer.headers["X-UNet-Receipt"])["input"]["notes"])


def test_models_say_which_rule_was_taken_and_which_package_was_refused(client: AppClient) -> None:
    listed = client.get("/models").json()
    said = {model["name"]: model["label_rule_note"] for model in listed["models"]}
    assert said.keys() == {"foreign", "tiny"}
    assert said["foreign"].startswith(NOTE)
    assert said["tiny"] is None
    assert "do not tell which is background" in listed["refused"]["mute"]
    assert client.get("/models/foreign").json()["label_rule"]["boundary"] == [1]


def test_masks_and_labels_are_of_the_foreground_and_the_receipt_says_so(client: AppClient) -> None:
    mask, labels = segment(client, "mask"), segment(client, "labels")
    inside = touching_pair() > 0
    assert np.array_equal(np.load(io.BytesIO(mask.content)).squeeze() > 0, inside)
    numbered = np.load(io.BytesIO(labels.content)).squeeze()
    assert np.array_equal(numbered > 0, inside)
    assert np.unique(numbered).tolist() == [0, 1, 2]
    for answer in (mask, labels):
        assert [note.startswith(NOTE) for note in notes(answer)] == [True]


def test_probabilities_need_no_rule(client: AppClient) -> None:
    answer = segment(client, "probabilities")
    assert np.load(io.BytesIO(answer.content)).squeeze().shape == (2, 32, 32)
    assert notes(answer) == []
