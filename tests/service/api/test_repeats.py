"""The same image again over HTTP: without the net, for the same user alone, as a job too."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.images import disc, tiff
from tests.live import LiveServer, live_tiny, wait_until

KEYS = {"ann": "a" * 32, "ben": "b" * 32}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("repeats")
    keys = folder / "keys"
    keys.write_text("".join(f"{name}:{key}\n" for name, key in KEYS.items()))
    with live_tiny(folder, repeat_mb=16, api_keys_file=keys) as running:
        yield running


def stages(response: httpx.Response) -> set[str]:
    assert response.status_code == 200, response.text
    return {stage.partition(";")[0] for stage in response.headers["Server-Timing"].split(", ")}


def test_what_is_asked_again_is_answered_without_the_net(server: LiveServer) -> None:
    file = tiff(disc(200, 240, 40))

    def ask(user: str, given: dict[str, str], more: bytes = b"") -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS[user]}"}
        return httpx.post(f"{server.url}/segment", params=given, headers=headers, content=file + more)

    labels = {"output": "labels", "format": "tiff"}

    first = ask("ann", labels)
    assert "inference" in stages(first)
    again = ask("ann", labels)
    assert stages(again) >= {"open", "recall", "label", "encode"}
    assert not stages(again) & {"decode", "normalise", "inference"}
    assert again.content == first.content
    for change in ({"format": "geojson"}, {"threshold": "0.7"}, {"min_area": "7"}, {"min_score": "0.9"}):
        assert "recall" in stages(ask("ann", {**labels, **change}))
    assert "recall" in stages(ask("ann", {"output": "mask", "threshold": "0.2"}))
    form = {"image": ("disc.tif", file)}
    headers = {"Authorization": f"Bearer {KEYS['ann']}"}
    in_form = httpx.post(f"{server.url}/segment", data={"output": "labels"}, files=form, headers=headers)
    assert "recall" in stages(in_form)
    assert "inference" in stages(ask("ben", labels))
    assert "inference" in stages(ask("ann", labels, b"\0"))
    counted = httpx.get(f"{server.url}/metrics").text
    assert 'unet_repeats_total{model="tiny@1.0.0"} 7.0' in counted
    assert 'unet_pixels_total{model="tiny@1.0.0"} 480000.0' in counted


def test_a_job_repeats_what_a_request_has_shown(server: LiveServer) -> None:
    file = tiff(disc(220, 260, 30))
    headers = {"Authorization": f"Bearer {KEYS['ann']}"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        shown = client.post("/segment?output=labels&format=npy", content=file)
        job = client.post("/segment?output=labels&format=npy", content=file, headers={"Prefer": "respond-async"}).json()
        wait_until(lambda: client.get(f"/jobs/{job['id']}").json()["state"] == "done")
        report, result = client.get(f"/jobs/{job['id']}").json(), client.get(f"/jobs/{job['id']}/result")
    assert report["pixels_done"] == report["pixels"] == 220 * 260
    assert "recall" in stages(result)
    assert result.content == shown.content
