"""Packages come, change and go while the service runs, and its clients notice nothing but that."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from model.package import ZOO, write_package
from tests.images import disc, png
from tests.live import LiveServer, hang_up_means, live_server
from tests.packages import never_ending, put_package, write_tiny_package


def models(server: LiveServer) -> dict[str, Any]:
    listed: dict[str, Any] = httpx.get(f"{server.url}/models").json()
    return listed


def served(server: LiveServer) -> list[str]:
    return [f"{model['name']}@{model['version']}" for model in models(server)["models"]]


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def zipped(folder: Path, version: str) -> Path:
    package = write_tiny_package(folder / version, version=version)
    return Path(shutil.make_archive(str(folder / version / "whole"), "zip", package.path))


def test_a_version_after_the_other_replaces_a_zip_under_load_without_one_failure(tmp_path: Path) -> None:
    folder, ended = tmp_path / "packages", threading.Event()
    folder.mkdir()
    versions = [f"1.{number}.0" for number in range(5)]
    archives = [zipped(tmp_path / "made", version) for version in versions]
    archives[0].rename(folder / "tiny.zip")
    seen: set[str] = set()

    def ask(server: LiveServer) -> int:
        count = 0
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not ended.is_set():
                answer = client.post("/segment", params={"output": "labels", "format": "rle"}, content=png(disc()))
                assert answer.status_code == 200, answer.text
                seen.add(answer.json()["receipt"]["model"]["version"])
                count += 1
        return count

    with live_server(tmp_path, folder, rescan_s=0.05) as server, ThreadPoolExecutor(2) as clients:
        counts = [clients.submit(ask, server) for _ in range(2)]
        try:
            until(lambda: versions[0] in seen)
            for version, archive in zip(versions[1:], archives[1:], strict=True):
                archive.replace(folder / "tiny.zip")
                until(lambda: version in seen)  # noqa: B023 - called at once
        finally:
            ended.set()
        assert all(count.result() for count in counts)
        until(lambda: served(server) == ["tiny@1.4.0"])  # the one before is let go of after its successor has come
        assert not [event for event in server.events() if event["level"] in {"error", "critical"}]
    assert seen == set(versions)


def test_what_is_served_refused_and_gone_is_told_everywhere(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    put_package(folder, "cells")
    with live_server(tmp_path, folder, rescan_s=0.05) as server:

        def told() -> dict[str, float]:
            samples = [
                sample
                for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
                for sample in family.samples
            ]
            found = {s.labels["name"]: s.value for s in samples if s.name == "unet_model_info"}
            found |= {s.labels["outcome"]: s.value for s in samples if s.name == "unet_package_changes_total"}
            return found | {s.name: s.value for s in samples if s.name == "unet_packages_refused"}

        assert told() == {"cells": 1, "served": 1, "refused": 0, "dropped": 0, "unet_packages_refused": 0}
        shutil.copytree(ZOO / "nuclei", tmp_path / "nuclei").rename(folder / "nuclei")  # all at once: counted exactly
        until(lambda: len(served(server)) == 2)
        assert httpx.get(f"{server.url}/readyz").json()["models"] == served(server)
        weights = next((folder / "nuclei").glob("*.onnx"))
        (tmp_path / "no-net").write_bytes(b"no net")
        (tmp_path / "no-net").replace(weights)
        until(lambda: "nuclei" in models(server)["refused"])
        (reference, reason) = next(iter(models(server)["kept"].items()))
        assert (reference.partition("@")[0], reason) == ("nuclei", "what is in its place now is not served")
        answer = httpx.post(f"{server.url}/segment", params={"model": "nuclei"}, content=png(disc()), timeout=60)
        assert answer.status_code == 200
        assert told() == {
            "cells": 1,
            "nuclei": 1,
            "served": 2,
            "refused": 1,
            "dropped": 0,
            "unet_packages_refused": 1,
        }
        (folder / "nuclei").rename(tmp_path / "gone")
        until(lambda: len(served(server)) == 1)
        assert models(server)["refused"] == models(server)["kept"] == {}
        assert told() == {"cells": 1, "served": 2, "refused": 1, "dropped": 1, "unet_packages_refused": 0}
        folder.rename(tmp_path / "all-gone")
        until(lambda: "cells@1.0.0" in models(server)["kept"])
        assert httpx.post(f"{server.url}/segment", content=png(disc())).status_code == 200


def test_a_service_that_nobody_watches_from_a_terminal_looks_when_it_is_told_to(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    put_package(folder, "cells")
    with hang_up_means(signal.SIG_DFL), live_server(tmp_path, folder, rescan_s=0) as server:
        put_package(folder, "nuclei")
        assert served(server) == ["cells@1.0.0"]
        server.process.send_signal(signal.SIGHUP)
        until(lambda: served(server) == ["cells@1.0.0", "nuclei@1.0.0"])


def test_a_service_ends_when_it_is_told_to_although_a_net_that_it_loads_never_does(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    put_package(folder, "cells")
    with live_server(tmp_path, folder, rescan_s=0.05, drain_delay_s=0, shutdown_grace_s=1) as server:
        package = write_tiny_package(tmp_path, name="endless")
        files = package.own_files()
        write_package(folder / "endless", package.spec, {**files, "weights.onnx": never_ending(files["weights.onnx"])})

        def status() -> int:
            return httpx.post(
                f"{server.url}/segment", params={"timeout": 1}, content=png(disc()), timeout=60
            ).status_code

        until(lambda: status() == 504)
        server.terminate()
        assert server.process.wait(60) == 0
    assert "left behind, still computing: unet-" in server.log.read_text()
