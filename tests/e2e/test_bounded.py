"""A running service whose memory budget is smaller than the image: it answers, and stays small."""

from __future__ import annotations

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile

from tests.images import disc, npy, tiff
from tests.live import LiveServer, live_server
from tests.problems import assert_problem

EDGE = 6144
BUDGET_MB = 256


def anonymous_memory(pid: int) -> int:
    """Bytes of a process that no file backs: all that the system cannot take back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def discs(edge: int) -> bytes:
    """A tiled 16-bit TIFF with a disc in each 64 x 64 px."""
    pixels = np.tile(disc(64, 64).astype(np.uint16) * 200, (edge // 64, edge // 64))
    return tiff(pixels, compression="zlib", tile=(512, 512))


def test_an_image_beyond_the_budget_is_labelled_within_it(packages: Path, tmp_path: Path) -> None:
    """Decoded, evidence and labels take 75, 151 and 151 MB: in memory the process would exceed what is asserted."""
    asked = {"output": "labels", "format": "tiff"}
    spool = tmp_path / "spool"
    spool.mkdir()
    with (
        live_server(tmp_path, packages, memory_budget_mb=BUDGET_MB, spool_dir=spool, spool_mb=0) as server,
        ThreadPoolExecutor(1) as background,
    ):
        httpx.post(f"{server.url}/segment", content=discs(2048), params=asked, timeout=120).raise_for_status()
        before = peak = anonymous_memory(server.process.pid)
        large = background.submit(httpx.post, f"{server.url}/segment", content=discs(EDGE), params=asked, timeout=240)
        pause = threading.Event()
        while not large.done():
            peak = max(peak, anonymous_memory(server.process.pid))
            pause.wait(0.005)
        labels = tifffile.imread(io.BytesIO(large.result().raise_for_status().content))
    assert peak - before < BUDGET_MB << 20
    # every disc is one object, whatever tile, band or strip it fell into; numbers follow reading order
    single = labels[:64, :64] > 0
    assert np.array_equal(labels > 0, np.tile(single, (EDGE // 64, EDGE // 64)))
    assert int(labels.max()) == (EDGE // 64) ** 2
    centres = labels[32::64, 32::64].ravel()
    assert np.array_equal(centres, np.arange(1, len(centres) + 1))
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"spool_limit_mb": 300}, "413 too-large-for-memory", ("604 MB in files", "315 MB", "UNET_SPOOL_LIMIT_MB")),
        ({"spool_limit_mb": 0}, "413 too-large-for-memory", ("UNET_MEMORY_BUDGET_MB",)),
    ],
)
def test_where_there_is_no_room_in_files_the_answer_names_limit_and_remedy(
    packages: Path, tmp_path: Path, settings: dict[str, int], kind: str, words: tuple[str, ...]
) -> None:
    with live_server(tmp_path, packages, memory_budget_mb=BUDGET_MB, **settings) as server:
        assert_refused_and_going_on(server, kind, words)


def test_a_spool_folder_that_goes_away_is_named(packages: Path, tmp_path: Path) -> None:
    """As a disk that is unmounted does; where it is missing from the start, the service is not ready."""
    spool = tmp_path / "spool"
    spool.mkdir()
    with live_server(tmp_path, packages, memory_budget_mb=BUDGET_MB, spool_dir=spool) as server:
        spool.rmdir()
        assert_refused_and_going_on(server, "503 spool-full", (str(spool), "UNET_SPOOL_DIR"))


def assert_refused_and_going_on(server: LiveServer, kind: str, words: tuple[str, ...]) -> None:
    asked = {"output": "labels", "format": "tiff"}
    refusal = httpx.post(f"{server.url}/segment", content=discs(EDGE), params=asked, timeout=120)
    small = httpx.post(f"{server.url}/segment", content=discs(128), params=asked, timeout=120)
    problem = refusal.json()
    assert f"{refusal.status_code} {problem['type'].rpartition('/')[2]}" == kind
    assert [word for word in words if word not in problem["detail"]] == []
    assert small.status_code == 200


def test_answers_that_nobody_reads_are_within_the_budget(packages: Path, tmp_path: Path) -> None:
    """Each takes 18 MB; 96 MB of the budget are for images and results."""
    path = "/segment?output=probabilities&format=npy"
    image = npy(np.zeros((1500, 1500), np.uint8))
    with live_server(tmp_path, packages, memory_budget_mb=160) as server, ExitStack() as lines:
        host, port = server.url.removeprefix("http://").split(":")
        statuses: list[bytes] = []
        while not statuses or statuses[-1] == b"HTTP/1.1 200":
            assert len(statuses) < 20
            line = lines.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(60)
            line.connect((host, int(port)))
            line.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n".encode() + image)
            statuses.append(line.recv(12))
        assert statuses[-1] == b"HTTP/1.1 503"
        assert len(statuses) > 2
        refused = httpx.post(f"{server.url}{path}", content=image, timeout=60)
        assert_problem(refused, 503, "overloaded")
        assert "requests hold" in refused.json()["detail"]
        lines.close()
        until = time.monotonic() + 30
        while httpx.post(f"{server.url}{path}", content=image, timeout=60).status_code != 200:
            assert time.monotonic() < until
