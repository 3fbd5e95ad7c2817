"""What is said of packages that a service which has just started still loads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.cli import main
from service.engine.packages import registry, rescan
from service.engine.packages.registry import Entry, load_entry
from service.settings import Settings
from tests.live import wait_until
from tests.packages import put_package
from tests.served import served


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Packages that may still be loaded: each takes one turn."""
    free = threading.Semaphore(0)

    def held(*arguments: Any, **options: Any) -> Entry:
        assert free.acquire(timeout=60)
        return load_entry(*arguments, **options)

    for module in (registry, rescan):
        monkeypatch.setattr(module, "load_entry", held)
    yield free
    free.release(9)


def test_packages_that_load_are_named_until_they_are_served(
    tmp_path: Path, turns: threading.Semaphore, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cells", "tiny"):
        put_package(tmp_path, name)
    settings = Settings(models_dir=tmp_path, backend="cpu", threads=1)
    with served(create_app(settings), lifespan="on") as port:
        url = f"http://127.0.0.1:{port}"

        def listed() -> dict[str, Any]:
            found: dict[str, Any] = httpx.get(f"{url}/models").json()
            return found

        wait_until(lambda: listed()["loading"] == ["cells", "tiny"])
        assert listed()["problem"] == "the model packages are being loaded: cells, tiny"
        assert main(["models", "--url", url]) == 1
        shown = capsys.readouterr()
        assert not shown.out, "nor a header of no table"
        assert shown.err == "being loaded, or waiting for it: cells, tiny; ask again in a few seconds\n"
        turns.release()
        wait_until(lambda: listed()["loading"] == ["tiny"])
        turns.release()
        wait_until(lambda: not listed()["loading"])
        assert [model["name"] for model in listed()["models"]] == ["cells", "tiny"]
        assert listed()["problem"] is None
        assert main(["models", "--url", url]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_package_that_comes_later_is_named_while_it_is_loaded(tmp_path: Path, turns: threading.Semaphore) -> None:
    put_package(tmp_path / "models", "tiny")
    put_package(tmp_path / "aside", "cells")
    turns.release()
    settings = Settings(models_dir=tmp_path / "models", backend="cpu", threads=1, rescan_s=0.02)
    with served(create_app(settings), lifespan="on") as port:

        def listed() -> tuple[list[str], list[str]]:
            found = httpx.get(f"http://127.0.0.1:{port}/models").json()
            return [model["name"] for model in found["models"]], found["loading"]

        wait_until(lambda: listed() == (["tiny"], []))
        (tmp_path / "aside" / "cells").rename(tmp_path / "models" / "cells")
        wait_until(lambda: listed() == (["tiny"], ["cells"]))
        turns.release()
        wait_until(lambda: listed() == (["cells", "tiny"], []))


def test_a_service_that_cannot_load_any_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_package(tmp_path)
    settings = Settings(models_dir=tmp_path, backend="cpu", spool_dir=str(tmp_path / "nowhere"))
    with served(create_app(settings), lifespan="on") as port:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: "nowhere" in (httpx.get(f"{url}/models").json()["problem"] or ""))
        assert main(["models", "--url", url]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert "no model is served: 0 files" in shown.err
