"""/v2: outputs that are written as JSON, of which there may be many values."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.open_inference.json_values import json_values
from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, noise
from tests.problems import assert_problem
from tests.service.api.test_open_inference import KINDS, assert_same, segmented, sent_as_bytes, tensors

MOST = 4 << 20
HALF = np.zeros((2048, 1025), np.uint8)  # two outputs have 2,048 values too many


@pytest.fixture(scope="module")
def roomy(settings: Settings) -> Iterator[AppClient]:
    with ready_app(settings.model_copy(update={"max_body_mb": 20, "max_pixels": 8 << 20})) as running:
        yield running


def pixels_run(client: AppClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("unet_pixels_total{"))


@pytest.mark.parametrize(
    ("image", "kinds", "count", "members"),
    [
        pytest.param(np.zeros((2048, 2049), np.uint8), ["mask"], 4196352, {}, id="mask"),
        pytest.param(HALF, ["probabilities"], 4198400, {}, id="probabilities of two classes"),
        pytest.param(HALF, ["labels", "mask"], 4198400, {}, id="together"),
        pytest.param(np.stack([HALF[:205]] * 10, 1), ["labels", "mask"], 4202500, {"axes": "YZX"}, id="a stack"),
    ],
)
def test_more_values_than_json_may_have_are_refused_before_the_net_runs(
    roomy: AppClient, image: NDArray[Any], kinds: list[str], count: int, members: dict[str, str]
) -> None:
    before = pixels_run(roomy)
    answer = sent_as_bytes(roomy, image, outputs=[{"name": kind} for kind in kinds], parameters=members)
    problem = assert_problem(answer, 413, "too-many-values")
    assert f"have {count} values, the limit is {MOST}; ask for them as binary data (binary_data" in problem["error"]
    assert pixels_run(roomy) == before


def test_values_that_travel_as_bytes_do_not_count(roomy: AppClient) -> None:
    outputs = [{"name": "labels", "parameters": {"binary_data": True}}, {"name": "mask"}]
    assert sent_as_bytes(roomy, HALF, outputs=outputs).status_code == 200


def test_each_value_is_written_once(client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def counting(values: NDArray[Any]) -> bytes:
        nonlocal written
        written += values.size
        return json_values(values)

    monkeypatch.setattr("service.api.open_inference.response.json_values", counting)
    image = noise(300, 310, np.uint16)
    found = tensors(sent_as_bytes(client, image, outputs=[{"name": kind} for kind in KINDS]))
    assert written == sum(array.size for array in found.values())


def test_long_answers_are_written_one_after_the_other_and_short_ones_beside_them(settings: Settings) -> None:
    image = noise(450, 450, np.uint16)
    wanted: Any = {"outputs": [{"name": "probabilities"}]}
    with ready_app(settings.model_copy(update={"deadline_s": 2})) as hasty:
        asyncio.run(hasty.app.state.json_turn.acquire())  # as by an answer that takes long to write
        late = sent_as_bytes(hasty, image, **wanted)
        assert "send values as binary data" in assert_problem(late, 504, "deadline-exceeded")["error"]
        assert sent_as_bytes(hasty, disc(), **wanted).status_code == 200
        hasty.app.state.json_turn.release()
        assert_same(
            tensors(sent_as_bytes(hasty, image, **wanted))["probabilities"],
            segmented(hasty, image, output="probabilities"),
        )


@pytest.mark.parametrize("spool_mb", [0, 16])
def test_text_is_kept_where_uploads_are_until_it_is_sent(settings: Settings, spool_mb: int) -> None:
    image = noise(400, 400, np.uint16)
    with ready_app(settings.model_copy(update={"spool_mb": spool_mb})) as running:
        room = running.app.state.upload_room
        free = room.free_memory
        answer = sent_as_bytes(running, image, outputs=[{"name": "probabilities"}])
        assert_same(tensors(answer)["probabilities"], segmented(running, image, output="probabilities"))
        assert (room.on_disk, room.free_memory) == (0, free)
        room.most_on_disk = 1 << 20
        room.all_memory = room.free_memory = min(free, 1 << 20)
        full = sent_as_bytes(running, image, outputs=[{"name": "probabilities"}])
        assert "raise UNET_UPLOAD_LIMIT_MB" in assert_problem(full, 503, "no-room-for-upload")["error"]
        assert room.on_disk == 0
