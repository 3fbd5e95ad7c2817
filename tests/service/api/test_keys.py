"""Keys: who has none gets nothing but probes and metrics; changed files count without a restart."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.keys import ApiKeys
from service.cli import main
from service.client import Client
from service.request_errors import Unauthorized
from service.settings import InvalidSettings, Settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, png
from tests.live import live_server, wait_until

ALICE, BOB = "alice-key-0123456789", "bob-key-0123456789"
LINES = f"# lab\n\nalice:{ALICE}\nbob:sha256:{hashlib.sha256(BOB.encode()).hexdigest()}\n"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(user: str, key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


@pytest.fixture(scope="module")
def guarded(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(LINES)
    with ready_app(settings.model_copy(update={"api_keys_file": file})) as running:
        yield running


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"])
def test_probes_and_metrics_need_no_key(guarded: AppClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/models",
        "/v2",
        "/v2/models/tiny",
        "/v2/models/tiny/ready",
        "/docs",
        "/openapi.json",
        "/plan",
        "/static/page.js",
        "/nothing",
        "/livez/",
    ],
)
def test_all_else_needs_one(guarded: AppClient, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/unauthorized"
    assert "no key was sent" in answer.json()["detail"]
    assert "or in the address, as https://any:KEY@host" in answer.json()["detail"]  # what programs of labs can do
    assert guarded.get(path, headers=bearer(ALICE)).status_code != 401


@pytest.mark.parametrize(
    "headers",
    [bearer(ALICE), bearer(BOB), basic("whoever", BOB), basic("", ALICE), {"Authorization": f"bEaReR  {BOB} "}],
)
def test_a_key_opens_in_either_form(guarded: AppClient, headers: dict[str, str]) -> None:
    assert guarded.segment(png(disc()), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (bearer(ALICE[:-1]), "the key is none of the 2 that are known"),
        (bearer(""), "the key is none of the 2"),
        (bearer(hashlib.sha256(BOB.encode()).hexdigest()), "none of the 2"),
        (bearer("sha256:" + hashlib.sha256(BOB.encode()).hexdigest()), "none of the 2"),
        (basic(ALICE, "no"), "none of the 2"),
        ({"Authorization": "Basic %%%"}, "neither 'Bearer KEY' nor"),
        ({"Authorization": f"Digest {ALICE}"}, "neither 'Bearer KEY' nor"),
        ({"Authorization": ALICE}, "neither 'Bearer KEY' nor"),
        ({"Authorization": b"Bearer \xff\xfe"}, "none of the 2"),
    ],
)
def test_what_opens_nothing_is_explained(guarded: AppClient, headers: dict[str, str], said: str) -> None:
    answer = guarded.segment(png(disc()), headers=headers)
    assert answer.status_code == 401
    assert said in answer.json()["detail"]
    assert ALICE not in answer.text


def test_the_log_says_whose_key_it_was(guarded: AppClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="unet.access"):
        guarded.get("/models", headers=basic("somebody", BOB))
        guarded.get("/models")
    shown = [vars(record)["fields"] for record in caplog.records if record.name == "unet.access"]
    assert [(fields.get("user"), fields["status"], fields.get("problem")) for fields in shown] == [
        ("bob", 200, None),
        (None, 401, "unauthorized"),
    ]


def test_the_interface_declares_keys_where_they_are_asked_for(guarded: AppClient, client: AppClient) -> None:
    document = guarded.get("/openapi.json", headers=bearer(ALICE)).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "basic"}
    assert "security" not in client.get("/openapi.json").json()


def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now, file = 0.0, tmp_path / "keys"
    file.write_text(LINES)
    keys = ApiKeys(file, lambda: now)
    file.write_text(f"carol:{'c' * 16}\n")
    assert keys.owner(f"Bearer {ALICE}") == "alice", "it is not looked at with every request"
    now = 1.0
    with pytest.raises(Unauthorized, match="none of the 1 that"):
        keys.owner(f"Bearer {ALICE}")
    assert keys.owner(f"Bearer {'c' * 16}") == "carol"
    for broken in ("carol", ""):
        now += 1
        file.write_text(broken)
        assert keys.owner(f"Bearer {'c' * 16}") == "carol"
        assert "the keys stay as they were" in caplog.messages[-1]
    now += 1
    file.unlink()
    assert keys.owner(f"Bearer {'c' * 16}") == "carol"
    now += 1
    # as Kubernetes changes a Secret: another file behind a link
    (tmp_path / "new").write_text(f"dave:{'d' * 16}\n")
    file.symlink_to(tmp_path / "new")
    assert keys.owner(f"Bearer {'d' * 16}") == "dave"


def test_a_file_that_is_replaced_behind_its_mount_is_an_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, file = 0.0, tmp_path / "keys"
    file.write_text(LINES)
    # as a mount of one file does, this holds it whatever has its name
    with file.open() as held:
        mounted = Path(f"/proc/self/fd/{held.fileno()}")
        keys = ApiKeys(mounted, lambda: now)
        (tmp_path / "new").write_text(f"carol:{'c' * 16}\n")
        (tmp_path / "new").replace(file)
        for _ in range(3):
            now += 1
            assert keys.owner(f"Bearer {ALICE}") == "alice"
        (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert f"{mounted} has been replaced" in told.getMessage()
        assert "mount the folder" in told.getMessage()
        # a file that had no name from the start is not meant
        caplog.clear()
        keys = ApiKeys(mounted, lambda: now)
        now += 1
        assert keys.owner(f"Bearer {ALICE}") == "alice"
        assert not caplog.records


def test_a_mark_that_editors_of_windows_begin_a_file_with_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xef\xbb\xbf" + f"alice:{ALICE}\r\nbob:{BOB}\r\n".encode())
    keys = ApiKeys(file)
    assert [keys.owner(f"Bearer {key}") for key in (ALICE, BOB)] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds 0 keys, 1 is needed"),
        (b"# alice:0123456789abcdef", "holds 0 keys"),
        (b"alice:short", "line 1 is no key"),
        (b"ok:0123456789abcdef\n0123456789abcdef", "line 2 is no key"),
        (b"alice:sha256:" + b"0" * 63, "line 1 is no key"),
        (b"alice:sha256:" + b"0" * 65, "line 1 is no key"),
        (b"alice:SHA256:" + b"0" * 64, "line 1 is no key"),
        (b"alice:sha512:" + b"0" * 128, "line 1 is no key"),
        (b"alice:0123456789 abcdef", "line 1 is no key"),
        (b"\xff\xfe", "cannot be read: it is no text"),
        (b"# alice:0123456789abcdef\n\xef\xbb\xbfbob:0123456789abcdef", "line 2 is no key"),
    ],
)
def test_a_service_with_unusable_keys_does_not_start_open(
    tmp_path: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidSettings, match=said):
        ApiKeys(file)
    assert main(["serve", "--api-keys-file", str(file)]) == 2
    assert f"UNET_API_KEYS_FILE (--api-keys-file) is '{file}'" in capsys.readouterr().err


def test_clients_give_a_key_or_an_address_with_one(tmp_path: Path, packages: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(LINES)
    with live_server(tmp_path, packages, default_model="tiny", api_keys_file=file) as server:
        # refused before the body has come: its end is never sent
        with httpx.stream("POST", f"{server.url}/segment", content=iter([b"II*\0"])) as answer:
            assert answer.status_code == 401
        for url, key in ((server.url, ALICE), (server.url.replace("://", f"://x:{BOB}@"), None)):
            with Client(url, api_key=key) as client:
                assert client.segment_array(disc()).shape == disc().shape
        # an answer is logged once it has been sent
        wait_until(
            lambda: (
                [event.get("user") for event in server.events() if event.get("path") == "/segment"]
                == [None, "alice", "bob"]
            )
        )
    assert ALICE not in json.dumps(server.events())
