"""Pages of other origins: who may read what, refusals included, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import InvalidSettings, Settings, load_settings
from tests.app_client import running_app
from tests.images import disc, png
from tests.live import LiveServer, live_server

KEY = "alice-key-0123456789"
VIEWER, OTHER = "https://viewer.example.org", "https://elsewhere.example.org"
EXPOSED = {"X-UNet-Receipt", "Server-Timing", "Retry-After", "X-Request-ID", "Location", "Preference-Applied"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, packages: Path) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("cors")
    (folder / "keys").write_text(f"alice:{KEY}\n")
    origins = f"http://127.0.0.1:3000, {VIEWER}"
    with live_server(
        folder, packages, default_model="tiny", api_keys_file=folder / "keys", cors_origins=origins, max_body_mb=1
    ) as running:
        yield running


def preflight(url: str, origin: str, headers: str = "authorization,x-request-id") -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    return httpx.options(url, headers={"Origin": origin, **asked})


@pytest.mark.parametrize("path", ["/segment", "/models", "/v2/models/tiny/infer"])
def test_a_preflight_passes_without_a_key(guarded: LiveServer, path: str) -> None:
    answer = preflight(guarded.url + path, VIEWER)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,x-request-id"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_of_another_origin_is_refused(guarded: LiveServer) -> None:
    answer = preflight(f"{guarded.url}/segment", OTHER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_page_of_the_internet_may_ask_a_service_of_the_laboratory(guarded: LiveServer) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
    answer = httpx.options(f"{guarded.url}/segment", headers={"Origin": VIEWER, **asked})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Private-Network"]) == (200, "true")
    assert httpx.options(f"{guarded.url}/segment", headers={"Origin": OTHER, **asked}).status_code == 400


def test_a_page_reads_the_answer_and_its_headers(guarded: LiveServer) -> None:
    sent = {"Origin": VIEWER, "Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{guarded.url}/segment", content=png(disc()), headers=sent)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
    assert set(answer.headers["Access-Control-Expose-Headers"].split(", ")) >= EXPOSED
    assert set(answer.headers["Vary"].split(", ")) == {"Accept", "Origin"}
    other = httpx.post(f"{guarded.url}/segment", content=png(disc()), headers=sent | {"Origin": OTHER})
    assert other.status_code == 200
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, {}, b""),
        (400, {"Authorization": f"Bearer {KEY}"}, b""),
        (413, {"Authorization": f"Bearer {KEY}"}, bytes((1 << 20) + 1)),
        (415, {"Authorization": f"Bearer {KEY}"}, b"no image"),
    ],
)
def test_a_page_reads_refusals(guarded: LiveServer, status: int, headers: dict[str, str], body: bytes) -> None:
    answer = httpx.post(f"{guarded.url}/segment", content=body, headers={"Origin": VIEWER, **headers})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == VIEWER
    assert answer.json()["status"] == status


def test_every_origin_may_where_all_are_let_in_but_never_with_passwords_of_the_browser(settings: Settings) -> None:
    with running_app(settings.model_copy(update={"cors_origins": "*"})) as running:
        answer = running.get("/readyz", headers={"Origin": "null"})  # loading packages: 503
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        running.wait_until_ready()


def test_without_the_setting_no_other_page_may_anything(settings: Settings) -> None:
    with running_app(settings) as running:
        answer = running.get("/livez", headers={"Origin": VIEWER})
        asked = {"Origin": VIEWER, "Access-Control-Request-Method": "POST"}
        refused = running.request("OPTIONS", "/segment", headers=asked)
        running.wait_until_ready()
    assert refused.status_code == 405
    assert not [name for name in {**answer.headers, **refused.headers} if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origins",
    [
        "viewer.example.org",
        "https://viewer.example.org/",
        "https://viewer.example.org/app",
        "https://viewer.example.org:443",
        "http://viewer.example.org:80",
        "https://me:secret@viewer.example.org",
        "https://*.example.org",
        "*,https://viewer.example.org",
        "null",
        "https://",
        "https://bücher.example.org",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused_at_start(origins: str) -> None:
    with pytest.raises(InvalidSettings, match=r"UNET_CORS_ORIGINS .* such as https://viewer\.example\.org"):
        load_settings({"cors_origins": origins})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        (" * ", "*"),
        ("HTTPS://Viewer.Example.org , http://[::1]:3000,", "https://viewer.example.org,http://[::1]:3000"),
        ("http://a:443,http://a:443,https://a:80", "http://a:443,https://a:80"),
    ],
)
def test_origins_are_kept_as_browsers_send_them(given: str, kept: str) -> None:
    assert load_settings({"cors_origins": given}).cors_origins == kept
